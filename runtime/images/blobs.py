"""Content by its sha256: a blob is in its place whole, and as its name says, or not at all."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import Struct


class Descriptor(Struct, frozen=True):
    """See the OCI image specification, descriptor.md."""

    media_type: str
    digest: str
    size: int

    def to_json(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Descriptor":
        return cls(media_type=value["mediaType"], digest=value["digest"], size=value["size"])


class Blobs:
    def __init__(self, root: Path) -> None:
        self._directory = root / "blobs" / "sha256"
        self._tmp = root / "tmp"
        self._directory.mkdir(parents=True, exist_ok=True)

    def read(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def path(self, digest: str) -> Path:
        return self._directory / hexadecimal(digest)

    def write(self, data: bytes, media_type: str) -> Descriptor:
        digest = digest_of(data)
        if not self.path(digest).exists():
            write_atomically(self.path(digest), data, self._tmp)
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def add(self, file: Path, media_type: str, expected: str = "") -> Descriptor:
        """Take a file, which is moved away; Invalid if it is not what `expected` says."""
        with file.open("rb") as content:
            digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
            size = content.tell()
            if expected and digest != expected:
                raise Invalid(f"a layer of the image archive is {digest}, not {expected}")
            content.seek(0)
            compressed = content.read(2) == b"\x1f\x8b"
            os.fsync(content.fileno())
        file.rename(self.path(digest))
        return Descriptor(media_type=f"{media_type}+gzip" if compressed else media_type, digest=digest, size=size)

    def keep_only(self, digests: Iterable[str]) -> None:
        kept = {hexadecimal(digest) for digest in digests}
        for blob in self._directory.iterdir():
            if blob.name not in kept:
                blob.unlink()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def hexadecimal(digest: str) -> str:
    """The part of a digest that names files; Invalid for anything that could name another."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise Invalid(f"{digest!r} is not a sha256 digest")
    return value


def write_atomically(path: Path, data: bytes, tmp: Path) -> None:
    """Write beside (in tmp, on the same file system), flush, and rename into place."""
    making = tmp / f"{path.name}.{os.urandom(4).hex()}"
    with making.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    making.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
