"""Images that lost files when the host went down: unpacked again from their blobs, which are still here."""

from collections.abc import Iterable
from contextlib import suppress

from swarmd.runtime.errors import NotFound, RuntimeFault
from swarmd.runtime.images.arrivals import Chunks, fetch
from swarmd.runtime.images.manifests import Descriptor, Index, is_index, parse
from swarmd.runtime.images.store import ImageStore


async def mend(store: ImageStore) -> None:
    """Make images whole again as far as they can be without asking anybody; the store settles the others."""
    for target in store.damaged():
        with suppress(RuntimeFault):
            for one in _parts(store, target):
                with suppress(RuntimeFault), store.lease() as lease:
                    await fetch(store, lease, _Here(), one, one.digest, None)
    await store.settle()


def _parts(store: ImageStore, target: Descriptor) -> Iterable[Descriptor]:
    """Of an index, those images that are here, or were."""
    data = store.blobs.read(target.digest)
    if not is_index(target.media_type, data, target.digest):
        return [target]
    return [one for one in parse(data, Index, target.digest).manifests if store.blobs.has(one.digest)]


class _Here:
    """A source that has no more than is here; satisfies arrivals.Source."""

    async def document(self, descriptor: Descriptor) -> bytes:
        raise NotFound(f"content {descriptor.digest} is gone")

    async def blob(self, descriptor: Descriptor) -> Chunks:
        raise NotFound(f"content {descriptor.digest} is gone")
        yield b""
