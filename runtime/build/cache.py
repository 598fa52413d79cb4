"""What steps have made before, by keys that are pure functions of content; and how it is thrown away.

    <root>/records/<key>   a JSON document, replaced whole
    <root>/mounts/<id>/    directories of RUN --mount=type=cache, which only their instructions know how to fill

A record keeps its layer from the image store's garbage collection.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from swarmd.runtime.build.pruning import MOUNT, Kept
from swarmd.runtime.images.manifests import Descriptor
from swarmd.runtime.images.store import Lease
from swarmd.runtime.model import Struct
from swarmd.runtime.sizes import tree_size
from swarmd.runtime.stages import files


class Layer(Struct, frozen=True):
    """What a step made: a blob, and the layer that it holds."""

    descriptor: Descriptor
    diff_id: str


class Record(Struct, frozen=True):
    """layer None: the step changed nothing. Times in ns since the epoch; size in bytes, of the blob and the files."""

    key: str
    description: str
    created: int
    used: int
    layer: Layer | None = None
    size: int = 0
    uses: int = 1


def key(kind: str, *parts: Any) -> str:
    """The key of a step: of what kind it is and all that it depends on, in JSON types."""
    return hashlib.sha256(msgspec.json.encode([kind, *parts], order="sorted")).hexdigest()


class Cache:
    def __init__(self, root: Path, holds: Callable[[Descriptor, str], bool]) -> None:
        """holds: whether the image store has a blob, and the layer of this diff id."""
        self._records, self._mounts = root / "records", root / "mounts"
        self._records.mkdir(parents=True, exist_ok=True)
        self._mounts.mkdir(exist_ok=True)
        self._known: dict[str, Record] = {}
        self._busy: Counter[str] = Counter()  # mounts that steps have, by the names of their directories
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        for path in self._records.iterdir():
            record = _read(path)
            # A crash of the host may have taken the layer.
            if record and (record.layer is None or holds(record.layer.descriptor, record.layer.diff_id)):
                self._known[path.name] = record
            else:
                path.unlink()
        for path in self._mounts.iterdir():
            if path.suffix:  # was being made or removed
                shutil.rmtree(path)

    def find(self, key: str) -> Record | None:
        """A record, which counts as used from now on."""
        record = self._known.get(key)
        if record is None:
            return None
        record = msgspec.structs.replace(record, used=time.time_ns(), uses=record.uses + 1)
        self.take(record)
        return record

    def add(self, key: str, description: str, layer: Layer | None, size: int) -> Record:
        now = time.time_ns()
        record = Record(key=key, description=description, created=now, used=now, layer=layer, size=size)
        self.take(record)
        return record

    def take(self, record: Record) -> None:
        """Not synced: a record that is lost in a crash is a step that runs again."""
        files.replace(str(self._records / record.key), msgspec.json.encode(record), durable=False)
        self._known[record.key] = record

    def list(self) -> Sequence[Record]:
        return [*self._known.values()]

    def needed(self) -> Iterable[Lease]:
        """For the image store: what is not to be collected."""
        lease = Lease()
        for record in self._known.values():
            if record.layer:
                lease.blobs.add(record.layer.descriptor.digest)
                lease.layers.add(record.layer.diff_id)
        return (lease,)

    def forget(self, key: str) -> None:
        self._known.pop(key, None)
        (self._records / key).unlink(missing_ok=True)

    # ------------------------------------------------------------ mounts

    def mount(self, id: str, mode: int, uid: int, gid: int) -> tuple[Path, bool]:
        """The directory of a cache mount, and whether it is new."""
        path = self._mounts / hashlib.sha256(id.encode()).hexdigest()[:32]
        tree = path / "tree"
        if tree.exists():
            os.utime(path)
            return tree, False
        making = path.with_suffix(f".{os.urandom(4).hex()}")
        (making / "tree").mkdir(parents=True)
        os.chown(making / "tree", uid, gid)
        (making / "tree").chmod(mode)
        (making / "id").write_text(id)
        with contextlib.suppress(OSError):  # another build has just made it
            making.rename(path)
            return tree, True
        shutil.rmtree(making)
        return tree, False

    def lock(self, id: str) -> asyncio.Lock:
        """For the step that is to have a cache mount alone, of whatever build."""
        lock = self._locks.get(id) or asyncio.Lock()
        self._locks[id] = lock
        return lock

    @contextlib.contextmanager
    def using(self, tree: Path) -> Iterator[None]:
        """For as long as a step has the directory of a mount, so that it is not dropped."""
        self._busy[tree.parent.name] += 1
        try:
            yield
        finally:
            self._busy[tree.parent.name] -= 1
            self._busy += Counter()  # forgets those that nobody uses

    def mounts(self) -> Iterator[Kept]:
        for path in self._mounts.iterdir():
            with contextlib.suppress(OSError):
                found = path.stat()
                yield Kept(
                    id=path.name,
                    kind=MOUNT,
                    description=f"cached mount {(path / 'id').read_text()}",
                    created=found.st_ctime_ns,
                    used=found.st_mtime_ns,
                    uses=1,
                    size=tree_size(path / "tree"),
                    in_use=path.name in self._busy,
                )

    def forget_mount(self, id: str) -> Path | None:
        """Put a mount's directory where no step finds it any more, and return where; None if a step uses it now."""
        if id in self._busy:
            return None
        gone = (self._mounts / id).with_suffix(f".{os.urandom(4).hex()}")
        with contextlib.suppress(FileNotFoundError):
            (self._mounts / id).rename(gone)
        return gone


def _read(path: Path) -> Record | None:
    """None for what was written by another version, or not to its end."""
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except msgspec.DecodeError:
        return None
    return record if record.key == path.name else None
