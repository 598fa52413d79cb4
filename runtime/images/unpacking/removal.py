"""Removes trees of any depth, following nothing."""

import os
import stat
from contextlib import suppress
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(parent: int, name: str) -> int:
    """Remove a directory that nobody else changes; return the bytes of the files that were only there."""
    top = os.open(name, _OPEN, dir_fd=parent)
    freed = _empty(top)
    os.rmdir(name, dir_fd=parent)
    return freed


def remove(path: Path) -> None:
    """Remove a directory and all that is in it; what can't be removed stays."""
    with suppress(OSError):
        _empty(os.open(path, _OPEN))
        path.rmdir()


def empty(directory: Path) -> None:
    """Remove all that is in a directory, if there is one."""
    with suppress(FileNotFoundError):
        _empty(os.open(directory, _OPEN))


def _empty(place: int) -> int:
    """Walks by one descriptor, going back up by "..": a tree may be deeper than descriptors or a stack last."""
    freed = 0
    names: list[str] = []
    try:
        while True:
            deeper = ""
            for child in os.listdir(place):
                found = os.stat(child, dir_fd=place, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    try:
                        os.rmdir(child, dir_fd=place)
                    except OSError:
                        deeper = child
                    continue
                freed += found.st_size if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else 0
                os.unlink(child, dir_fd=place)
            if deeper:
                names.append(deeper)
                inner = os.open(deeper, _OPEN, dir_fd=place)
            elif names:
                inner = os.open("..", _OPEN, dir_fd=place)
                os.rmdir(names.pop(), dir_fd=inner)
            else:
                return freed
            os.close(place)
            place = inner
    finally:
        os.close(place)
