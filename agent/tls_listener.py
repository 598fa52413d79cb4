"""Ends TLS before the Engine API: behind it a client's connection is a plain socket, as from a unix socket.

TLS as asyncio has it can't be half closed, but attach and exec need that: a client that has sent all its input still
reads output.  Here each direction ends by itself: a client's close_notify becomes the end of what is read, and the end
of what is written becomes a close_notify.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

log = logging.getLogger(__name__)

_CHUNK = 1 << 17
_HANDSHAKE = 10.0  # s
# After all is sent: how long to read on, and drop it.  A connection closed with input unread is reset, and the client
# loses what it has not read yet.
_LINGER = 5.0
_PAUSE = 1.0  # s, when no connection can be accepted: descriptors are short


class TlsListener:
    """protocol: makes what serves one connection; the listening socket is the caller's."""

    def __init__(
        self, listener: socket.socket, context: ssl.SSLContext, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        self._listener, self._context, self._protocol = listener, context, protocol

    async def run(self) -> None:
        """Serve until cancelled; connections end with it."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        async with asyncio.TaskGroup() as clients:
            while True:
                try:
                    client, _ = await loop.sock_accept(self._listener)
                except OSError as problem:
                    log.warning("no client can be accepted: %s", problem.strerror)
                    await asyncio.sleep(_PAUSE)
                    continue
                clients.create_task(self._serve_alone(client))

    async def _serve_alone(self, client: socket.socket) -> None:
        """One client's trouble is not the others'."""
        try:
            await self._serve(client)
        except Exception:
            log.exception("a connection over TLS has failed")

    async def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, TimeoutError):  # it has gone, or does not speak our TLS
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = Session(client, self._context)
            async with asyncio.timeout(_HANDSHAKE):
                await session.begin()
            ours, theirs = socket.socketpair()
            with ours:
                ours.setblocking(False)
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, theirs)
                async with asyncio.TaskGroup() as both:
                    inward = both.create_task(_inward(session, ours))
                    await _outward(session, ours)
                    await asyncio.wait({inward}, timeout=_LINGER)
                    inward.cancel()


async def _inward(session: "Session", ours: socket.socket) -> None:
    loop, taken = asyncio.get_running_loop(), True
    try:
        while data := await session.read():
            try:
                if taken:
                    await loop.sock_sendall(ours, data)
            except OSError:
                taken = False
        ours.shutdown(socket.SHUT_WR)
    except OSError:  # the client has gone without a word, or the other side has
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)


async def _outward(session: "Session", ours: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(ours, _CHUNK):
            await session.write(data)
        await session.end()
    except OSError:
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)


class Session:
    """One client's TLS. Errors are OSError, ssl's own among them."""

    def __init__(self, client: socket.socket, context: ssl.SSLContext) -> None:
        self._client = client
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)
        self._sending = asyncio.Lock()  # what was encrypted first is sent first

    async def begin(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive()
            except ssl.SSLError:
                await self._flush()  # it says why
                raise
            else:
                return await self._flush()

    async def read(self) -> bytes:
        """Return b"" when the client has ended its side."""
        while True:
            try:
                return self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        await self._flush()

    async def end(self) -> None:
        """Say that no more is written; the client's side goes on."""
        with contextlib.suppress(ssl.SSLError):  # it wants the client's answer, which may come whenever it likes
            self._tls.unwrap()
        await self._flush()
        self._client.shutdown(socket.SHUT_WR)

    async def _receive(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._client, _CHUNK)
        if data:
            self._received.write(data)
        else:
            self._received.write_eof()

    async def _flush(self) -> None:
        async with self._sending:
            if data := self._to_send.read():
                await asyncio.get_running_loop().sock_sendall(self._client, data)
