"""Unpacks layers in threads."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from swarmd.runtime.images import archive
from swarmd.runtime.model import Struct

_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))


class Unpacked(Struct, frozen=True):
    """digest and size are of the blob as it came, diff_id of the tar in it; files_size: bytes of all files."""

    digest: str
    size: int
    diff_id: str
    files_size: int
    compression: str = ""


def compression_of(file: Path) -> str:
    with file.open("rb") as content:
        start = content.read(6)
    return next((name for magic, name in _MAGIC if start.startswith(magic)), "")


class Workers:
    async def unpack(self, blob: Path, into: Path, growth: AsyncIterator[int] | None) -> Unpacked:
        if growth:
            async for _ in growth:
                pass
        return await asyncio.to_thread(_unpacked, blob, into)

    async def measure(self, blob: Path) -> Unpacked:
        return await asyncio.to_thread(_unpacked, blob, None)

    async def close(self) -> None:
        pass


def _unpacked(blob: Path, into: Path | None) -> Unpacked:
    diff_id, _ = archive.unpack(blob, into) if into else archive.digest(blob)
    with blob.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    files = (path.lstat() for path in into.rglob("*")) if into else ()
    return Unpacked(
        digest=digest,
        size=blob.stat().st_size,
        diff_id=diff_id,
        files_size=sum(found.st_size for found in files if found.st_mode & 0o170000 == 0o100000),
        compression=compression_of(blob),
    )
