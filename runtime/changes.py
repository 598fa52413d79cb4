"""What a container has changed, read from its overlay's upper directory; overlayfs documentation, "whiteouts".

Nothing is followed: a layer's directory counts only while it is a directory at every step.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

MODIFIED, ADDED, DELETED = 0, 1, 2
# Made by us as places to mount on.
OURS = ("/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/.dockerenv")


class Change(NamedTuple):
    path: str
    kind: int


def changes(upper: Path, layers: Sequence[Path]) -> list[Change]:
    """In order of their paths; layers lowest first. Blocks while it looks: call it in a thread."""
    found = list(_changes(str(upper), [str(layer) for layer in reversed(layers)], ""))
    kept = [change for change in found if not (change.kind == ADDED and change.path in OURS)]
    # A directory that was only touched to make such a place is no change of the container's.
    return [c for i, c in enumerate(kept) if not _is_empty_parent(c, kept[i + 1 :]) or c in _own(found, kept, c)]


def without_ours(upper: Path, layers: Sequence[Path]) -> list[str] | None:
    """The paths that hold all but the places that we made to mount on; None if there are none of these."""
    lower = [str(layer) for layer in reversed(layers)]
    ours = {path for path in OURS if os.path.lexists(f"{upper}{path}") and not _was_there(lower, path)}
    if not ours:
        return None
    above = {"", *(path.rpartition("/")[0] for path in ours)}
    found = [f"{path}/{entry.name}" for path in sorted(above) for entry in _entries(f"{upper}{path}")]
    return [path for path in found if path not in ours and path not in above]


def _was_there(lower: list[str], path: str) -> bool:
    directories: list[str] | None = lower
    *parents, name = path.strip("/").split("/")
    for parent in parents:
        directories = _before(directories or [], parent)
    return bool(directories) and _before(directories or [], name) is not None


def _is_empty_parent(change: Change, following: Sequence[Change]) -> bool:
    return change.kind == MODIFIED and not any(c.path.startswith(f"{change.path}/") for c in following[:1])


def _own(found: Sequence[Change], kept: Sequence[Change], change: Change) -> Sequence[Change]:
    """The change itself, unless all that made it one was left out."""
    below = [c for c in found if c.path.startswith(f"{change.path}/")]
    return () if below and not any(c in kept for c in below) else (change,)


def _changes(here: str, lower: list[str], path: str) -> Iterator[Change]:
    """lower: the same directory in the layers below, topmost first."""
    for entry in _entries(here):
        name = f"{path}/{entry.name}"
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # it went meanwhile
        before = _before(lower, entry.name)
        if _is_whiteout(status):
            yield Change(name, DELETED)
        elif not entry.is_dir(follow_symlinks=False):
            yield Change(name, MODIFIED if before is not None else ADDED)
        else:
            yield Change(name, MODIFIED if before is not None else ADDED)
            opaque = _is_opaque(entry.path)
            if opaque and before:
                present = {inner.name for inner in _entries(entry.path)}
                yield from (Change(f"{name}/{gone}", DELETED) for gone in _names(before) if gone not in present)
            yield from _changes(entry.path, [] if opaque else before or [], name)


def _entries(directory: str) -> "list[os.DirEntry[str]]":
    """By name; none in one that went meanwhile."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _before(lower: list[str], name: str) -> list[str] | None:
    """The directories that this name was in the layers below; [] if it was something else, None if it was not there."""
    directories: list[str] = []
    for layer in lower:
        place = f"{layer}/{name}"
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            continue
        if _is_whiteout(status):
            break
        if not stat.S_ISDIR(status.st_mode):
            return directories or []
        directories.append(place)
        if _is_opaque(place):
            break
    return directories or None


def _names(directories: list[str]) -> list[str]:
    gone: set[str] = set()
    found: set[str] = set()
    for directory in directories:
        with os.scandir(directory) as entries:
            for entry in entries:
                if _is_whiteout(entry.stat(follow_symlinks=False)):
                    gone.add(entry.name)
                elif entry.name not in gone:
                    found.add(entry.name)
    return sorted(found)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False
