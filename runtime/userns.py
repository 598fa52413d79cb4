"""Ranges of ids for containers: each its own user namespace, so that no id of one means anything to another.

A range is of one run, not of a container: nothing on disk carries its ids, since layers and binds are mounted with
ids mapped.  What is held is found by the container's id in the run directory alone, as with networks.

    <run root>/userns/<id>/user, net     mounted namespaces
    <run root>/userns/<id>/range         "first size"
"""

import asyncio
import contextlib
import ctypes
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmd.runtime.errors import Exhausted, Invalid, RuntimeFault
from swarmd.runtime.spawner_client import Spawner
from swarmd.runtime.stages import syscalls

# Where systemd says that container managers may take ids from (its UIDS-GIDS document).
FIRST, LAST = 524_288, 1_879_048_191
SIZE = 65_536
_LARGEST = 1 << 24
_MNT_DETACH = 2
_AUTO = re.compile(r"auto(?::size=(\d+))?")
_TRIAL = "trial"
_LOG = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """Paths that namespaces are mounted on, and the host's ids that 0 to size-1 inside are."""

    user: str
    network: str
    first: int
    size: int

    def mapping(self) -> list[dict[str, int]]:
        return [{"containerID": 0, "hostID": self.first, "size": self.size}]


def wanted_size(mode: str) -> int:
    """Ids that a mode asks for; 0 for the host's own. Raises Invalid for a mode that is none."""
    if mode in ("", "host"):
        return 0
    match = _AUTO.fullmatch(mode)
    size = int(match[1] or SIZE) if match else 0
    if not match or not 1 <= size <= _LARGEST:
        raise Invalid(f"user namespace mode {mode!r} is none of host, auto and auto:size=N (N up to {_LARGEST})")
    return size


class UserNamespaces:
    def __init__(self, spawner: Spawner, directory: Path) -> None:
        self._spawner, self._directory = spawner, directory
        self._held: dict[str, UserNamespace] = {}
        self._usable: bool | None = None
        self._trying = asyncio.Lock()
        # Several daemons on a host begin at places of their own: two containers then share no range by accident.
        digest = hashlib.sha256(os.fsencode(directory.resolve())).digest()
        self._next = FIRST + int.from_bytes(digest[:4], "big") % ((LAST - FIRST) // SIZE) * SIZE

    def adopt(self) -> None:
        """Find what a daemon before this one held."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in self._directory.iterdir():
            try:
                first, size = map(int, (place / "range").read_text().split())
            except (FileNotFoundError, ValueError):
                _drop(place)  # half made
                continue
            self._held[place.name] = UserNamespace(str(place / "user"), str(place / "net"), first, size)

    async def usable(self, data_root: Path) -> bool:
        """Whether this kernel makes user namespaces, and lets their ids be mapped onto the files below data_root."""
        async with self._trying:
            if self._usable is None:
                self._usable = await self._try(data_root)
            return self._usable

    async def _try(self, data_root: Path) -> bool:
        try:
            made = await self.take(_TRIAL, SIZE)
            fd = os.open(made.user, os.O_RDONLY | os.O_CLOEXEC)
            tree = syscalls.open_tree(str(data_root), False)
            try:
                syscalls.map_ids(tree, fd, False, str(data_root))
            finally:
                os.close(fd)
                os.close(tree)
        except (RuntimeFault, OSError) as problem:
            _LOG.warning("containers get no ids of their own unless asked for: %s", problem)
            return False
        finally:
            self.release(_TRIAL)
        return True

    def ids(self) -> Sequence[str]:
        return list(self._held)

    async def take(self, id: str, size: int) -> UserNamespace:
        """Make the namespaces of one run. Raises StartError when the kernel will not, Exhausted without free ids."""
        place = self._directory / id
        made = UserNamespace(str(place / "user"), str(place / "net"), self._free(size), size)
        self._held[id] = made
        try:
            place.mkdir(mode=0o700)
            for name in ("user", "net"):
                (place / name).touch(0o600)
            request = {"op": "userns", "user": made.user, "network": made.network, "first": made.first, "size": size}
            await self._spawner.ask(request)
            (place / "range").write_text(f"{made.first} {size}\n")
        except BaseException:
            self.release(id)
            raise
        return made

    def release(self, id: str) -> None:
        """Nothing happens if nothing is held."""
        if self._held.pop(id, None):
            _drop(self._directory / id)

    def _free(self, size: int) -> int:
        taken = sorted((held.first, held.first + held.size) for held in self._held.values())
        for begin in (self._next, FIRST):
            first = begin
            for low, high in taken:
                if low < first + size and first < high:
                    first = -(-high // SIZE) * SIZE
            if first + size <= LAST:
                self._next = first + -(-size // SIZE) * SIZE
                return first
        raise Exhausted("no ids are left for another user namespace: remove containers, or use --userns=host")


def _drop(place: Path) -> None:
    for name in ("user", "net"):
        _libc.umount2(os.fsencode(place / name), _MNT_DETACH)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(place)
