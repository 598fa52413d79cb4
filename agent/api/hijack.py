"""Takes a connection over from HTTP: after the answer's headers it carries bytes both ways, as with Docker.

The connection's own socket is what the caller gets; the daemon's HTTP side lets go of it.  Over TLS the bytes are to be
decoded here, so the caller gets one end of a pair of sockets, and a relay does the rest.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web

from swarmd.agent.api.streams import MULTIPLEXED, RAW

_CHUNK = 1 << 18


def taking_over(request: web.Request, *, framed: bool) -> Callable[[], socket.socket]:
    """Return what, when called, answers and gives the connection; until then an error is an ordinary answer."""
    return lambda: _take_over(request, MULTIPLEXED if framed else RAW)


def taken(request: web.Request) -> web.Response:
    """What a handler returns whose connection has been taken over: it is not sent."""
    del request
    return web.Response(status=101)


def _take_over(request: web.Request, content_type: str) -> socket.socket:
    # uvloop's is none by type, only by its methods.
    transport = cast("Any", request.transport)
    if transport is None:
        raise ConnectionResetError("the client has left")
    headers = _headers(request, content_type)
    if transport.get_extra_info("sslcontext"):
        transport.write(headers)
        return _Relay(transport).inner
    transport.pause_reading()
    connection = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    connection.setblocking(False)
    connection.send(headers)  # the first bytes of an answer: there is room for them
    transport.abort()  # closes its own descriptor only
    return connection


def _headers(request: web.Request, content_type: str) -> bytes:
    if "upgrade" in request.headers.get("Connection", "").lower():
        lines = ["HTTP/1.1 101 UPGRADED", f"Content-Type: {content_type}", "Connection: Upgrade", "Upgrade: tcp"]
    else:
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {RAW}", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode()


class _Relay(asyncio.Protocol):
    """Between a transport and a socket of our own, each side slowed down by the other.

    TLS as asyncio has it can't be half closed: a client that ends its side ends both.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._before = transport, transport.get_protocol()
        self.inner, self._own = socket.socketpair()
        self._own.setblocking(False)
        self._room = asyncio.Event()
        self._room.set()
        self._received: asyncio.Queue[bytes] = asyncio.Queue()
        transport.set_protocol(self)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self._transport.pause_reading()
        self._received.put_nowait(data)

    def eof_received(self) -> bool:
        self._received.put_nowait(b"")
        return True

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, problem: Exception | None) -> None:
        self._task.cancel()
        self._own.close()
        self._before.connection_lost(problem)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        inward = loop.create_task(self._inward())
        try:
            while data := await loop.sock_recv(self._own, _CHUNK):
                self._transport.write(data)
                await self._room.wait()
        except OSError:
            pass  # the other side has gone: the client is to see that
        finally:
            inward.cancel()
            self._transport.close()

    async def _inward(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await self._received.get():
                await loop.sock_sendall(self._own, data)
                self._transport.resume_reading()
            self._own.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it takes no input
