"""Indexes made by hand (`manifest create`): pushed, with the images that they list, from registry to registry."""

from collections.abc import AsyncIterator, Callable, Sequence

from swarmd.runtime.errors import Invalid, NotFound
from swarmd.runtime.images.manifests import Descriptor, Index, Manifest, is_index, parse
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import Credentials, Registries, Repository


async def push_index(
    registries: Registries,
    name: Reference,
    document: bytes,
    media_type: str,
    sources: Sequence[Reference],
    credentials: Credentials | None = None,
) -> str:
    """Push an index under a tag and return its digest; sources: where what it lists is now, each by its digest."""
    target = registries.repository(name, credentials, ("pull", "push"))
    places = {source.digest: source for source in sources}
    for listed in parse(document, Index, f"the list {name.familiar}").manifests:
        source = places.get(listed.digest)
        if source and source.repository == name.repository:
            continue
        if await _is_there(target, listed):
            continue
        if source is None:
            raise Invalid(f"the list {name.familiar} has {listed.digest}, and does not say where that is")
        origin = registries.repository(source, credentials if source.domain == name.domain else None)
        await _copy(origin, target, source, listed.digest)
    return await target.put_manifest(name.tag, document, media_type)


async def _is_there(repository: Repository, manifest: Descriptor) -> bool:
    try:
        await repository.resolve(manifest.digest)
    except NotFound:
        return False
    return True


async def _copy(origin: Repository, target: Repository, source: Reference, digest: str) -> None:
    data, media_type, _ = await origin.manifest(digest)
    if is_index(media_type, data, source.familiar):
        raise Invalid(f"{source.familiar} is a list of images itself: name the images")
    manifest = parse(data, Manifest, source.familiar)
    for blob in (manifest.config, *manifest.layers):
        if await target.has_blob(blob):
            continue
        if source.domain == target.name.domain and await target.mount(blob.digest, source.path):
            continue
        await target.push_blob(blob, _reader(origin, blob))
    await target.put_manifest(digest, data, media_type)


def _reader(origin: Repository, blob: Descriptor) -> Callable[[int], AsyncIterator[bytes]]:
    return lambda offset: origin.blob(blob, offset)
