"""Sends a blob: an upload that was cut off goes on from where the registry says it is.

The whole goes in one PATCH, as every registry takes it. Where one loses what a cut request brought, or takes no
request as large, what is left goes in chunks.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace

import aiohttp
from yarl import URL

from swarmd.runtime.errors import (
    Corrupt,
    Denied,
    Invalid,
    NotFound,
    RuntimeFault,
    Unauthorized,
    Unavailable,
)
from swarmd.runtime.images.manifests import Descriptor
from swarmd.runtime.registry.access import Access
from swarmd.runtime.registry.client import Renewed, Request
from swarmd.runtime.registry.failures import Broken
from swarmd.runtime.registry.retries import Waits

SMALL = 1 << 20  # bytes that go in one request, held in memory
_CHUNK = 16 << 20  # bytes
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_STREAM = "application/octet-stream"


OpenAt = Callable[[int], AsyncIterator[bytes]]


async def has(access: Access, descriptor: Descriptor) -> bool:
    place, matter = f"blobs/{descriptor.digest}", f"layer {descriptor.digest} of {access.familiar}"
    request = access.request(access.origin, "HEAD", place, matter, good=frozenset({200, 404}))
    async with await access.ask(request) as response:
        return response.status == 200


async def mount(access: Access, digest: str, from_repository: str) -> bool:
    place, matter = f"blobs/uploads/?mount={digest}&from={from_repository}", f"layer {digest} of {access.familiar}"
    request = access.request(access.origin, "POST", place, matter, good=frozenset({201, 202}))
    request = replace(request, scopes=request.scopes | {f"repository:{from_repository}:pull"})
    try:
        async with await access.ask(request) as response:
            if response.status == 201:
                return True
            location = response.headers.get("Location", "")
    except (Denied, Unauthorized, NotFound):
        return False  # no right to read there is no reason not to be sent it
    with suppress(RuntimeFault, Broken):  # it had begun an upload instead
        session = access.client.transport.joined(response.url, location)
        gone = access.request(access.origin, "DELETE", "blobs/", matter, good=frozenset({200, 202, 204}))
        (await access.ask(replace(gone, place=session))).release()
    return False


async def push(access: Access, descriptor: Descriptor, open_at: OpenAt, progress: Callable[[int], None]) -> None:
    """Send it; raises a RuntimeFault when the registry refuses, or patience ends."""
    await _Upload(access, descriptor, open_at, progress).run()


class _Upload:
    def __init__(
        self, access: Access, descriptor: Descriptor, open_at: OpenAt, progress: Callable[[int], None]
    ) -> None:
        self._access = access
        self._descriptor = descriptor
        self._open_at = open_at
        self._progress = progress
        self._waits = Waits(access.client.transport.settings.patience)
        self._session: URL | None = None
        self._at = self._furthest = 0  # bytes that the registry has, and had at most
        self._resumed = False
        self._chunk = descriptor.size
        self._unreadable: Exception | None = None  # what open_at's stream raised: no fault of the registry's

    async def run(self) -> None:
        while True:
            try:
                if self._session is None:
                    await self._begin()
                await self._send()
                await self._finish()
            except Renewed as renewed:
                await self._failed(Unavailable(str(renewed)), renewed)
            except TimeoutError as error:
                text = f"registry {self._host} took nothing more of {self._matter}: try again later"
                await self._failed(Unavailable(text), error)
            except Broken as broken:
                if self._unreadable is not None:
                    raise self._unreadable from None
                if not broken.again or not broken.met:
                    raise broken.fault from broken
                await self._failed(broken.fault, broken)
            except Corrupt:
                raise
            except Unavailable as fault:
                if (fault.retry_after or 0.0) > self._access.client.transport.settings.patience.longest_retry_after:
                    raise
                await self._failed(fault, fault)
            except NotFound as fault:
                if self._session is None:
                    raise
                self._session = None  # the registry has forgotten it
                await self._failed(fault, fault)
            else:
                self._progress(self._descriptor.size)
                return

    async def _failed(self, fault: RuntimeFault, cause: Exception) -> None:
        """Wait, and learn where the upload stands; raises the fault when there have been too many."""
        if self._waits.exhausted():
            raise fault from cause
        if not isinstance(cause, Renewed):
            await self._waits.pause((fault.retry_after if isinstance(fault, Unavailable) else 0.0) or 0.0)
        if self._session is None:
            return
        before = self._at
        try:
            await self._ask_state(self._session)
        except (NotFound, Invalid, Unavailable, Broken):
            self._session = None
            self._at = 0
        self._resumed = True
        self._advanced()
        if self._at <= before:
            self._chunk = min(self._chunk, _CHUNK)

    def _advanced(self) -> None:
        """Count failures anew when the registry has more than ever: to begin again is no progress."""
        if self._at > self._furthest:
            self._furthest = self._at
            self._waits.progressed()

    async def _begin(self) -> None:
        self._at, self._resumed = 0, False
        async with await self._asked("POST", "blobs/uploads/", frozenset({202})) as response:
            self._session = self._location(response)
            least = response.headers.get("OCI-Chunk-Min-Length", "")
            if least.isascii() and least.isdigit() and self._chunk < self._descriptor.size:
                self._chunk = max(self._chunk, int(least[:12]))

    async def _ask_state(self, session: URL) -> None:
        async with await self._asked("GET", session, frozenset({204, 200, 202})) as response:
            found = _RANGE.fullmatch(response.headers.get("Range", ""))
            # 0-0 is said of one byte and of none: start again rather than guess.
            if found is None or not 0 < int(found[1]) < self._descriptor.size:
                raise NotFound("the upload can't go on")
            self._at = int(found[1]) + 1
            self._session = self._location(response, session)

    async def _send(self) -> None:
        size = self._descriptor.size
        if size <= SMALL:
            return
        async with aclosing(_Source(self._open_at(self._at))) as source:
            while self._at < size:
                length = min(self._chunk, size - self._at)
                headers = {"Content-Type": _STREAM, "Content-Length": str(length)}
                if length < size:
                    headers["Content-Range"] = f"{self._at}-{self._at + length - 1}"
                assert self._session is not None
                request = self._request("PATCH", self._session, frozenset({202, 204, 413, 416}))
                async with asyncio.timeout(None) as silence:
                    request = replace(request, headers=headers, body=self._counted(source, length, silence))
                    response = await self._access.client.ask(request)
                async with response:
                    if response.status == 413 and self._chunk > _CHUNK:
                        self._chunk = _CHUNK
                        raise Broken(Invalid(f"{self._matter} is larger than registry {self._host} takes at once"))
                    if response.status == 413:
                        text = f"{self._matter} is larger than registry {self._host} or a proxy before it takes at once"
                        raise Invalid(f"{text}: its administrator can allow more")
                    if response.status == 416:
                        raise Broken(Invalid(f"registry {self._host} lost its place in the upload of {self._matter}"))
                    if source.left:
                        raise Broken(Unavailable(f"registry {self._host} answered before it had all of {self._matter}"))
                    self._session = self._location(response, self._session)
                self._at += length
                self._advanced()

    async def _counted(self, source: "_Source", length: int, silence: asyncio.Timeout) -> AsyncGenerator[bytes, None]:
        """What is sent; a registry that takes nothing for too long ends it, a slow source here does not."""
        patience = self._access.client.transport.settings.patience
        at = self._at
        pieces = source.take(length)
        while True:
            try:
                piece = await anext(pieces, b"")
            except Exception as error:
                self._unreadable = error
                raise
            if not piece:
                return
            silence.reschedule(asyncio.get_running_loop().time() + patience.silence)
            yield piece
            silence.reschedule(None)
            at += len(piece)
            self._progress(at)

    async def _finish(self) -> None:
        assert self._session is not None
        body = b""
        if self._descriptor.size <= SMALL:
            async with aclosing(_Source(self._open_at(0))) as source:
                body = b"".join([piece async for piece in source.take(self._descriptor.size)])
        session = self._session.extend_query({"digest": self._descriptor.digest})
        request = self._request("PUT", session, frozenset({201, 204}))
        request = replace(request, headers={"Content-Type": _STREAM}, body=body)
        try:
            (await self._patiently(request)).release()
        except (Corrupt, Invalid) as fault:
            if not self._resumed:
                raise
            self._session = None  # the upload may have gone on at a wrong place
            raise Broken(fault) from fault
        except (NotFound, Broken):
            # A first try may have arrived, and only its answer was lost.
            if await has(self._access, self._descriptor):
                return
            raise

    async def _asked(self, method: str, place: str | URL, good: frozenset[int]) -> aiohttp.ClientResponse:
        return await self._patiently(self._request(method, place, good))

    async def _patiently(self, request: Request) -> aiohttp.ClientResponse:
        """One without a stream, which the client tries as often as it may: what fails then is final."""
        try:
            return await self._access.client.ask(request)
        except Broken as broken:
            raise Broken(broken.fault, again=False, met=broken.met) from broken
        except Corrupt:
            raise
        except Unavailable as fault:
            raise Broken(fault, again=False) from fault

    def _request(self, method: str, place: str | URL, good: frozenset[int]) -> Request:
        request = self._access.request(self._access.origin, method, "blobs/uploads/", self._matter, good=good)
        return replace(request, place=place) if isinstance(place, URL) else request

    def _location(self, response: aiohttp.ClientResponse, otherwise: URL | None = None) -> URL:
        location = response.headers.get("Location", "")
        if not location and otherwise is not None:
            return otherwise
        if not location:
            raise Invalid(f"registry {self._host} began an upload of {self._matter} without saying where to")
        return self._access.client.transport.joined(response.url, location)

    @property
    def _matter(self) -> str:
        return f"layer {self._descriptor.digest} of {self._access.familiar}"

    @property
    def _host(self) -> str:
        return self._access.origin.host


class _Source:
    """A stream of pieces, of which any number of bytes can be taken at a time.

    Each piece is read by a task of its own: what sends it is aiohttp's, which may still wait here when the request is
    over, and then the stream could not be closed.
    """

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self._reading: asyncio.Future[bytes] | None = None
        self.left = 0  # bytes of what is being taken

    async def take(self, length: int) -> AsyncGenerator[bytes, None]:
        self.left = length
        while self.left:
            piece = self._rest or await self._read()
            if not piece:
                raise Corrupt(f"the layer has {self.left} bytes less here than its descriptor says")
            now, self._rest = piece[: self.left], piece[self.left :]
            self.left -= len(now)
            yield now

    async def aclose(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()

    async def _read(self) -> bytes:
        self._reading = asyncio.ensure_future(self._next())
        return await self._reading

    async def _next(self) -> bytes:
        return await anext(self._pieces, b"")
