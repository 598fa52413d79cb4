"""Tar archives of `cp`: packed while they are sent, unpacked while they come.

What comes was written by a container, which may be hostile: nothing is written outside the target, neither by a name
with .. nor through a link that the archive brought.
"""

from __future__ import annotations

import os
import tarfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from swarmd.swarmctl.client import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any


def target_of(text: str, name: str, is_directory: bool, *, contents: bool) -> Path:
    """Where what is called `name` goes.  contents: its content, not itself, if the target is there."""
    target = Path(text)
    if target.is_dir():
        return target if contents else target / name if name else target
    if target.exists() and is_directory:
        raise Refusal(f"{text} is a file: a directory cannot take its place")
    if text.endswith("/") and not is_directory:
        raise Refusal(f"{text} is no directory: make it first")
    if not target.parent.is_dir():
        raise Refusal(f"{target.parent} is no directory: make it first")
    return target


def unpack(content: Any, target: Path, *, keep_owners: bool, whole: bool = False) -> None:
    """The archive's one root becomes `target`, whatever the archive calls it; whole: its names are below `target`."""
    try:
        with tarfile.open(fileobj=content, mode="r|") as tar:
            root = os.path.realpath(target)
            directories: list[tuple[Path, tarfile.TarInfo]] = []
            for entry in tar:
                _, _, inner = entry.name.removeprefix("./").strip("/").partition("/")
                if entry.name.strip("/").startswith("./") or entry.name in (".", "./"):
                    inner = entry.name.strip("/").removeprefix(".").strip("/")
                inner = entry.name.strip("/") if whole else inner
                _check(entry.name, root, inner)
                if entry.islnk() and whole:
                    _check(entry.linkname, root, entry.linkname)
                elif entry.islnk():  # names in the archive begin with its root
                    _, _, entry.linkname = entry.linkname.strip("/").partition("/")
                    _check(entry.linkname, root, entry.linkname)
                if not keep_owners:
                    entry.uid, entry.gid, entry.uname, entry.gname = os.getuid(), os.getgid(), "", ""
                _write(tar, entry, target, inner)
                if entry.isdir():
                    directories.append((target / inner, entry))
            for path, entry in reversed(directories):  # after their content, which changes their times
                with suppress(OSError):
                    os.utime(path, (entry.mtime, entry.mtime))
    except tarfile.TarError as problem:
        raise Refusal(f"the daemon sent a broken archive: {problem}") from None
    except OSError as problem:
        raise Refusal(f"{problem.filename or target}: {(problem.strerror or str(problem)).lower()}") from None


def _check(name: str, root: str, inner: str) -> None:
    """Its directory, links followed, is in the target."""
    place = os.path.realpath(os.path.join(root, os.path.dirname(inner))) if inner else root
    if ".." in inner.split("/") or (place != root and not place.startswith(root.rstrip("/") + "/")):
        raise Refusal(f"the archive names {name!r}, which is outside of the target: nothing more was copied")


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path, inner: str) -> None:
    path = target / inner
    if entry.isdir():
        path.mkdir(exist_ok=True)
        if inner or entry.name not in (".", "./"):
            tar.chown(entry, str(path), numeric_owner=True)
            tar.chmod(entry, str(path))
        return
    if path.is_dir() and not path.is_symlink():
        raise Refusal(f"{path} is a directory: a file cannot take its place")
    with suppress(FileNotFoundError):
        path.unlink()  # never through a link that is there
    if entry.islnk():
        os.link(target / entry.linkname, path, follow_symlinks=False)
        return
    # Of the path only the last part is new: its directory was checked.
    entry.name = path.name
    tar.extract(entry, path.parent, numeric_owner=True)


@contextmanager
def packed(source: Path, name: str, is_directory: bool) -> Iterator[IO[bytes]]:
    """A reader of the archive of a file or directory, which is called `name` in it."""
    out, into = os.pipe()
    problems: list[Refusal] = []

    def write() -> None:
        try:
            with os.fdopen(into, "wb") as file, tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                tar.add(os.path.realpath(source) if is_directory else source, arcname=name)
        except BrokenPipeError:
            pass  # the daemon refused it, and says why
        except OSError as problem:
            problems.append(Refusal(f"{problem.filename or source}: {(problem.strerror or '').lower()}"))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with os.fdopen(out, "rb") as reader:
        yield reader
    writer.join()
    for problem in problems:
        raise problem
