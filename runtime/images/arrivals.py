"""How content comes into the store, wherever it comes from: a registry, another node, an archive.

A layer is written to a file as it comes, and unpacked by a worker that reads that file while it grows.  The worker
digests what it reads: a layer is adopted when both its digests are what its manifest and configuration say.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from swarmd.runtime.errors import Invalid, NotFound
from swarmd.runtime.images.blobs import digest_of, matches
from swarmd.runtime.images.coming import Coming
from swarmd.runtime.images.config import from_oci
from swarmd.runtime.images.image import check_layers
from swarmd.runtime.images.manifests import (
    DOCKER_CONFIG,
    OCI_CONFIG,
    Configuration,
    Descriptor,
    Index,
    Manifest,
    Platform,
    choose,
    images_in,
    is_index,
    not_nested,
    parse,
)
from swarmd.runtime.images.store import ImageStore, Lease, in_thread
from swarmd.runtime.images.unpacking.jobs import Unpacked
from swarmd.runtime.images.unpacking.removal import remove
from swarmd.runtime.model import Struct

EXISTS = "Already exists"  # what is said of a layer that need not come
_AT_ONCE = 3  # downloads of one image
_REPORT_EVERY = 0.1  # s
T = TypeVar("T")
_SUFFIXES = {"": "", "gzip": "+gzip", "zstd": "+zstd"}  # of media types


class Progress(Struct, frozen=True):
    """What happens to one piece of content. id: twelve digits of its digest; current and total in bytes."""

    id: str
    status: str
    current: int = 0
    total: int = 0


Report = Callable[[Progress], None]
Chunks = AsyncGenerator[bytes, None]


class Source(Protocol):
    """Where content is to be had."""

    async def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, index or configuration; whoever asks checks the digest."""
        ...

    def blob(self, descriptor: Descriptor) -> Chunks:
        """A layer from its beginning."""
        ...


def silent(progress: Progress) -> None:
    """For who reports to nobody."""


class Growth:
    """How long a file is by now, for somebody who reads it meanwhile; steps that come too fast are one."""

    def __init__(self) -> None:
        self._size, self._ended = 0, False
        self._changed = asyncio.Event()

    def more(self, size: int) -> None:
        self._size += size
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def sizes(self) -> AsyncIterator[int]:
        told = 0
        while self._size > told or not self._ended:
            if self._size > told:
                told = self._size
                yield told
            else:
                self._changed.clear()
                await self._changed.wait()


async def fetch(
    store: ImageStore,
    lease: Lease,
    source: Source,
    target: Descriptor,
    what: str,
    wanted: Platform | None,
    report: Report = silent,
) -> None:
    """Bring a target and all it needs; of an index, the image of one platform, or of all.

    what: its name in errors.  Raises Invalid for content that is not what its digest or its configuration says.
    """
    data = await _document(store, lease, source, target, what)
    if not is_index(target.media_type, data, what):
        await _image(store, lease, source, parse(data, Manifest, what), what, report)
        return
    listed = parse(data, Index, what).manifests
    for one in [choose(listed, wanted, what)] if wanted else images_in(listed):
        document = await _document(store, lease, source, one, what)
        if is_index(one.media_type, document, what):
            raise not_nested(what)
        await _image(store, lease, source, parse(document, Manifest, what), what, report)


async def _document(store: ImageStore, lease: Lease, source: Source, wanted: Descriptor, what: str) -> bytes:
    lease.blobs.add(wanted.digest)
    with contextlib.suppress(NotFound, Invalid):  # not here, or damaged
        return store.blobs.read(wanted.digest)
    data = await source.document(wanted)
    if not matches(data, wanted.digest):
        raise Invalid(f"{what} is damaged: its description {wanted.digest} came as {digest_of(data)}")
    await in_thread(lambda: store.blobs.write(data, wanted.media_type))
    return data


async def _image(
    store: ImageStore, lease: Lease, source: Source, manifest: Manifest, what: str, report: Report
) -> None:
    if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG, ""):
        raise Invalid(f"{what} is no container image: its configuration is of the type {manifest.config.media_type}")
    data = await _document(store, lease, source, manifest.config, what)
    config = parse(data, Configuration, f"the configuration of {what}")
    from_oci(config.config or {})  # nothing comes for what can't be used
    check_layers(manifest, config, what)
    for one, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True):
        if not _is_whole(store, one, diff_id):
            report(Progress(id=short(one.digest), status="Pulling fs layer"))
    slots = asyncio.Semaphore(_AT_ONCE)

    async def bring(descriptor: Descriptor, diff_id: str) -> None:
        async with slots:
            await layer(store, lease, source.blob, descriptor, diff_id, what, report)

    pairs = zip(manifest.layers, config.rootfs.diff_ids, strict=True)
    await all_or_none([bring(descriptor, diff_id) for descriptor, diff_id in pairs])


def _is_whole(store: ImageStore, descriptor: Descriptor, diff_id: str) -> bool:
    """Whether nothing of a layer is missing."""
    return store.blobs.holds(descriptor) and store.layers.has(diff_id)


async def layer(
    store: ImageStore,
    lease: Lease,
    blob: Callable[[Descriptor], Chunks],
    descriptor: Descriptor,
    diff_id: str,
    what: str,
    report: Report,
) -> None:
    """Bring one layer, blob and files, or the part of it that is missing."""
    id = short(descriptor.digest)
    lease.blobs.add(descriptor.digest)
    lease.layers.add(diff_id)
    async with store.only_one(descriptor.digest), store.only_one(f"unpacked {diff_id}"):
        if _is_whole(store, descriptor, diff_id):
            report(Progress(id=id, status=EXISTS))
            return
        has_blob, has_files = store.blobs.holds(descriptor), store.layers.has(diff_id)
        with store.arriving.receiving(descriptor.digest) as coming:
            arrival = await _unpacked(store, descriptor, diff_id, report) if has_blob else None
            if arrival is None and has_files:
                arrival = await _measured(store, _counted(blob(descriptor), descriptor, report), coming)
            elif arrival is None:
                with _named(descriptor):
                    arrival = await receive(store, _counted(blob(descriptor), descriptor, report), report, id, coming)
            try:
                if (arrival.digest, arrival.size) != (descriptor.digest, descriptor.size):
                    wanted = f"{descriptor.digest} of {descriptor.size} bytes"
                    raise Invalid(f"{what} is damaged: layer {wanted} came as {arrival.digest} of {arrival.size} bytes")
                if arrival.diff_id != diff_id:
                    holds = f"layer {descriptor.digest} holds {arrival.diff_id}, not {diff_id}"
                    raise Invalid(f"{what} is damaged: {holds}")
                arrival.adopt(store)
                coming.whole = True
            finally:
                await in_thread(arrival.remove)
        report(Progress(id=id, status="Pull complete"))


@contextlib.contextmanager
def _named(layer: Descriptor) -> Iterator[None]:
    """Have what is wrong with its content say which layer it is."""
    try:
        yield
    except Invalid as error:
        if layer.digest in str(error):
            raise
        raise Invalid(f"layer {layer.digest} can't be unpacked: {error}") from None


class Arrival:
    """A layer that has come and is not in its place yet. making: its files, None where they are here already."""

    def __init__(self, file: Path | None, making: Path | None, came: Unpacked) -> None:
        self._file, self._making = file, making
        self.digest, self.size, self.diff_id = came.digest, came.size, came.diff_id
        self._files_size = came.files_size
        self.suffix = _SUFFIXES[came.compression]

    def adopt(self, store: ImageStore) -> None:
        if self._file:
            store.blobs.adopt(self._file, self.digest)
        if self._making:
            store.layers.describe(self._making, self._files_size)
            store.layers.adopt(self._making, self.diff_id)

    def remove(self) -> None:
        """What was not adopted."""
        _remove(self._file, self._making)


def _remove(file: Path | None, making: Path | None) -> None:
    if file:
        file.unlink(missing_ok=True)
    if making:
        remove(making)


async def receive(
    store: ImageStore, chunks: Chunks, report: Report = silent, id: str = "", coming: Coming | None = None
) -> Arrival:
    """Write a layer as it comes, and unpack it meanwhile; coming: for others who read it meanwhile too."""
    file, making = store.blobs.temporary(), store.layers.prepare()

    def whole() -> None:
        report(Progress(id=id, status="Download complete"))
        report(Progress(id=id, status="Extracting"))

    try:
        unpacking = partial(store.workers.unpack, file, making / "tree")
        return Arrival(file, making, await read_meanwhile(chunks, file, unpacking, whole, coming))
    except BaseException:
        await in_thread(partial(_remove, file, making))
        raise


async def read_meanwhile(
    chunks: Chunks,
    file: Path,
    read: Callable[[AsyncIterator[int]], Coroutine[Any, Any, T]],
    whole: Callable[[], None] = lambda: None,
    coming: Coming | None = None,
) -> T:
    """Write a file as it comes, while `read`, which hears how long it is, reads it; the end of either is the other's.

    whole: called when all has come.  coming: for others who read it meanwhile too.
    """
    file.touch()
    growth = Growth()
    reading = asyncio.ensure_future(read(growth.sizes()))
    try:
        await _write(chunks, file, coming, growth, reading)
        growth.end()
        whole()
        return await reading
    except BaseException:
        reading.cancel()
        await _ended(reading)
        raise


async def _ended(task: "asyncio.Future[Any]") -> None:
    """Wait for its end even when cancelled meanwhile: a client can go while what it sent is being refused."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        raise cancelled


async def _write(
    chunks: Chunks,
    file: Path,
    coming: Coming | None = None,
    growth: Growth | None = None,
    reader: "asyncio.Future[Any] | None" = None,
) -> None:
    """reader: one that gives up ends this too, with its error."""
    async with aclosing(chunks):
        with file.open("wb", buffering=0) as out:
            if coming:
                coming.begin(file)
            async for chunk in chunks:
                await in_thread(partial(_write_all, out, chunk))
                if coming:
                    coming.more(len(chunk))
                if growth:
                    growth.more(len(chunk))
                if reader and reader.done():
                    await reader


def _write_all(out: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[out.write(left) :]


async def _unpacked(store: ImageStore, descriptor: Descriptor, diff_id: str, report: Report) -> Arrival | None:
    """A layer of the blob that is here; None if that is damaged, and must come again."""
    making = store.layers.prepare()
    report(Progress(id=short(descriptor.digest), status="Extracting"))
    came = None
    try:
        with contextlib.suppress(Invalid):
            came = await store.workers.unpack(store.blobs.path(descriptor.digest), making / "tree", None)
        if came and (came.digest == descriptor.digest or came.diff_id == diff_id):
            return Arrival(None, making, came)
    except BaseException:
        await in_thread(partial(remove, making))
        raise
    await in_thread(partial(_remove, store.blobs.doom(descriptor.digest), making))
    return None


async def _measured(store: ImageStore, chunks: Chunks, coming: Coming) -> Arrival:
    file = store.blobs.temporary()
    try:
        await _write(chunks, file, coming)
        return Arrival(file, None, await store.workers.measure(file))
    except BaseException:
        file.unlink(missing_ok=True)
        raise


async def _counted(chunks: Chunks, descriptor: Descriptor, report: Report) -> Chunks:
    """Report how far a download is, ten times a second; Invalid as soon as it is longer than it should be."""
    id, current, told = short(descriptor.digest), 0, 0.0
    async with aclosing(chunks):
        async for chunk in chunks:
            current += len(chunk)
            if current > descriptor.size:
                raise Invalid(f"layer {descriptor.digest} is damaged: it is longer than its {descriptor.size} bytes")
            if (now := time.monotonic()) - told > _REPORT_EVERY:
                told = now
                report(Progress(id=id, status="Downloading", current=current, total=descriptor.size))
            yield chunk


async def all_or_none(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run side by side; the first error ends the others, and is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        for done in asyncio.as_completed(tasks):
            await done
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def short(digest: str) -> str:
    return digest.partition(":")[2][:12]
