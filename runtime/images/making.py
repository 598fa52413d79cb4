"""Images made here: of a root file system that is imported, and of what a container has changed."""

import contextlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.arrivals import Arrival, Chunks, receive
from swarmd.runtime.images.config import ImageConfig, to_oci
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import (
    OCI_LAYER,
    OCI_LAYER_GZIP,
    Configuration,
    Descriptor,
    HistoryEntry,
    Platform,
    RootFS,
    host_platform,
)
from swarmd.runtime.images.store import ImageStore, Lease, in_thread
from swarmd.runtime.images.unpacking.removal import remove

_NO_CONFIG = ImageConfig()
_EMPTY = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"  # of a tar without entries


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
        try:
            arrival = await receive(store, content)
        except Invalid as error:
            raise Invalid(f"the root file system can't be imported: {error}") from None
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


async def commit(
    store: ImageStore,
    base: Image,
    upper: Path,
    refs: Sequence[str],
    config: ImageConfig,
    *,
    paths: Iterable[str] | None = None,
    author: str = "",
    comment: str = "",
    command: str = "",
) -> Image:
    """An image of a base and of what was changed on it. paths: only these of upper; see Workers.pack."""
    with store.lease() as lease:
        lease.blobs |= {*base.variant.digests()}
        lease.layers |= {*base.variant.diff_ids}
        layer, diff_id = await add_changes(store, lease, upper, paths=paths)
        before, created, is_empty = base.variant.document, now(), diff_id == _EMPTY
        step = HistoryEntry(
            created=created,
            created_by=command or None,
            author=author or None,
            comment=comment or None,
            empty_layer=is_empty,
        )
        document = msgspec.structs.replace(
            before,
            created=created,
            author=author or None,
            config=to_oci(config),
            rootfs=RootFS(diff_ids=before.rootfs.diff_ids if is_empty else (*before.rootfs.diff_ids, diff_id)),
            history=(*(before.history or ()), step),
        )
        blobs = base.variant.blobs if is_empty else (*base.variant.blobs, layer)
        target = await store.create(lease, msgspec.json.encode(document), blobs)
        return await store.name(target, refs)


async def add_changes(
    store: ImageStore, lease: Lease, upper: Path, *, paths: Iterable[str] | None = None, clamp: int | None = None
) -> tuple[Descriptor, str]:
    """Make a layer of an overlay's upper directory, which stays as it is; return its blob and its diff id.

    paths: only these.  clamp: no time of a file is later than this, in s since the epoch.
    """
    file, making = store.blobs.temporary(), store.layers.prepare()
    try:
        packed = await store.workers.pack(upper, file, paths=paths, clamp=clamp)
        lease.blobs.add(packed.digest)
        lease.layers.add(packed.diff_id)
        async with store.only_one(f"unpacked {packed.diff_id}"):
            if not store.layers.has(packed.diff_id):
                came = await store.workers.unpack(file, making / "tree", None)
                Arrival(file, making, came).adopt(store)
            elif store.blobs.size(packed.digest) != packed.size:
                store.blobs.adopt(file, packed.digest)
        return Descriptor(media_type=OCI_LAYER_GZIP, digest=packed.digest, size=packed.size), packed.diff_id
    finally:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
        await in_thread(partial(remove, making))


def now() -> str:
    """RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
