"""Blobs for others, from any offset on: those that are here, and those that are coming as far as they are."""

import os
from collections.abc import AsyncGenerator
from functools import partial

from swarmd.runtime.errors import NotFound, Unavailable
from swarmd.runtime.images.store import ImageStore, in_thread

PIECE = 256 * 1024  # bytes


def extent(store: ImageStore, digest: str) -> tuple[int, bool]:
    """How many bytes from its beginning are here, and whether that is all of it; Invalid for what is no digest."""
    if store.blobs.has(digest):
        return store.blobs.size(digest), True
    coming = store.arriving.get(digest)
    return (coming.size if coming else 0), False


async def pieces(store: ImageStore, digest: str, offset: int = 0, length: int = 0) -> AsyncGenerator[bytes, None]:
    """The bytes from offset on, to the end if no length is given.  What is coming is waited for, and not checked.

    Raises NotFound for what is not here, Unavailable for what was coming and won't come.
    """
    whole, coming = store.blobs.has(digest), store.arriving.get(digest)
    path = store.blobs.path(digest) if whole else coming.file if coming else None
    if path is None:
        raise NotFound(f"content {digest} is not on this node")
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"content {digest} is not on this node any more") from None
    end = offset + length if length else None
    try:
        while end is None or offset < end:
            if not whole:
                assert coming is not None
                while coming.size <= offset and not coming.ended:
                    await coming.changed()
                if coming.ended:
                    if not coming.whole:
                        raise Unavailable(f"content {digest} was coming to this node, and does not come any more")
                    whole = True
            available = PIECE if whole else coming.size - offset if coming else 0
            wanted = min(PIECE, available, *(() if end is None else (end - offset,)))
            data = await in_thread(partial(os.pread, file, wanted, offset))
            if not data:
                return
            offset += len(data)
            yield data
    finally:
        os.close(file)
