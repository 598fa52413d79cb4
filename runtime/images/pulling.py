"""`pull`: an image from a registry into the store, as the registry has it now.

What is here already is not asked for again; two pulls of the same content fetch it once (see arrivals.py).
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import cast

from swarmd.runtime.errors import Invalid, NotFound, RuntimeFault
from swarmd.runtime.images.arrivals import EXISTS, Chunks, Progress, Report, fetch, silent
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import (
    ACCEPTED,
    LARGEST,
    Configuration,
    Descriptor,
    Manifest,
    Platform,
    host_platform,
    is_index,
    parse,
    suits,
)
from swarmd.runtime.images.references import Reference
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.model import Struct
from swarmd.runtime.registry import Credentials, Registries, Repository


class Pulled(Struct, frozen=True):
    """is_new: something had to be fetched, or the name stood for another image."""

    image: Image
    ref: str
    is_new: bool


async def pull(
    store: ImageStore,
    registries: Registries,
    name: Reference,
    *,
    wanted: Platform | None = None,
    credentials: Credentials | None = None,
    report: Report = silent,
) -> Pulled:
    """Bring the image of a tag or digest for a platform, this host's if none is given.

    Raises NotFound, Unauthorized, Unavailable and so on as the registry answers, Invalid for another platform's image.
    """
    with named(name, "pulled"):
        return await _pull(store, registries.repository(name, credentials), name, wanted, report)


@contextlib.contextmanager
def named(name: Reference, done: str) -> Iterator[None]:
    """Have every refusal say which image it is about."""
    try:
        yield
    except RuntimeFault as error:
        if name.familiar not in str(error):
            error.args = (f"image {name.familiar} can't be {done}: {error}",)
        raise


async def _pull(
    store: ImageStore, repository: Repository, name: Reference, wanted: Platform | None, report: Report
) -> Pulled:
    ref = name.digest or name.tag
    # A digest says more than a tag that comes with it, as in Docker.
    full = f"{name.repository}{f'@{name.digest}' if name.digest else f':{name.tag}'}"
    target = await repository.resolve(ref)
    report(Progress(id=ref, status=f"Pulling from {name.path}"))
    source = Registry(repository)
    before = _image(store, full)
    if before is not None and before.id == target.digest:  # of what is here nothing is said, as in Docker
        report = _without_existing(report)
    with store.lease() as lease:
        if wanted:
            await _check_platform(store, source, target, wanted, name.familiar)
        await fetch(store, lease, source, target, name.familiar, wanted or host_platform(), report)
        image = await store.name(target, (full,), lasting=False)
    is_new = before is None or (before.id, before.variants) != (image.id, image.variants)
    return Pulled(image=image, ref=full, is_new=is_new)


def _without_existing(report: Report) -> Report:
    def filtered(progress: Progress) -> None:
        if progress.status != EXISTS:
            report(progress)

    return filtered


def _image(store: ImageStore, full: str) -> Image | None:
    try:
        return store.get(full)
    except NotFound:
        return None


class Registry:
    """A repository as a source of content; satisfies arrivals.Source."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._documents: dict[str, bytes] = {}  # small, and asked for twice

    async def document(self, descriptor: Descriptor) -> bytes:
        if descriptor.digest not in self._documents:
            self._documents[descriptor.digest] = await self._fetch(descriptor)
        return self._documents[descriptor.digest]

    async def _fetch(self, descriptor: Descriptor) -> bytes:
        if descriptor.media_type in (*ACCEPTED, ""):
            return (await self._repository.manifest(descriptor.digest))[0]
        if descriptor.size > LARGEST:
            raise Invalid(f"{descriptor.digest} has {descriptor.size} bytes: too many for a description of an image")
        return b"".join([piece async for piece in self._repository.blob(descriptor)])

    def blob(self, descriptor: Descriptor) -> Chunks:
        return cast("Chunks", self._blob(descriptor))

    def _blob(self, descriptor: Descriptor) -> AsyncIterator[bytes]:
        # The store hashes what it unpacks: once is enough.
        return self._repository.blob(descriptor, verify=False)


async def _check_platform(store: ImageStore, source: Registry, target: Descriptor, wanted: Platform, what: str) -> None:
    """Refuse, before its layers come, an image that is for one platform only and not for the one that is wanted."""
    try:
        data = store.blobs.read(target.digest)
    except (NotFound, Invalid):  # not here, or damaged
        data = await source.document(target)
    if is_index(target.media_type, data, what):
        return
    config = parse(await source.document(parse(data, Manifest, what).config), Configuration, what)
    if not suits(config.platform, wanted):
        raise Invalid(f"{what} is for {config.platform} only, not for {wanted}")
