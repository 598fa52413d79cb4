"""Runs programs inside running containers: attached, detached, or to bring back what they wrote.

The program's streams go straight from its helper (`stages/execute.py`) to the client's connection; here is only what is
to be known of it.  An exec is forgotten with its container, and when the daemon ends; the program runs on.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from swarmd.runtime.attach import Streams
from swarmd.runtime.errors import Conflict, NotFound, StartError
from swarmd.runtime.model import Struct
from swarmd.runtime.spawner_client import Spawner, readable

_KEPT = 1 << 20
_MOST_ENDED = 1000


class ExecResult(Struct, frozen=True):
    """exit_code is 128+n when a signal ended it; of each stream the first MiB is kept."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Command(Struct, frozen=True, omit_defaults=False):
    """A program to run. size: height and width of its terminal; privileged: with all capabilities and no seccomp."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    tty: bool = False
    size: tuple[int, int] = (0, 0)
    privileged: bool = False


class Execution:
    """A program that was started; `keep` must be run until it returns."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control, self.pid = control, pid
        self._answer: dict[str, Any] | None = None

    async def keep(self) -> None:
        """Return when the program has ended; being cancelled lets it go, or ends it if it is bound."""
        with self._control:
            while self._answer is None:
                await readable(self._control.fileno())
                self._look()

    @property
    def answer(self) -> dict[str, Any] | None:
        """How it ended: {"exit_code"} or {"timeout"}; None while it runs.

        A client that saw its stream end asks at once, perhaps before this daemon's loop has looked.
        """
        self._look()
        return self._answer

    def resize(self, height: int, width: int) -> None:
        if self._answer is None:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"resize": [height, width]}).encode())

    def _look(self) -> None:
        if self._answer is None and self._control.fileno() >= 0:
            with contextlib.suppress(BlockingIOError):
                try:
                    data = self._control.recv(65536)
                except ConnectionResetError:  # it ended without reading all that it was told; what it said comes now
                    data = self._control.recv(65536)
                self._answer = json.loads(data) if data else {"exit_code": 137}  # its helper was killed, and so was it


async def begin(
    spawner: Spawner,
    directory: Path,
    pidfd: int,
    command: Command,
    connection: socket.socket | None = None,
    streams: Streams | None = None,
    *,
    timeout: float | None = None,
    bound: bool = False,
) -> Execution:
    """Return once the program runs; raise StartError, which the client is told too.

    The connection is handed over; None: its output goes nowhere. bound: the program is killed when `keep` is cancelled.
    """
    options = {"directory": str(directory), "timeout": timeout, "bound": bound}
    wants = (streams or Streams()).as_request()
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    theirs.setblocking(True)
    try:
        fds = [pidfd, *([connection.fileno()] if connection else []), theirs.fileno()]
        try:
            spawner.send({"op": "exec", **options, **msgspec.to_builtins(command), **wants}, fds)
        finally:
            theirs.close()
            if connection:
                connection.close()
        await readable(control.fileno())
        data = control.recv(65536)
        if not data:
            raise StartError("exec: the process that served it was killed")
        answer = json.loads(data)
        if "error" in answer:
            raise StartError(answer["error"], answer["exit_code"])
    except BaseException:
        control.close()
        raise
    return Execution(control, answer["pid"])


async def execute(
    spawner: Spawner, directory: Path, pidfd: int, command: Command, *, timeout: float | None = None
) -> ExecResult:
    """Raise StartError when the program can't be run, TimeoutError when it was killed for taking too long."""
    ours, theirs = socket.socketpair()
    with ours:
        wants = Streams(stdout=True, stderr=True, raw=False)
        running = await begin(spawner, directory, pidfd, command, theirs, wants, timeout=timeout, bound=True)
        kept = {1: bytearray(), 2: bytearray()}
        async with asyncio.TaskGroup() as group:
            group.create_task(_collect(ours, kept))
            group.create_task(running.keep())
    answer = running.answer or {}
    if answer.get("timeout"):
        raise TimeoutError(f"{command.command[0]} was killed: it took longer than {timeout:g} s")
    return ExecResult(exit_code=answer["exit_code"], stdout=bytes(kept[1]), stderr=bytes(kept[2]))


async def _collect(connection: socket.socket, kept: dict[int, bytearray]) -> None:
    """Take frames apart until their end, keeping the first `_KEPT` bytes of each stream."""
    buffer = bytearray()
    number, left = 1, 0
    while True:
        await readable(connection.fileno())
        data = os.read(connection.fileno(), 65536)
        if not data:
            return
        buffer += data
        while buffer:
            if not left:
                if len(buffer) < 8:
                    break
                number, left = struct.unpack(">BxxxI", buffer[:8])
                del buffer[:8]
            piece = buffer[:left]
            kept[number] += piece[: _KEPT - len(kept[number])]
            left -= len(piece)
            del buffer[: len(piece)]


@dataclass(slots=True)
class Exec:
    """What was asked for, and what became of it. failed: the exit code of one that could not be run."""

    container: str
    command: Command
    streams: Streams
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    started: bool = False
    running: Execution | None = None
    failed: int | None = None

    @property
    def exit_code(self) -> int | None:
        if self.running and (answer := self.running.answer):
            return int(answer["exit_code"])
        return self.failed

    @property
    def pid(self) -> int:
        return self.running.pid if self.running else 0


class Execs:
    """Those of this daemon's life; of those that have ended the oldest is forgotten for the newest."""

    def __init__(self) -> None:
        self._byid: dict[str, Exec] = {}

    def add(self, made: Exec) -> Exec:
        self._byid[made.id] = made
        ended = [exec.id for exec in self._byid.values() if exec.exit_code is not None]
        for id in ended[:-_MOST_ENDED]:
            del self._byid[id]
        return made

    def get(self, ref: str) -> Exec:
        found = [made for id, made in self._byid.items() if ref and id.startswith(ref)]
        if len(found) != 1:
            raise NotFound(f"no such exec: {ref}: make it first")
        return found[0]

    def of(self, container: str) -> Sequence[str]:
        return [exec.id for exec in self._byid.values() if exec.container == container and exec.exit_code is None]

    def forget(self, container: str) -> None:
        self._byid = {id: exec for id, exec in self._byid.items() if exec.container != container}


def start_once(made: Exec) -> None:
    """Raise Conflict for one that was started before."""
    if made.started:
        raise Conflict(f"exec {made.id[:12]} has already run: make another")
    made.started = True
