"""Small images for registries, and the other end of their streams."""

import hashlib
import json
import random
from collections.abc import AsyncIterator, Callable

from swarmd.runtime.images.manifests import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import Repository


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def described(data: bytes, media_type: str = OCI_LAYER, algorithm: str = "sha256") -> Descriptor:
    digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    return Descriptor(media_type=media_type, digest=digest, size=len(data))


def opener(data: bytes, piece: int = 100_000) -> Callable[[int], AsyncIterator[bytes]]:
    async def open_at(offset: int) -> AsyncIterator[bytes]:
        for at in range(offset, len(data), piece):
            yield data[at : at + piece]

    return open_at


def named(host: str, path: str, tag: str = "latest") -> Reference:
    return Reference.parse(f"{host}/{path}:{tag}")


async def push_image(repository: Repository, tag: str, layer: bytes = b"layer") -> tuple[bytes, Descriptor]:
    """A manifest with one layer, under a tag; the manifest's bytes and descriptor."""
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    parts = [described(config, OCI_CONFIG), described(layer)]
    for part, data in zip(parts, (config, layer), strict=True):
        if not await repository.has_blob(part):
            await repository.push_blob(part, opener(data))
    listed = [{"mediaType": part.media_type, "digest": part.digest, "size": part.size} for part in parts]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": listed[0], "layers": listed[1:]}
    data = json.dumps(manifest).encode()
    await repository.put_manifest(tag, data, OCI_MANIFEST)
    return data, described(data, OCI_MANIFEST)


async def collected(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])
