"""Images made here: of a root file system that is imported, and of what a container has changed."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from swarmd.runtime.images.arrivals import Chunks, receive
from swarmd.runtime.images.config import ImageConfig, to_oci
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import (
    OCI_LAYER,
    Configuration,
    Descriptor,
    HistoryEntry,
    Platform,
    RootFS,
    host_platform,
)
from swarmd.runtime.images.store import ImageStore, in_thread

_NO_CONFIG = ImageConfig()


async def import_rootfs(
    store: ImageStore,
    content: Chunks,
    refs: Sequence[str] = (),
    *,
    config: ImageConfig = _NO_CONFIG,
    message: str = "",
    platform: Platform | None = None,
) -> Image:
    """Make an image of one layer from a tar, compressed or not, of a root file system."""
    with store.lease() as lease:
        arrival = await receive(store, content)
        lease.blobs.add(arrival.digest)
        lease.layers.add(arrival.diff_id)
        try:
            arrival.adopt(store)
        finally:
            await in_thread(arrival.remove)
        platform, created = platform or host_platform(), now()
        document = Configuration(
            created=created,
            architecture=platform.architecture,
            os=platform.os,
            variant=platform.variant or None,
            config=to_oci(config),
            rootfs=RootFS(diff_ids=(arrival.diff_id,)),
            history=(HistoryEntry(created=created, comment=message or "imported"),),
        )
        layer = Descriptor(media_type=OCI_LAYER + arrival.suffix, digest=arrival.digest, size=arrival.size)
        return await store.name(await store.create(lease, msgspec.json.encode(document), [layer]), refs)


def now() -> str:
    """RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
