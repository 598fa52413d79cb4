"""The daemon's side of attaching: hands a client's connection over to the shim, which serves it from then on.

A client may come before the start, as `docker run` does: it waits here, and goes along with the request to start, so it
is sent the program's first byte.  `stages/streams.py` has the other side.
"""

import asyncio
import contextlib
import json
import os
import select
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from swarmd.runtime.errors import Conflict, NotFound
from swarmd.runtime.model import Struct
from swarmd.runtime.spawner_client import readable
from swarmd.runtime.stages.spawner import MOST_CLIENTS


class Streams(Struct, frozen=True, omit_defaults=False):
    """What a client wants of a program; raw: output without frames, as with a terminal."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    raw: bool = False

    def as_request(self) -> dict[str, Any]:
        request: dict[str, Any] = msgspec.to_builtins(self)
        return request


# Writes to the client what was logged until a time in ns, 0 for all.
Replay = Callable[[int], Awaitable[None]]


class Waiting:
    """The clients of a container that does not run yet; one that goes away is forgotten."""

    def __init__(self) -> None:
        self._clients: dict[socket.socket, tuple[Streams, select.epoll]] = {}
        self._shut = False

    def add(self, connection: socket.socket, streams: Streams) -> None:
        if self._shut:
            raise NotFound("the container has been removed: nothing of it can be waited for")
        if len(self._clients) >= MOST_CLIENTS:
            raise Conflict(f"{MOST_CLIENTS} clients already wait for this container's start: start it first")
        # An epoll asked for nothing tells of a connection that is closed, and not of one with input or half closed.
        gone = select.epoll()
        gone.register(connection, 0)
        self._clients[connection] = streams, gone
        asyncio.get_running_loop().add_reader(gone.fileno(), self._drop, connection)

    def take(self) -> list[tuple[socket.socket, Streams]]:
        """Return them all; they are the caller's to close."""
        taken = [(connection, streams) for connection, (streams, _) in self._clients.items()]
        for connection, _ in taken:
            self._forget(connection)
        return taken

    def close(self) -> None:
        for connection, _ in self.take():
            connection.close()

    def shut(self) -> None:
        """There will be no start any more."""
        self._shut = True
        self.close()

    def _drop(self, connection: socket.socket) -> None:
        self._forget(connection)
        connection.close()

    def _forget(self, connection: socket.socket) -> None:
        _, gone = self._clients.pop(connection)
        asyncio.get_running_loop().remove_reader(gone.fileno())
        gone.close()


async def attach(directory: Path, connection: socket.socket, streams: Streams, replay: Replay | None = None) -> None:
    """Hand a connection over to the shim of a running container; the caller's copy is closed.

    Raises Conflict when the container has just ended.
    """
    with connection:
        request = {"attach": streams.as_request(), "held": replay is not None}
        with contextlib.closing(_connected(directory)) as channel:
            answer = await _ask(channel, request, [connection.fileno()])
            if replay:
                await replay(answer["at"])


async def resize(directory: Path, height: int, width: int) -> None:
    with contextlib.closing(_connected(directory)) as channel:
        await _ask(channel, {"resize": [height, width]})


def _connected(directory: Path) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        channel.connect(f"/proc/self/fd/{place}/attach.sock")  # the whole path may be longer than a socket's name
    except OSError as error:
        channel.close()
        raise Conflict(f"container {directory.name[:12]} has just ended: {error.strerror}") from None
    finally:
        os.close(place)
    return channel


async def _ask(channel: socket.socket, request: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
    try:
        socket.send_fds(channel, [json.dumps(request).encode()], fds)
        await readable(channel.fileno())
        data = channel.recv(4096)
    except OSError:
        data = b""
    if not data:
        raise Conflict("the container has just ended")
    answer: dict[str, Any] = json.loads(data)
    return answer
