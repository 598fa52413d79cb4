"""Blobs that are being received, for those who want them already: each is a file that grows.

**Invariant:** a file that is here is not checked yet; when it is, it becomes a blob of the store, or it is gone.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Coming:
    """Sizes in bytes; file is None until the first bytes are about to come."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self.size = 0
        self.whole = False  # it is checked, and a blob now
        self.ended = False
        self._changed = asyncio.Event()

    def begin(self, file: Path) -> None:
        self.file = file

    def more(self, size: int) -> None:
        self.size += size
        self._tell()

    def end(self) -> None:
        self.ended = True
        self._tell()

    async def changed(self) -> None:
        """Return when it has grown, or ended."""
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Arriving:
    """By digest.  The store's locks see to it that each comes once at a time."""

    def __init__(self) -> None:
        self._coming: dict[str, Coming] = {}

    def get(self, digest: str) -> Coming | None:
        return self._coming.get(digest)

    @contextmanager
    def receiving(self, digest: str) -> Iterator[Coming]:
        coming = self._coming[digest] = Coming()
        try:
            yield coming
        finally:
            del self._coming[digest]
            coming.end()
