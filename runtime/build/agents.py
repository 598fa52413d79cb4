"""RUN --mount=type=ssh: a socket of the step's own, which leads to the agent of whoever builds.

An agent's socket belongs to its user, who may not even be known in the container: so it is not mounted itself.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from swarmd.runtime.errors import RuntimeFault

_PIECE = 1 << 16


@asynccontextmanager
async def forwarded(agent: Path, place: Path, name: str, mode: int, uid: int, gid: int) -> AsyncIterator[Path]:
    """Make place/name, on which connections to an agent are taken until this is left; RuntimeFault if that is gone."""
    if not agent.is_socket():
        raise RuntimeFault(f"the SSH agent at {agent} is gone: start one, and build again")
    path, talks = place / name, set[asyncio.Task[None]]()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await _talk(agent, reader, writer)
        finally:
            talks.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(served, sock=_bound(path))
    try:
        os.chown(path, uid, gid)
        path.chmod(mode)
        yield path
    finally:
        server.close()
        path.unlink(missing_ok=True)
        for task in [*talks]:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def _bound(path: Path) -> socket.socket:
    """By way of its directory: a whole path may be too long for a socket."""
    made = socket.socket(socket.AF_UNIX)
    holder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        made.bind(f"/proc/self/fd/{holder}/{path.name}")
    except BaseException:
        made.close()
        raise
    finally:
        os.close(holder)
    return made


async def _talk(agent: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # one of the two is gone
        theirs, to_them = await asyncio.open_unix_connection(agent)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_carry(reader, to_them))
                both.create_task(_carry(theirs, writer))
        finally:
            to_them.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
