"""Paths in a container, for a process that has gone into its files: opened as if the container's root were "/"."""

import os

from swarmd.runtime.stages import syscalls

_MOST_LINKS = 40  # as the kernel has it


class Refused(Exception):
    """kind: missing, read-only, full, invalid, ended or failed."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def cleaned(path: str) -> tuple[str, str]:
    """Return an absolute path without "." and "..", and its ending: "/" and "/." say that it is to be a directory.

    ".." goes by the words alone, as in Docker; so no last part is ever "..", which of a mount's root leads out of it.
    """
    if "\0" in path:
        raise Refused(f"{path!r} is no path", "invalid")
    ending = "/." if path.endswith("/.") else "/" if path.endswith("/") else ""
    return os.path.normpath("/" + path.lstrip("/")), ending


def open_directory(root: int, path: str, container: str) -> int:
    try:
        return syscalls.open_beneath(root, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        raise missing(path, container) from None
    except NotADirectoryError:
        raise Refused(f"{path} in container {container} is not a directory", "invalid") from None


def missing(path: str, container: str) -> Refused:
    return Refused(f"could not find the file {path} in container {container}", "missing")


def resolved(root: int, path: str) -> str:
    """Return where a path leads when all links are followed, whether something is there or not.

    It is for the client to see; whoever opens it follows the links once more.
    """
    done: list[str] = []
    waiting = _parts(path)
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            done = done[:-1]
            continue
        link = _link(root, "/" + "/".join(done), part)
        if not link:
            done.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise Refused(f"{path}: too many links, one after the other", "invalid")
        if link.startswith("/"):
            done = []
        waiting += _parts(link)
    return "/" + "/".join(done)


def _parts(path: str) -> list[str]:
    """The last comes first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _link(root: int, parent: str, name: str) -> str:
    try:
        holder = syscalls.open_beneath(root, parent, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return ""  # nothing there
    try:
        return os.readlink(name, dir_fd=holder)
    except OSError:
        return ""  # no link
    finally:
        os.close(holder)
