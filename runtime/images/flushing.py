"""Which content of a store is on the disk for certain, and what becomes of the rest when the host goes down.

    flushed.json   {"boot": of the host, "blobs" and "layers": {digest: time of change in ns}, "images": [digest]}

Content that can be had again is used before it is on the disk, and flushed soon after: a pull waits for no disk.  In
the next boot of the host whatever is not known to have been flushed is doubtful: a blob must have its digest then, a
layer is unpacked again (mending.py).
"""

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from swarmd.runtime.images.blobs import Blobs
from swarmd.runtime.images.layers import Layers
from swarmd.runtime.images.names import replace
from swarmd.runtime.images.room import Reserve
from swarmd.runtime.images.unpacking.removal import remove
from swarmd.runtime.stages import files, syscalls

_LOG = logging.getLogger(__name__)


class Known(msgspec.Struct, frozen=True):
    """boot: of the host, when this was written. images: digests of the targets all of whose content was flushed."""

    boot: str = ""
    blobs: dict[str, int] = {}
    layers: dict[str, int] = {}
    images: tuple[str, ...] = ()

    def covers(self, other: "Known") -> bool:
        return other.blobs.items() <= self.blobs.items() and other.layers.items() <= self.layers.items()


class Flushed:
    def __init__(self, root: Path, blobs: Blobs, layers: Layers, reserve: Reserve) -> None:
        """Removes what a crash of the host has damaged, or may have; a store is opened with this."""
        self._root, self._blobs, self._layers = root, blobs, layers
        self._file = root / "flushed.json"
        self.known = self._read()
        self.host_went_down = self.known.boot != files.boot_id()
        if self.host_went_down:
            self._doubt()
            left = self._here(self.known.images)  # and was read from the disk
            reserve.spend(lambda: self._write(left))

    def all(self) -> bool:
        """Whether nothing has come since the last flush."""
        return self.known.covers(self._here(()))

    def flush(self, images: Iterable[str]) -> None:
        """Bring all that is here to the disk, the content of these images with it.  Blocks; OSError if it is full."""
        here = self._here(images)
        if not self.known.covers(here):
            flush(self._root)
            self._write(here)
        elif not {*here.images} <= {*self.known.images}:
            self._write(here)

    def _here(self, images: Iterable[str]) -> Known:
        blobs = {digest: _changed(self._blobs.path(digest)) for digest in self._blobs.digests()}
        layers = {diff_id: _changed(self._layers.tree(diff_id).parent / "size") for diff_id in self._layers.diff_ids()}
        return Known(files.boot_id(), blobs, layers, tuple(images))

    def _read(self) -> Known:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Known)
        except FileNotFoundError:
            return Known()
        except ValueError as error:
            # It is replaced whole: so this was no crash, and containers may run on any layer.
            _LOG.error("%s is damaged: %s", self._file, error)
            return Known(files.boot_id())

    def _write(self, known: Known) -> None:
        replace(self._file, msgspec.json.encode(known), self._blobs.temporary())
        self.known = known

    def _doubt(self) -> None:
        for digest in [*self._blobs.digests()]:
            path = self._blobs.path(digest)
            if self.known.blobs.get(digest) != _changed(path) and not _intact(path, digest):
                path.unlink()
        for diff_id in [*self._layers.diff_ids()]:
            place = self._layers.tree(diff_id).parent
            if self.known.layers.get(diff_id) != _changed(place / "size") and (doomed := self._layers.doom(diff_id)):
                remove(doomed)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _intact(path: Path, digest: str) -> bool:
    algorithm, _, digits = digest.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == digits


def flush(directory: Path) -> None:
    """Bring what was written to this file system to the disk: cheaper than a flush per file."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd, str(directory))
    finally:
        os.close(fd)
