"""Content is served while it is still coming, and what does not come whole is told to those who read it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from swarmd.runtime.errors import Invalid, NotFound, Unavailable
from swarmd.runtime.images.arrivals import layer, silent
from swarmd.runtime.images.blobs import digest_of
from swarmd.runtime.images.manifests import Descriptor
from swarmd.runtime.images.serving import extent, pieces
from swarmd.runtime.images.store import ImageStore
from tests.runtime.images.tars import entry, tar

CONTENT = tar(entry("file", bytes(range(256)) * 4000))
DIGEST = digest_of(CONTENT)
LAYER = Descriptor(digest=DIGEST, size=len(CONTENT))
HALF = len(CONTENT) // 2


class Coming:
    """A layer on its way into a store: half of it, and the rest when it is let go on."""

    def __init__(self, store: ImageStore, rest: bytes = CONTENT[HALF:]) -> None:
        self.go_on = asyncio.Event()
        self.half = asyncio.Event()
        self._store = store
        self._rest = rest

    async def bring(self) -> None:
        with self._store.lease() as lease:
            await layer(self._store, lease, self._chunks, LAYER, DIGEST, "web", silent)

    async def _chunks(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        yield CONTENT[:HALF]
        self.half.set()
        await self.go_on.wait()
        yield self._rest


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[ImageStore, None]:
    store = ImageStore(tmp_path)
    yield store
    await store.close()


async def read(store: ImageStore, offset: int = 0, length: int = 0) -> bytes:
    return b"".join([piece async for piece in pieces(store, DIGEST, offset, length)])


async def test_what_is_coming_is_served_to_several_as_it_comes(store: ImageStore) -> None:
    coming = Coming(store)
    bringing = asyncio.ensure_future(coming.bring())
    await coming.half.wait()
    assert extent(store, DIGEST) == (HALF, False)
    early = pieces(store, DIGEST)
    first = await anext(early)
    assert CONTENT.startswith(first)
    assert await read(store, 5, 100) == CONTENT[5:105]
    late = asyncio.ensure_future(read(store, HALF - 10))
    coming.go_on.set()
    assert first + b"".join([piece async for piece in early]) == CONTENT
    assert await late == CONTENT[HALF - 10 :]
    await bringing


async def test_what_is_here_is_served_from_any_offset(store: ImageStore) -> None:
    with store.lease() as lease:
        coming = Coming(store)
        coming.go_on.set()
        await layer(store, lease, coming._chunks, LAYER, DIGEST, "web", silent)
        assert extent(store, DIGEST) == (len(CONTENT), True)
        assert await read(store) == CONTENT
        assert await read(store, HALF) == CONTENT[HALF:]
        assert await read(store, HALF, 7) == CONTENT[HALF : HALF + 7]
        assert await read(store, len(CONTENT)) == b""


async def test_readers_of_what_turns_out_to_be_damaged_are_told(store: ImageStore) -> None:
    coming = Coming(store, bytes(len(CONTENT) - HALF - 1))
    bringing = asyncio.ensure_future(coming.bring())
    await coming.half.wait()
    reading = asyncio.ensure_future(read(store))
    coming.go_on.set()
    with pytest.raises(Invalid, match="damaged"):
        await bringing
    with pytest.raises(Unavailable, match="does not come any more"):
        await reading
    assert extent(store, DIGEST) == (0, False)


async def test_what_is_not_here_is_said(store: ImageStore) -> None:
    with pytest.raises(NotFound, match="is not on this node"):
        await read(store)
