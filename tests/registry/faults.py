"""A proxy before a registry that does to chosen requests what networks and bad servers do."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self

import aiohttp
from aiohttp import web

_HOP = {"transfer-encoding", "connection", "content-length", "keep-alive"}
PIECE = 64 << 10


@dataclass
class Fault:
    """What happens to the next `times` requests of a method whose path holds `path`."""

    method: str
    path: str
    times: int = 1
    cut_after: int | None = None  # bytes of the answer's body
    end_after: int | None = None  # in good order, as if that were all
    stall_after: int | None = None
    corrupt_at: int | None = None
    cut_request_after: int | None = None
    stall_request_after: int | None = None
    orderly: bool = True  # a cut lets what was written arrive
    lose_answer: bool = False
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop: tuple[str, ...] = ()  # headers to take out
    ignore_range: bool = False
    extra: bytes = b""  # after the body


@dataclass
class Seen:
    method: str
    path: str
    authorization: str
    range: str
    status: int = 0


class Proxy:
    """host: where it listens; seen: every request; faults: what is still to happen."""

    def __init__(self, upstream: str, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._port = port
        self._upstream = upstream
        self._tls = tls
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.host = ""
        self._ending = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.ServerRunner(web.Server(self._handle))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls)
        await site.start()
        self.host = "{}:{}".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *error: object) -> None:
        self._ending.set()
        await self._runner.cleanup()
        await self._session.close()

    def count(self, method: str, path: str) -> int:
        return sum(seen.method == method and re.search(path, seen.path) is not None for seen in self.seen)

    def _fault(self, request: web.BaseRequest) -> Fault:
        for fault in self.faults:
            if fault.times and request.method == fault.method and re.search(fault.path, request.path_qs):
                fault.times -= 1
                return fault
        return Fault("", "")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = request.headers
        seen = Seen(request.method, request.path_qs, headers.get("Authorization", ""), headers.get("Range", ""))
        self.seen.append(seen)
        fault = self._fault(request)
        if fault.status:
            seen.status = fault.status
            return web.Response(status=fault.status, headers=fault.headers, body=fault.body)
        passed = {name: value for name, value in headers.items() if name.lower() not in {"transfer-encoding"}}
        if fault.ignore_range:
            passed.pop("Range", None)
        if fault.stall_request_after is not None:
            await request.content.readexactly(fault.stall_request_after)
            await self._ending.wait()
        body = _body(request, fault.cut_request_after) if request.can_read_body else None
        try:
            answer = await self._session.request(
                request.method, f"http://{self._upstream}{request.path_qs}", headers=passed, data=body,
                allow_redirects=False, skip_auto_headers=("User-Agent", "Accept"),
            )  # fmt: skip
        except (aiohttp.ClientError, OSError):
            self._cut(request, fault)
            raise
        async with answer:
            seen.status = answer.status
            return await self._pass_on(request, answer, fault)

    async def _pass_on(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, fault: Fault
    ) -> web.StreamResponse:
        if fault.lose_answer:
            await answer.read()
            self._cut(request, fault)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
        for name in fault.drop:
            kept.pop(name, None)
        response = web.StreamResponse(status=answer.status, headers={**kept, **fault.headers})
        if "Content-Length" in answer.headers and "Content-Length" not in fault.drop and fault.end_after is None:
            response.content_length = int(answer.headers["Content-Length"]) + len(fault.extra)
        await response.prepare(request)
        at = 0
        async for piece in answer.content.iter_chunked(PIECE):
            for limit in (fault.cut_after, fault.stall_after):
                if limit is not None and at + len(piece) > limit:
                    await response.write(piece[: limit - at])
                    if limit == fault.stall_after:
                        await self._ending.wait()
                    self._cut(request, fault)
            if fault.end_after is not None and at + len(piece) > fault.end_after:
                await response.write(piece[: fault.end_after - at])
                break
            if fault.corrupt_at is not None and at <= fault.corrupt_at < at + len(piece):
                changed = bytearray(piece)
                changed[fault.corrupt_at - at] ^= 1
                piece = bytes(changed)
            at += len(piece)
            await response.write(piece)
        if fault.extra:
            await response.write(fault.extra)
        await response.write_eof()
        return response

    def _cut(self, request: web.BaseRequest, fault: Fault) -> None:
        if request.transport is not None and fault.orderly:
            request.transport.close()
        elif request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("cut")


async def _body(request: web.BaseRequest, cut_after: int | None) -> AsyncIterator[bytes]:
    at = 0
    async for piece in request.content.iter_chunked(PIECE):
        if cut_after is not None and at + len(piece) > cut_after:
            yield piece[: cut_after - at]
            raise ConnectionResetError("cut")
        at += len(piece)
        yield piece
