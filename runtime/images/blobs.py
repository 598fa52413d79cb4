"""Content by its digest: a blob is in its place whole, and as its name says, or not at all."""

import contextlib
import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from swarmd.runtime.errors import Invalid, NotFound
from swarmd.runtime.images.manifests import Descriptor, check_digest


class Blobs:
    """Below root: blobs/<algorithm>/<hexadecimal digits>, and tmp/, which is emptied when the store is opened."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "blobs"
        self._tmp = root / "tmp"
        for algorithm in ("sha256", "sha512"):
            (self._directory / algorithm).mkdir(parents=True, exist_ok=True)
        self._tmp.mkdir(exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a blob is or would be; Invalid for what is no digest."""
        try:
            return self._directory / digest.partition(":")[0] / check_digest(digest)
        except ValueError as error:
            raise Invalid(str(error)) from None

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def holds(self, wanted: Descriptor) -> bool:
        """Whether a blob is here with as many bytes as it should have: what is damaged is to come again."""
        try:
            return self.path(wanted.digest).stat().st_size == wanted.size
        except FileNotFoundError:
            return False

    def size(self, digest: str) -> int:
        """In bytes; 0 for one that is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, digest: str) -> bytes:
        """A document. Raises NotFound, and Invalid for one that is damaged."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"content {digest} is not on this node") from None
        if not matches(data, digest):
            raise Invalid(f"content {digest} on this node is damaged")
        return data

    def write(self, data: bytes, media_type: str) -> Descriptor:
        """A document, whole in its place; not flushed."""
        described = Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))
        with contextlib.suppress(NotFound, Invalid):
            self.read(described.digest)
            return described
        making = self.temporary()
        try:
            making.write_bytes(data)
            making.rename(self.path(described.digest))
        finally:
            making.unlink(missing_ok=True)
        return described

    def adopt(self, file: Path, digest: str) -> None:
        """Take a file that is known to have this digest; it is moved away, or removed when the blob is here."""
        if self.has(digest) and self.size(digest) == file.stat().st_size:
            file.unlink()
        else:
            file.rename(self.path(digest))

    def temporary(self) -> Path:
        """A name for something in the making, on the same file system."""
        return self._tmp / uuid.uuid4().hex

    def digests(self) -> Iterator[str]:
        for algorithm in self._directory.iterdir():
            for blob in algorithm.iterdir():
                yield f"{algorithm.name}:{blob.name}"

    def doom(self, digest: str) -> Path | None:
        """Take a blob out of its place; the caller removes what is returned."""
        doomed = self.temporary()
        with contextlib.suppress(FileNotFoundError):
            self.path(digest).rename(doomed)
            return doomed
        return None


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def matches(data: bytes, digest: str) -> bool:
    return digest_of(data, digest.partition(":")[0]) == digest
