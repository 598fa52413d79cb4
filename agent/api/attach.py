"""Attaching to a container's streams: on the connection itself, or by websocket.

The container's shim serves the connection, see `runtime/attach.py`; here is only how the client asks for it.
"""

import asyncio
import socket
from contextlib import aclosing, suppress
from typing import Any, cast

from aiohttp import WSMsgType, web

from swarmd.agent.api import query
from swarmd.agent.api.hijack import taken, taking_over
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import frame
from swarmd.proto.errors import Invalid
from swarmd.runtime.attach import Replay, Streams
from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.model import ContainerState

_CHUNK = 65536


async def attach(request: web.Request) -> web.StreamResponse:
    """detachKeys is the client's own business: it looks for them before it sends."""
    state = services(request).engine.inspect(request.match_info["id"])
    wanted = _wanted(request)
    give = taking_over(request, framed=not state.config.tty)
    connections: list[socket.socket] = []

    def connection() -> socket.socket:
        connections.append(give())
        return connections[0]

    if query.flag(request, "stream"):
        replay = _replay(request, state, wanted, connections) if query.flag(request, "logs") else None
        await services(request).engine.attach(state.id, connection, wanted, replay)
    elif query.flag(request, "logs"):
        with connection():
            await _replay(request, state, wanted, connections)(0)
    else:
        raise Invalid("nothing is asked for: set stream, logs or both")
    return taken(request)


async def websocket(request: web.Request) -> web.StreamResponse:
    state = services(request).engine.inspect(request.match_info["id"])
    asked = _wanted(request)
    wanted = Streams(stdin=asked.stdin, stdout=asked.stdout, stderr=asked.stderr, raw=True)
    sockets = web.WebSocketResponse()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        replay = _replay(request, state, wanted, [theirs]) if query.flag(request, "logs") else None
        if replay is None and not query.flag(request, "stream"):
            theirs.close()
            raise Invalid("nothing is asked for: set stream, logs or both")
        await sockets.prepare(request)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_to_client(ours, sockets))
            writing = group.create_task(_from_client(sockets, ours, asked.stdin))
            if query.flag(request, "stream"):
                try:
                    await services(request).engine.attach(state.id, lambda: theirs, wanted, replay)
                except RuntimeFault:  # it has ended or been removed since: the client, long answered, sees its end
                    theirs.close()
            elif replay:
                with theirs:
                    await replay(0)
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            writing.cancel()
        await sockets.close()
    return sockets


async def resize(request: web.Request) -> web.Response:
    height, width = size(request)
    await services(request).engine.resize(request.match_info["id"], height, width)
    return web.Response(status=200)


def size(request: web.Request) -> tuple[int, int]:
    """Height and width, in characters."""
    found = query.number(request, "h"), query.number(request, "w")
    if not all(0 <= number < 1 << 16 for number in found):
        raise Invalid(f"a terminal can't be {found[0]} by {found[1]}: h and w go up to 65535")
    return found


def _wanted(request: web.Request) -> Streams:
    stdin, stdout, stderr = (query.flag(request, name) for name in ("stdin", "stdout", "stderr"))
    return Streams(stdin=stdin, stdout=stdout, stderr=stderr)


def _replay(request: web.Request, state: ContainerState, wanted: Streams, connections: list[socket.socket]) -> Replay:
    """Writes the log to the connection that will be there by then."""

    async def replay(until: int) -> None:
        loop = asyncio.get_running_loop()
        entries = services(request).engine.logs(state.id, until=until, stdout=wanted.stdout, stderr=wanted.stderr)
        async with aclosing(cast("Any", entries)):
            async for entry in entries:
                raw = state.config.tty or wanted.raw
                with suppress(ConnectionError):
                    await loop.sock_sendall(connections[0], entry.data if raw else frame(entry.stream, entry.data))

    return replay


async def _to_client(ours: socket.socket, sockets: web.WebSocketResponse) -> None:
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while data := await loop.sock_recv(ours, _CHUNK):
            await sockets.send_bytes(data)


async def _from_client(sockets: web.WebSocketResponse, ours: socket.socket, stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    async for message in sockets:
        if stdin and message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
            data = message.data.encode() if isinstance(message.data, str) else message.data
            with suppress(ConnectionError):
                await loop.sock_sendall(ours, data)
