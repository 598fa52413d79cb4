"""`save`: images as a tar that is both an OCI image layout and what `docker load` reads, made as it is sent."""

import asyncio
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from swarmd.runtime.errors import NotFound
from swarmd.runtime.images.arrivals import Chunks
from swarmd.runtime.images.image import Image, Variant
from swarmd.runtime.images.manifests import OCI_INDEX, Descriptor, Index, Platform
from swarmd.runtime.images.references import familiar
from swarmd.runtime.images.store import ImageStore

_CHUNK = 1 << 20
_NAME = "io.containerd.image.name"
_TAG = "org.opencontainers.image.ref.name"


async def save(
    store: ImageStore, chosen: Sequence[tuple[Image, Sequence[str]]], wanted: Platform | None = None
) -> Chunks:
    """Images, each with the names it is saved under. wanted: only this platform's variant of each.

    The content can't be removed while it is read.
    """
    with store.lease() as lease:
        parts = [(image.of(wanted) if wanted else image, refs) for image, refs in chosen]
        written: set[str] = set()
        for image, _ in parts:
            variants = image.variants[:1] if wanted else image.variants
            lease.blobs |= {image.id, *(digest for variant in variants for digest in variant.digests())}
        for image, _ in parts:
            variants = image.variants[:1] if wanted else image.variants
            digests = [d for variant in variants for d in variant.digests()] + ([] if wanted else [image.id])
            for digest in digests:
                if digest not in written:
                    written.add(digest)
                    async for chunk in _file(store, digest):
                        yield chunk
        documents = {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": msgspec.json.encode(Index(manifests=tuple(_entries(parts, wanted)))),
            "manifest.json": msgspec.json.encode([_saved(image.variant, refs) for image, refs in parts]),
        }
        for name, data in documents.items():
            yield _header(name, len(data)) + data + _padding(len(data))
        yield bytes(2 * tarfile.BLOCKSIZE)


async def _file(store: ImageStore, digest: str) -> Chunks:
    try:
        file = store.blobs.path(digest).open("rb")
    except FileNotFoundError:
        raise NotFound(f"content {digest} of an image is not on this node any more: pull or load it again") from None
    with file:
        size = store.blobs.size(digest)
        yield _header(f"blobs/{digest.replace(':', '/')}", size)
        while data := await asyncio.to_thread(file.read, _CHUNK):
            yield data
        yield _padding(size)


def _entries(parts: Sequence[tuple[Image, Sequence[str]]], wanted: Platform | None) -> Iterator[Descriptor]:
    for image, refs in parts:
        target = image.variant.manifest if wanted else image.target
        for ref in refs or ("",):
            notes = {_NAME: ref, **({} if "@" in ref else {_TAG: ref.rpartition(":")[2]})} if ref else None
            platform = None if target.media_type == OCI_INDEX else image.variant.platform
            yield msgspec.structs.replace(target, annotations=notes, platform=platform)


def _saved(variant: Variant, refs: Sequence[str]) -> dict[str, Any]:
    return {
        "Config": f"blobs/{variant.configuration.digest.replace(':', '/')}",
        "RepoTags": [familiar(ref) for ref in refs if "@" not in ref],
        "Layers": [f"blobs/{blob.digest.replace(':', '/')}" for blob in variant.blobs],
    }


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
