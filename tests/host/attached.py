"""A client of a container's or an exec's streams, for tests: reads frames, and waits for what it is to be sent."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from swarmd.agent.api.app import application
from swarmd.agent.api.interface import Host, Services
from swarmd.runtime.attach import Streams
from swarmd.runtime.engine import Engine
from swarmd.runtime.exec import Command
from tests.agent.api.fakes import FakeMembership
from tests.run import RUN

ALL = Streams(stdin=True, stdout=True, stderr=True)


@dataclass
class Attached:
    """Use `theirs` as the connection that is handed over."""

    framed: bool = True
    out: bytes = b""
    err: bytes = b""
    ours: socket.socket = field(init=False)
    theirs: socket.socket = field(init=False)
    rest: bytes = b""

    def __post_init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        for end in (self.ours, self.theirs):
            end.setblocking(False)

    def __enter__(self) -> "Attached":
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.close()

    async def send(self, data: bytes, *, last: bool = False) -> None:
        await asyncio.get_running_loop().sock_sendall(self.ours, data)
        if last:
            self.ours.shutdown(socket.SHUT_WR)

    async def more(self) -> bool:
        """Read a piece; False at the end."""
        data = await asyncio.get_running_loop().sock_recv(self.ours, 1 << 18)
        if not self.framed:
            self.out += data
            return bool(data)
        self.rest += data
        while len(self.rest) >= 8 and len(self.rest) >= 8 + (size := int.from_bytes(self.rest[4:8], "big")):
            number, piece, self.rest = self.rest[0], self.rest[8 : 8 + size], self.rest[8 + size :]
            if number == 1:
                self.out += piece
            else:
                assert number == 2, f"frame of stream {number}"
                self.err += piece
        return bool(data)

    async def until(self, wanted: bytes, seconds: float = 10) -> None:
        try:
            async with asyncio.timeout(seconds):
                while wanted not in self.out:
                    assert await self.more(), f"ended before {wanted!r}: {self.out[-500:]!r} {self.err[-500:]!r}"
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s: {wanted!r}; last seen {self.out[-500:]!r}") from None

    async def end(self, seconds: float = 20) -> bytes:
        """Read all that comes; returns what was on stdout."""
        try:
            async with asyncio.timeout(seconds):
                while await self.more():
                    pass
        except TimeoutError:
            raise AssertionError(f"no end within {seconds} s; last seen {self.out[-500:]!r}") from None
        return self.out


async def interrupt(client: Attached) -> None:
    """Press Ctrl-C while a shell's command runs: its terminal makes a signal of it."""
    await client.send(b"sh -c 'echo runs-$((1+1)); exec sleep 100'\n")
    await client.until(b"runs-2\r\n")
    client.out = b""
    await client.send(b"\x03")
    await client.until(b"/ ")  # the prompt


async def run_exec(engine: Engine, id: str, *command: str, streams: Streams = ALL, **options: object) -> Attached:
    """Start an exec with a client attached; its id is the client's `exec`."""
    client = Attached(framed=not options.get("tty"))
    made = engine.exec_create(id, Command(command=command, **options), streams)  # type: ignore[arg-type]
    await engine.exec_start(made, lambda: client.theirs)
    client.exec = made  # type: ignore[attr-defined]
    return client


@asynccontextmanager
async def served(engine: Engine, root: Path) -> AsyncIterator[Path]:
    """The Engine API over a real engine; gives its socket."""
    app = application(Services(engine, FakeMembership(), Host("host1", root, "0.1.0")))  # type: ignore[arg-type]
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    path = Path(f"/tmp/swarmd-test-{RUN}.sock")
    await web.UnixSite(runner, str(path)).start()
    try:
        yield path
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)
