"""`push`: an image of the store into a registry: layers first, side by side, then what names them, its tag last."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from swarmd.runtime.errors import Invalid, NotFound
from swarmd.runtime.images.arrivals import Progress, Report, all_or_none, short, silent
from swarmd.runtime.images.image import Image, Variant
from swarmd.runtime.images.manifests import Descriptor, Index, Platform, images_in, is_index, parse
from swarmd.runtime.images.pulling import named
from swarmd.runtime.images.references import Reference
from swarmd.runtime.images.store import ImageStore, Lease
from swarmd.runtime.model import Struct
from swarmd.runtime.registry import Credentials, Registries, Repository

_AT_ONCE = 5  # layers
_PIECE = 1 << 20
_REPORT_EVERY = 0.1  # s
_MOST_MOUNTS = 3  # repositories that are asked to share a layer before it is sent


class Pushed(Struct, frozen=True):
    """instead: of several platforms only this one is here, so it alone was pushed; the digest is its own."""

    tag: str
    digest: str
    size: int
    instead: Platform | None = None


async def push(
    store: ImageStore,
    registries: Registries,
    name: Reference,
    *,
    wanted: Platform | None = None,
    credentials: Credentials | None = None,
    report: Report = silent,
) -> Pushed:
    """Push what a name of the store stands for, under that name; of several platforms all, or the one wanted."""
    image = store.get(str(name))
    repository = registries.repository(name, credentials, ("pull", "push"))
    with named(name, "pushed"), store.lease() as lease:
        variants: Sequence[Variant] = image.of(wanted).variants[:1] if wanted else image.variants
        _hold(lease, image, variants)
        target, instead = await _target(store, repository, image, variants, wanted)
        layers = {blob.digest: blob for variant in variants for blob in variant.blobs}
        for digest in layers:
            report(Progress(id=short(digest), status="Preparing"))
        slots = asyncio.Semaphore(_AT_ONCE)

        async def send(descriptor: Descriptor) -> None:
            async with slots:
                await _blob(store, repository, descriptor, [*_neighbours(store, name, descriptor.digest)], report)

        await all_or_none([send(layer) for layer in layers.values()])
        for variant in variants:
            await _blob(store, repository, variant.configuration, [], silent)
            if variant.manifest.digest != target.digest:
                await _manifest(store, repository, variant.manifest, variant.manifest.digest)
        tag = name.tag or target.digest
        await _manifest(store, repository, target, tag)
    return Pushed(tag=tag, digest=target.digest, size=target.size, instead=instead)


def _hold(lease: Lease, image: Image, variants: Sequence[Variant]) -> None:
    lease.blobs |= {image.id, *(digest for variant in variants for digest in variant.digests())}


async def _target(
    store: ImageStore, repository: Repository, image: Image, variants: Sequence[Variant], wanted: Platform | None
) -> tuple[Descriptor, Platform | None]:
    """What gets the tag, and the platform if it is only that one's because no other is here."""
    data = store.blobs.read(image.id)
    if not is_index(image.target.media_type, data, image.shown):
        return image.target, None
    if wanted:
        return variants[0].manifest, None
    here = {variant.manifest.digest for variant in variants}
    missing = [one for one in parse(data, Index, image.shown).manifests if one.digest not in here]
    if all([await _is_there(repository, one) for one in missing]):
        return image.target, None
    if len(variants) == 1:
        return variants[0].manifest, variants[0].platform
    absent = ", ".join(str(one.platform or one.digest) for one in images_in(missing) or missing)
    raise Invalid(
        f"image {image.shown} is not here as a whole: there is no {absent}; pull that, or push one platform with "
        "--platform"
    )


async def _is_there(repository: Repository, manifest: Descriptor) -> bool:
    try:
        await repository.resolve(manifest.digest)
    except NotFound:
        return False
    return True


def _neighbours(store: ImageStore, name: Reference, digest: str) -> Iterator[str]:
    """Other repositories of the same registry that have this content, as far as we know by our own names."""
    found: set[str] = set()
    for image in store.list():
        if not any(digest == blob.digest for variant in image.variants for blob in variant.blobs):
            continue
        for ref in map(Reference.parse, image.refs):
            if ref.domain == name.domain and ref.path != name.path and ref.path not in found:
                found.add(ref.path)
                yield ref.path
                if len(found) == _MOST_MOUNTS:
                    return


async def _blob(
    store: ImageStore, repository: Repository, descriptor: Descriptor, neighbours: Sequence[str], report: Report
) -> None:
    id = short(descriptor.digest)
    if await repository.has_blob(descriptor):
        report(Progress(id=id, status="Layer already exists"))
        return
    for path in neighbours:
        if await repository.mount(descriptor.digest, path):
            report(Progress(id=id, status=f"Mounted from {path}"))
            return
    await repository.push_blob(descriptor, _opener(store, descriptor), _reporter(descriptor, report))
    report(Progress(id=id, status="Pushed"))


def _opener(store: ImageStore, descriptor: Descriptor) -> Callable[[int], AsyncIterator[bytes]]:
    async def open_at(offset: int) -> AsyncIterator[bytes]:
        with store.blobs.path(descriptor.digest).open("rb", buffering=0) as file:
            file.seek(offset)
            while data := await asyncio.to_thread(file.read, _PIECE):
                yield data

    return open_at


def _reporter(descriptor: Descriptor, report: Report) -> Callable[[int], None]:
    told = 0.0

    def sent(current: int) -> None:
        nonlocal told
        if (now := time.monotonic()) - told > _REPORT_EVERY or current == descriptor.size:
            told = now
            report(Progress(id=short(descriptor.digest), status="Pushing", current=current, total=descriptor.size))

    return sent


async def _manifest(store: ImageStore, repository: Repository, described: Descriptor, ref: str) -> None:
    await repository.put_manifest(ref, store.blobs.read(described.digest), described.media_type)
