"""Fetches a blob: goes on where a broken connection left off, and at the next host when one fails for good."""

import hashlib
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import aiohttp

from swarmd.runtime.errors import Corrupt, RuntimeFault, Unavailable
from swarmd.runtime.images.manifests import Descriptor
from swarmd.runtime.registry.access import Access
from swarmd.runtime.registry.failures import Broken
from swarmd.runtime.registry.retries import Waits
from swarmd.runtime.registry.settings import Endpoint

PIECE = 256 << 10  # bytes; smaller ones cost more to hand on than to join
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)")


async def download(access: Access, descriptor: Descriptor, offset: int, verify: bool) -> AsyncGenerator[bytes, None]:
    """Bytes from offset to the end, never more than the descriptor's size.

    verify hashes what passes, and raises Corrupt at the end if all of it is not what the digest says; one who hashes
    anyway turns it off, as one who starts in the middle must. Tries without 256 KiB of progress are bounded.
    """
    sources = access.client.well(access.endpoints)
    # A mirror is always checked: one that is wrong must not be asked again.
    checked = not offset and (verify or len(sources) > 1)
    hashed = hashlib.new(descriptor.digest.partition(":")[0]) if checked else None
    waits = Waits(access.client.transport.settings.patience)
    at = counted = offset
    while at < descriptor.size:
        source = sources[0]
        try:
            async with aclosing(_pieces(access, source, descriptor, at)) as pieces:
                async for piece in pieces:
                    if hashed is not None:
                        hashed.update(piece)
                    at += len(piece)
                    yield piece
        except Broken as broken:
            if at - counted >= PIECE:
                waits.progressed()
                counted = at
            if not broken.again or not broken.met or waits.exhausted():
                if len(sources) == 1:
                    raise broken.fault from broken
                _next(access, sources)
                waits.progressed()
            else:
                await waits.pause()
        except RuntimeFault:
            if len(sources) == 1:
                raise
            _next(access, sources)
    if hashed is not None and (actual := f"{hashed.name}:{hashed.hexdigest()}") != descriptor.digest:
        access.client.shun(sources[0])
        text = f"layer {descriptor.digest} of {access.familiar} came from registry {sources[0].host} as {actual}"
        raise Corrupt(f"{text}: it was changed on its way, or the registry is broken")


def _next(access: Access, sources: list[Endpoint]) -> None:
    access.client.shun(sources.pop(0))


async def _pieces(access: Access, source: Endpoint, descriptor: Descriptor, at: int) -> AsyncGenerator[bytes, None]:
    """What one connection brings; raises Broken when it ends early, after all that it brought."""
    matter = f"layer {descriptor.digest} of {access.familiar}"
    request = access.request(
        source,
        "GET",
        f"blobs/{descriptor.digest}",
        matter,
        headers={"Range": f"bytes={at}-"} if at else {},
        good=frozenset({200, 206}),
    )
    response = await access.client.ask(request)
    broken: Broken | None = None
    parts: list[bytes] = []
    held = 0
    async with response:
        skip, left = _extent(response, descriptor, at, source)
        try:
            while part := await response.content.readany():
                if skip:
                    part, skip = part[skip:], max(0, skip - len(part))
                left -= len(part)
                if left < 0:
                    raise Corrupt(
                        f"{matter} has more bytes at registry {source.host} than the {descriptor.size} it should"
                    )
                parts.append(part)
                held += len(part)
                if held >= PIECE:
                    yield b"".join(parts)
                    parts, held = [], 0
        except (aiohttp.ClientError, OSError) as error:
            broken = access.client.transport.explained(error, response.url)
    if parts:
        yield b"".join(parts)
    if broken is None and left:
        text = f"registry {source.host} sent only {descriptor.size - left} of the {descriptor.size} bytes of {matter}"
        broken = Broken(Unavailable(f"{text}: try again later"))
    if broken is not None:
        raise broken


def _extent(response: aiohttp.ClientResponse, descriptor: Descriptor, at: int, source: Endpoint) -> tuple[int, int]:
    """How many bytes to pass over and how many to expect after them; Corrupt if the answer is about other ones."""
    length = response.content_length
    if response.status == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != at:
            text = f"registry {source.host} sent another part of {descriptor.digest} than bytes {at} to the end"
            raise Corrupt(f"{text}: ask its administrator")
        return 0, descriptor.size - at
    # A registry without ranges starts over.
    if length is not None and length != descriptor.size:
        text = f"layer {descriptor.digest} has {length} bytes at registry {source.host}, not {descriptor.size}"
        raise Corrupt(f"{text} as its manifest says")
    return at, descriptor.size - at
