"""Where the files of a build come from: a directory, standard input or a URL, and what --build-context names besides.

Directories travel in one tar: what is in a named one lies there below a name that nothing else begins with.
"""

from __future__ import annotations

import os
import sys

from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.parser import Args, BadValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from swarmd.swarmctl.build_context import Context

_URLS = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")
_IMAGE = "docker-image://"
_PIECE = 256 * 1024
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


class Source:
    """Its part of the query, the bytes to send, and the directory that warnings are about, if it is one."""

    def __init__(self, query: dict[str, Any], content: Iterator[bytes], context: Context | None = None) -> None:
        self.query = query
        self.content = content
        self.context = context


def source(args: Args, more: dict[str, Any]) -> Source:
    """Put into `more`, the line before the files, the Dockerfile that is not one of them, and the names of contexts."""
    place, file = args.context, args.file
    beside = _named(args.build_context, more)
    if file == "-":
        if place == "-":
            raise Refusal("the Dockerfile and the context can't both be on standard input")
        more["dockerfile"] = _text(b"".join(_rest(b"")))
    if place == "-":
        return _from_input(more, file, beside)
    if not os.path.exists(place) and _is_url(place):
        return Source({"remote": place, "dockerfile": None if file == "-" else file}, *_alone(beside, iter(())))
    if not os.path.isdir(place):
        what = "is a file: name the directory around it" if os.path.exists(place) else "is not there"
        raise Refusal(f"build context {place} {what}")
    return _from_directory(place, file, more, beside)


def _is_url(place: str) -> bool:
    return place.startswith(_URLS) or place.endswith(".git")


def _alone(beside: list[Context], otherwise: Iterator[bytes]) -> tuple[Iterator[bytes], Context | None]:
    """Named directories without a context of the build's own that they could travel with."""
    return (beside[0].tar(beside[1:]), beside[0]) if beside else (otherwise, None)


def _from_directory(place: str, file: str | None, more: dict[str, Any], beside: list[Context]) -> Source:
    from swarmd.swarmctl.build_context import Context, ignored, text_of

    name = path = "Dockerfile"
    if file != "-":
        path = file or _default(place)
        if not os.path.exists(path):
            raise Refusal(f"{path} is not there: write a Dockerfile, or name it with -f")
        more["dockerfile"] = text_of(path)
        inside = os.path.relpath(os.path.realpath(path), os.path.realpath(place))
        name = path if inside.startswith("../") else inside
    left_out = ignored(place, "" if file == "-" else path)
    if left_out[0]:
        more["ignored"] = left_out
    context = Context(place, left_out)
    return Source({"dockerfile": name}, context.tar(beside), context)


def _default(place: str) -> str:
    path = os.path.join(place, "Dockerfile")
    other = os.path.join(place, "dockerfile")
    return other if not os.path.exists(path) and os.path.exists(other) else path


# ---------------------------------------------------------------- contexts that have names


def named(text: str) -> tuple[str, str]:
    """The name and the place of a --build-context."""
    name, _, place = text.partition("=")
    if not name or not place:
        raise BadValue(f"{text!r}: write it as NAME=DIRECTORY, NAME=URL or NAME={_IMAGE}IMAGE")
    if place.startswith("oci-layout://"):
        raise BadValue(f"{text!r}: load the layout with 'load', and name the image: {name}={_IMAGE}IMAGE")
    return name, place


def _named(given: list[tuple[str, str]], more: dict[str, Any]) -> list[Context]:
    from swarmd.swarmctl.build_context import Context, ignored

    found, places = [], {}
    for name, place in given:
        if place.startswith(_IMAGE) or (_is_url(place) and not os.path.exists(place)):
            places[name] = place
            continue
        if not os.path.isdir(place):
            raise Refusal(f"--build-context {name}: there is no directory {place}")
        prefix = f"{os.urandom(16).hex()}/"
        places[name] = f"sent:{prefix}"
        found.append(Context(place, ignored(place, ""), prefix))
    if places:
        more["contexts"] = places
    return found


# ---------------------------------------------------------------- standard input


def _from_input(more: dict[str, Any], file: str | None, beside: list[Context]) -> Source:
    """A tar, compressed or not, or a Dockerfile by itself."""
    start = _first(1024)
    if start[257:262] == b"ustar" or start.startswith(_MAGIC):
        if beside:
            raise Refusal("a context on standard input can't be sent with others: unpack it, and name its directory")
        return Source({"dockerfile": file}, _rest(start))
    if not start:
        raise Refusal("there is nothing on standard input: send a Dockerfile, or a context as a tar")
    if file:
        raise Refusal(f"standard input is a Dockerfile, so -f {file} is one too many")
    more["dockerfile"] = _text(start + b"".join(_rest(b"")))
    return Source({}, *_alone(beside, iter((bytes(1024),))))


def _first(size: int) -> bytes:
    data = b""
    while len(data) < size and (more := os.read(sys.stdin.fileno(), size - len(data))):
        data += more
    return data


def _rest(start: bytes) -> Iterator[bytes]:
    yield start
    while data := os.read(sys.stdin.fileno(), _PIECE):
        yield data


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refusal("what is on standard input is neither a tar nor a Dockerfile in UTF-8") from None
