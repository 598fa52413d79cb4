"""The images of one host: an OCI image layout, plus every layer unpacked once.

    index.json, oci-layout    which images there are and what they are called (names.py)
    blobs/                    manifests, configurations and layers as they came (blobs.py)
    layers/                   layers ready for overlayfs (layers.py)
    tmp/                      what is being made; emptied when the store is opened
    reserve                   room to write index.json when images are removed from a full disk
    flushed.json              what is on the disk for certain (flushing.py)

Content comes first, its name last: killed before, nothing shows.  Content that is coming is held by a lease, all other
that no image, container or build needs is garbage.  Changes of the index happen one at a time; content comes in
parallel, the same content once.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec

from swarmd.runtime.errors import Conflict, Invalid, NotFound, RuntimeFault
from swarmd.runtime.images import image as images
from swarmd.runtime.images import names
from swarmd.runtime.images.blobs import Blobs
from swarmd.runtime.images.coming import Arriving
from swarmd.runtime.images.flushing import Flushed
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.layers import Layers
from swarmd.runtime.images.manifests import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest
from swarmd.runtime.images.recovery import recovered
from swarmd.runtime.images.references import normalised
from swarmd.runtime.images.room import Reserve, room_on
from swarmd.runtime.images.unpacking.removal import remove
from swarmd.runtime.images.unpacking.workers import Workers

_LOG = logging.getLogger(__name__)
_SHORTEST_ID = 4
_FLUSH_AFTER = 1.0  # s: what comes together is flushed together, and not while it is first used
_LAYOUT = '{"imageLayoutVersion":"1.0.0"}'

R = TypeVar("R")


class Lease:
    """Digests of blobs and diff ids of layers that are kept although nothing names them yet."""

    def __init__(self) -> None:
        self.blobs: set[str] = set()
        self.layers: set[str] = set()


class ImageStore:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        remove(root / "tmp")
        self.blobs = Blobs(root)
        self.layers = Layers(root, self.blobs)
        self.workers = Workers()
        self.arriving = Arriving()
        if not (root / "oci-layout").exists() or (root / "oci-layout").read_text() != _LAYOUT:
            (root / "oci-layout").write_text(_LAYOUT)
        self._reserve = Reserve(root / "reserve")
        self._flushed = Flushed(root, self.blobs, self.layers, self._reserve)
        self._flushing: asyncio.Task[None] | None = None
        self._unflushed = False
        self._changing = asyncio.Lock()
        self._leases: list[Lease] = []
        self._watchers: list[Callable[[], None]] = []
        self._needed: list[Callable[[], Iterable[Lease]]] = []
        self._entries = self._listed()
        self._images: dict[str, Image] = {}
        self._damaged: dict[str, str] = {}  # why those that are listed can't be used
        self._lent: dict[str, Image] = {}  # what is being built, for its own containers
        for entry in self._entries.values():
            self._read(entry, told=not self._flushed.host_went_down)
        self._deleting: set[asyncio.Future[None]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # gone with the last who waits

    async def close(self) -> None:
        """What is not on the disk yet is left to the kernel, as when the daemon is killed."""
        await self.workers.close()
        if self._flushing:
            self._flushing.cancel()
            await asyncio.wait([self._flushing])
        if self._deleting:
            await asyncio.wait(self._deleting)

    # ------------------------------------------------------------ looking

    def get(self, ref: str) -> Image:
        """By name, name and digest, id, or the beginning of an id; NotFound naming it."""
        try:
            name = normalised(ref)
        except Invalid:
            name = ""
        if ref in self._lent:
            return self._lent[ref]
        for image in self._images.values():
            if name in image.refs or ref in (image.id, image.id.partition(":")[2]):
                return image
        if found := self._by_digest(name) or self._by_manifest(ref):
            return found
        prefix = ref.removeprefix("sha256:")
        if len(prefix) >= _SHORTEST_ID:
            matches = [image for image in self._images.values() if image.id.startswith(f"sha256:{prefix}")]
            if len(matches) > 1:
                raise Conflict(f"image id {ref} is the beginning of {len(matches)} ids: give more of it")
            if matches:
                return matches[0]
        # Docker's words: clients look for them, and pull then.
        if damaged := self._unusable(ref):
            why = self._damaged[damaged.target.digest]
            said = f"what this node has of it is damaged ({why}): pull or load it again"
            raise NotFound(f"No such image: {ref}: {said}")
        raise NotFound(f"No such image: {ref}: pull, load, import or build it first")

    def entry(self, ref: str) -> names.Entry:
        """What is listed by that name or id, be it damaged; NotFound as get."""
        try:
            return self._entries[self.get(ref).id]
        except NotFound:
            if damaged := self._unusable(ref):
                return damaged
            raise

    def _unusable(self, ref: str) -> names.Entry | None:
        """Of an image that is listed and can't be used."""
        with suppress(Invalid):
            for id in self._damaged:
                if normalised(ref) in self._entries[id].refs:
                    return self._entries[id]
        digits = ref.removeprefix("sha256:")
        found = [id for id in self._damaged if id.startswith(f"sha256:{digits}") and len(digits) >= _SHORTEST_ID]
        return self._entries[found[0]] if len(found) == 1 else None

    def _by_digest(self, name: str) -> Image | None:
        """A name with a digest holds for every image of that repository."""
        repository, at, digest = name.partition("@")
        image = self._images.get(digest)
        if at and image and any(_repository(ref) == _repository(repository) for ref in image.refs):
            return image
        return None

    def _by_manifest(self, digest: str) -> Image | None:
        """One platform's variant by its own digest, as containers remember it."""
        for image in self._images.values():
            for variant in image.variants:
                if variant.manifest.digest == digest:
                    return image.of(variant.platform)
        return None

    def list(self) -> Sequence[Image]:
        return [*self._images.values()]

    def holds(self, descriptor: Descriptor, diff_id: str) -> bool:
        """Whether a layer is here, both as it came and ready for use."""
        return self.blobs.holds(descriptor) and self.layers.has(diff_id)

    def disk_usage(self) -> int:
        """Bytes of all blobs and all unpacked layers, each counted once."""
        blobs = sum(map(self.blobs.size, self.blobs.digests()))
        return blobs + sum(map(self.layers.size, self.layers.diff_ids()))

    def lend(self, image: Image) -> None:
        """Let containers be made from what is no image of the store; whoever lends it keeps its layers."""
        self._lent[image.id] = image

    def take_back(self, id: str) -> None:
        del self._lent[id]

    # ------------------------------------------------------------ changing

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Hold content while it comes; what nothing names afterwards is removed.  Exhausted if the disk gets full."""
        lease = Lease()
        self._leases.append(lease)
        try:
            with room_on(self.root):
                yield lease
        finally:
            self._leases.remove(lease)
            if needed := self._reachable():
                self._discard(lease.blobs - needed[0], lease.layers - needed[1])

    def keep(self, needed: Callable[[], Iterable[Lease]]) -> None:
        """Ask this, before anything is removed, for what is needed besides images."""
        self._needed.append(needed)

    @asynccontextmanager
    async def only_one(self, digest: str) -> AsyncIterator[None]:
        """For whoever brings content with this digest; others wait, and then find it here."""
        lock = self._locks.get(digest) or asyncio.Lock()
        self._locks[digest] = lock
        async with lock:
            yield

    async def name(self, target: Descriptor, refs: Iterable[str], lasting: bool = True) -> Image:
        """Make a target whose content is here an image, or give an image names, which leave those that had them.

        lasting: it outlasts a crash of the host from now on; otherwise, where it can be had again, from soon on.
        """
        async with self._changing:
            entries = names.named(self._entries, target, map(normalised, refs), time.time_ns())
            if lasting:
                await in_thread(partial(self._flush, target.digest))
            await self._write(entries)
        if not lasting:
            self._flush_soon()
        return self.get(target.digest)

    async def create(
        self,
        lease: Lease,
        configuration: bytes,
        layers: Sequence[Descriptor],
        annotations: dict[str, str] | None = None,
    ) -> Descriptor:
        """Write the configuration and manifest of an image whose layers are here, and return it unnamed."""
        config = self.blobs.write(configuration, OCI_CONFIG)
        bare = tuple(layer.bare for layer in layers)
        manifest = Manifest(config=config, layers=bare, annotations=annotations or None)
        target = self.blobs.write(msgspec.json.encode(manifest), OCI_MANIFEST)
        lease.blobs |= {config.digest, target.digest}
        return target

    async def tag(self, ref: str, new: str) -> Image:
        """Give an image another name; the name leaves the image that had it."""
        return await self.name(self.get(ref).target, (new,), lasting=False)

    async def remove(
        self, ref: str, force: bool = False, in_use: Callable[[], bool] = lambda: False
    ) -> tuple[Sequence[str], str]:
        """Take a name away, and with the last one (or by id) the image: the names taken, and the id if it is gone.

        Conflict if an id has names in several repositories and force is not given.  in_use: whether containers need
        it, so that it stays, without a name.  One that is damaged can be removed too.
        """
        async with self._changing:
            image = self.entry(ref)
            id, name = image.target.digest, _name(image.refs, ref)
            if not name and len({_repository(ref) for ref in image.refs}) > 1 and not force:
                raise Conflict(f"image {ref} has {len(image.refs)} names: remove them, or force")
            gone = (name,) if name else image.refs
            kept = tuple(ref for ref in image.refs if ref not in gone)
            entries = dict(self._entries)
            if kept or in_use():
                entries[id] = names.Entry(image.target, kept, image.updated)
                await self._write(entries)
                return gone, ""
            del entries[id]
            await self._forget(id, entries)
            return gone, id

    async def _forget(self, id: str, entries: dict[str, names.Entry]) -> None:
        """From now on no container can be made from it, also while that is being written."""
        image = self._images.pop(id, None)
        try:
            await self._write(entries)
        except BaseException:
            if image and id in self._entries:
                self._images[id] = image
            raise
        self.sweep()

    async def remove_variants(self, ref: str, manifests: Iterable[str]) -> Image:
        """Remove those of an image's variants whose manifests have these digests; one at least must stay."""
        async with self._changing:
            image = self.get(ref)
            self._discard(manifests, ())
            self._read(self._entries[image.id])
            self.sweep()
            self._tell()
            return self._images[image.id]

    @contextmanager
    def watched(self, changed: Callable[[], None]) -> Iterator[None]:
        """Call it whenever there are other images, or other names."""
        self._watchers.append(changed)
        try:
            yield
        finally:
            self._watchers.remove(changed)

    def sweep(self) -> None:
        """Remove all content that nothing needs; what can't be seen any more is deleted in the background.

        Nothing while an image's documents are damaged: what it needs is not known, and containers may run on it.
        """
        if needed := self._reachable():
            self._discard({*self.blobs.digests()} - needed[0], {*self.layers.diff_ids()} - needed[1])

    def damaged(self) -> Sequence[Descriptor]:
        """Targets that are listed and can't be used."""
        return [self._entries[id].target for id in self._damaged]

    async def settle(self) -> None:
        """Look again at what is damaged; what only a crash of the host kept from the disk is not listed any more."""
        flushed = {*self._flushed.known.images}
        doubted = {*self._damaged} - flushed if self._flushed.host_went_down else set[str]()
        for id in [*self._damaged]:
            self._read(self._entries[id], told=id not in doubted)
        if lost := self._damaged.keys() & doubted:
            async with self._changing:
                for id in lost:
                    shown = ", ".join(self._entries[id].refs) or id
                    _LOG.warning("image %s had just come when the host went down: pull or build it again", shown)
                await self._write({id: entry for id, entry in self._entries.items() if id not in lost})
        if not self._flushed.all() or self._images.keys() - flushed:
            self._flush_soon()

    # ------------------------------------------------------------ inside

    def _reachable(self) -> tuple[set[str], set[str]] | None:
        """Digests of blobs and diff ids of layers that are needed; None if an image's can't be read."""
        blobs, layers = set[str](), set[str]()
        for entry in self._entries.values():
            try:
                below = images.digests_of(self.blobs, entry.target)
            except (NotFound, Invalid):
                return None
            blobs, layers = blobs | below[0], layers | below[1]
        for lease in (*self._leases, *(lease for needed in self._needed for lease in needed())):
            blobs, layers = blobs | lease.blobs, layers | lease.layers
        return blobs, layers

    def _discard(self, blobs: Iterable[str], layers: Iterable[str]) -> None:
        """Renamed at once, so that nobody finds half of it; deleted in a thread."""
        doomed = [*map(self.blobs.doom, blobs), *map(self.layers.doom, layers)]
        if found := [path for path in doomed if path]:
            work = asyncio.get_running_loop().run_in_executor(None, _delete, found)
            self._deleting.add(work)
            work.add_done_callback(self._deleting.discard)

    async def _write(self, entries: dict[str, names.Entry]) -> None:
        """Show other images."""

        written, shrinks = False, entries.keys() < self._entries.keys()

        def index() -> None:
            names.write(self.root, entries, self.blobs.temporary())

        def write() -> None:
            nonlocal written
            self._reserve.keep()
            with room_on(self.root):
                self._reserve.spend(index) if shrinks else index()
            written = True

        try:
            await in_thread(write)
        finally:
            if written:  # cancelled or not
                self._show(entries)

    def _flush(self, *coming: str) -> None:
        flushed = {*self._flushed.known.images}
        with room_on(self.root):
            self._flushed.flush(
                [id for id in (*self._entries, *coming) if id in self._images or id in flushed or id in coming]
            )

    def _flush_soon(self) -> None:
        """In the background, once for all that comes meanwhile."""
        self._unflushed = True
        if not self._flushing or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_later())

    async def _flush_later(self) -> None:
        while self._unflushed:
            await asyncio.sleep(_FLUSH_AFTER)
            self._unflushed = False
            try:
                await in_thread(self._flush)
            except (OSError, RuntimeFault) as error:
                _LOG.warning("images that have just come are not on the disk yet: %s", error)

    def _show(self, entries: dict[str, names.Entry]) -> None:
        self._entries = entries
        self._images = {id: image for id, image in self._images.items() if id in entries}
        self._damaged = {id: why for id, why in self._damaged.items() if id in entries}
        for id, entry in entries.items():
            known = self._images.get(id)
            if known is None or (known.refs, known.updated) != (entry.refs, entry.updated):
                self._read(entry)
        self._tell()

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()

    def _listed(self) -> dict[str, names.Entry]:
        try:
            return names.read(self.root)
        except Invalid as error:
            entries = recovered(self.blobs, self.layers)
            names.set_aside(self.root)
            names.write(self.root, entries, self.blobs.temporary())
            _LOG.error("%s: %d images were found again, without their names: tag or pull them", error, len(entries))
            return entries

    def _read(self, entry: names.Entry, told: bool = True) -> None:
        """told: an operator is, of what is damaged."""
        id = entry.target.digest
        try:
            self._images[id] = images.read(self.blobs, self.layers, entry)
            self._damaged.pop(id, None)
        except RuntimeFault as error:
            self._images.pop(id, None)
            if told and self._damaged.get(id) != str(error):
                shown = ", ".join(entry.refs) or id
                _LOG.error("image %s is damaged: %s; pull or load it again, or remove it", shown, error)
            self._damaged[id] = str(error) if told else ""


def _name(refs: Sequence[str], ref: str) -> str:
    """The image's name that is meant, empty when it was named by its id."""
    try:
        name = normalised(ref)
    except Invalid:
        return ""
    return name if name in refs else ""


def _repository(ref: str) -> str:
    """A full name without tag and digest."""
    name = ref.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            remove(path)
        else:
            path.unlink(missing_ok=True)


async def in_thread(fn: Callable[[], R]) -> R:
    """Run fn to its end even when cancelled: a thread can't be stopped, and what guards it must outlast it."""
    work = asyncio.get_running_loop().run_in_executor(None, fn)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
