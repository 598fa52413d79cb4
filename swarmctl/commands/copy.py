"""swarmctl cp, export: files of containers, as tar archives over the API."""

from __future__ import annotations

import base64
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from swarmd.swarmctl import archive, download, output
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Go's file modes, which the daemon answers with.
_DIRECTORY = 1 << 31
_LINK = 1 << 27
_STAT = "x-docker-container-path-stat"


def add_cp(parser: Parser) -> None:
    parser.switch("-a", "--archive", help="keep users and groups")
    parser.switch("-L", "--follow-link", help="what a link of SOURCE points to, not the link")
    parser.switch("-q", "--quiet", help="say nothing of what was copied", default=not sys.stdout.isatty())
    parser.argument("source", "SOURCE")
    parser.argument("target", "TARGET")
    parser.set_defaults(run=copy)


def copy(client: Client, args: Args) -> None:
    source, target = _place(args.source), _place(args.target)
    if source.container and target.container:
        raise Refusal("files are not copied between two containers: copy them here first")
    if not source.container and not target.container:
        raise Refusal("neither is in a container: write that one as CONTAINER:PATH")
    count = _from(client, source, args) if source.container else _into(client, target, args)
    if not args.quiet:
        print(f"Copied {output.size(count)} to {args.target}", file=sys.stderr)


@dataclass(frozen=True)
class _Place:
    container: str
    path: str


def _place(text: str) -> _Place:
    container, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        return _Place("", text)
    if not path or not container:
        raise Refusal(f"{text!r} lacks {'a path' if container else 'a container'}: write it as CONTAINER:PATH")
    # In a container every path is from its root.
    return _Place(container, path if path.startswith("/") else f"/{path}")


# ---------------------------------------------------------------- out of a container


def _from(client: Client, source: _Place, args: Args) -> int:
    path = source.path
    if args.follow_link:
        found = _stat(client, source.container, path)
        if found and found["mode"] & _LINK:
            path = os.path.join(os.path.dirname(path), found["linkTarget"])
    with client.stream(f"/containers/{segment(source.container)}/archive", path=path) as response:
        content = _Counted(response.read)
        if args.target == "-":
            if sys.stdout.isatty():
                raise Refusal("an archive is nothing for a terminal: send it somewhere")
            while data := content.read(65536):
                sys.stdout.buffer.write(data)
            return content.count
        is_directory = bool(_decoded(response.headers[_STAT])["mode"] & _DIRECTORY)
        name = os.path.basename(source.path.rstrip("/"))
        target = archive.target_of(args.target, name, is_directory, contents=source.path.endswith("/."))
        archive.unpack(content, target, keep_owners=args.archive)
        return content.count


def _stat(client: Client, container: str, path: str) -> dict[str, Any] | None:
    try:
        return _decoded(client.head(f"/containers/{segment(container)}/archive", path=path)[_STAT])
    except Refusal as refusal:
        if refusal.status == 404:
            return None
        raise


def _decoded(header: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(header))
    return found


class _Counted:
    """A reader that knows how much has passed."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._read(size)
        self.count += len(data)
        return data


# ---------------------------------------------------------------- into a container


def _into(client: Client, target: _Place, args: Args) -> int:
    found = _stat(client, target.container, target.path)
    path = target.path
    if found and found["mode"] & _LINK:
        path = os.path.join(os.path.dirname(path), found["linkTarget"])
        found = _stat(client, target.container, path)
    is_directory = bool(found and found["mode"] & _DIRECTORY)
    url = f"/containers/{segment(target.container)}/archive"
    query = {"noOverwriteDirNonDir": True, "copyUIDGID": True if args.archive else None}
    if args.source == "-":
        if not is_directory:
            raise Refusal(f"{args.target} is no directory, and an archive is unpacked into one")
        content = _Counted(sys.stdin.buffer.read)
        client.put(url, _chunks(content), path=path, **query)
        return content.count
    source = Path(args.source)
    if args.follow_link:
        source = source.resolve()
    if not os.path.lexists(args.source):
        raise Refusal(f"{args.source}: no such file or directory")
    from_directory = source.is_dir() and (not source.is_symlink() or args.source.endswith(("/", "/.")))
    parent, name = _name_in(path, args.source, from_directory, is_directory, found is not None)
    with archive.packed(source, name, from_directory) as reader:
        content = _Counted(reader.read)
        client.put(url, _chunks(content), path=parent, **query)
    return content.count


def _name_in(path: str, source: str, from_directory: bool, is_directory: bool, exists: bool) -> tuple[str, str]:
    """The directory in the container to unpack in, and the name that the source has in it."""
    if is_directory:
        contents = from_directory and source.endswith("/.")
        return path, "." if contents else os.path.basename(os.path.abspath(source))
    if exists and from_directory:
        raise Refusal(f"{path} is a file in the container: a directory cannot take its place")
    if path.endswith(("/", "/.")) and not from_directory:
        raise Refusal(f"{path} is no directory in the container")
    trimmed = path.rstrip("/")
    return os.path.dirname(trimmed) or "/", os.path.basename(trimmed)


def _chunks(content: _Counted) -> Iterator[bytes]:
    while data := content.read(65536):
        yield data


# ---------------------------------------------------------------- export


def add_export(parser: Parser) -> None:
    parser.text("-o", "--output", metavar="FILE", help="instead of standard output")
    parser.argument("container", "CONTAINER")
    parser.set_defaults(run=export)


def export(client: Client, args: Args) -> None:
    download.refuse_terminal(args.output or "", "-o")
    download.save(client.stream(f"/containers/{segment(args.container)}/export"), args.output or "")
