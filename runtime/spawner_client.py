"""The daemon's side of the spawner: keeps one running and turns requests into answers.

Every request brings the pipe its answer comes through, so nothing waits for anything else; `stages/spawner.py` draws
the conversation.
"""

import array
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swarmd.runtime.errors import StartError
from swarmd.runtime.stages import syscalls

_LIBRARY = Path(__file__).parents[2]  # the folder that holds the swarmd package
_PROGRAM = "import sys; sys.path.append(sys.argv.pop(1)); from swarmd.runtime.stages.spawner import main; main()"


class Spawner:
    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._starts: socket.socket | None = None
        self._others: socket.socket | None = None

    def start(self) -> None:
        """Start the process; called once before the daemon has threads, and again when it is found dead."""
        starts, others = (socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
        theirs = [pair[1].fileno() for pair in (starts, others)]
        command = [sys.executable, "-S", "-E", "-c", _PROGRAM, str(_LIBRARY), *map(str, theirs)]
        interpreter = syscalls.read_only_copy(sys.executable)
        self._process = subprocess.Popen(
            command,
            executable=f"/proc/self/fd/{interpreter}",
            pass_fds=[*theirs, interpreter],
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
        os.close(interpreter)
        for pair in (starts, others):
            pair[1].close()
        self._starts, self._others = starts[0], others[0]

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def close(self) -> None:
        if self._starts and self._others and self._process:
            self._starts.close()
            self._others.close()
            self._process.wait(10)

    async def ask(self, request: Mapping[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """Send a request and return its one answer. Raises StartError for one that says why not."""
        with self.asking(request, fds) as asked:
            return await asked.answer()

    @contextlib.contextmanager
    def asking(self, request: Mapping[str, Any], fds: Sequence[int] = ()) -> Iterator["Asked"]:
        """Send a request, at once: the descriptors are the caller's to close then."""
        reader, writer = os.pipe()
        try:
            try:
                self.send(request, [*fds, writer])
            finally:
                os.close(writer)
            yield Asked(str(request["op"]), reader)
        finally:
            os.close(reader)

    def send(self, request: Mapping[str, Any], fds: Sequence[int]) -> None:
        """Send a request whose answer comes through the last of fds; they stay the caller's."""
        data = json.dumps(request).encode()
        for last in (False, True):
            try:
                to = self._starts if request["op"] == "start" else self._others
                assert to is not None, "start() comes first"
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                to.sendmsg([data], rights)
                return
            except (BrokenPipeError, ConnectionResetError):
                if last:
                    raise
                self.close()
                self.start()


class Asked:
    """A request that has been sent."""

    def __init__(self, op: str, reader: int) -> None:
        self._op, self._reader = op, reader

    async def answer(self) -> dict[str, Any]:
        """Raises StartError for one that says why not."""
        data = await read_to_end(self._reader)
        if not data:
            raise StartError(f"{self._op}: the process that served it was killed")
        answer: dict[str, Any] = json.loads(data)
        if "error" in answer:
            raise StartError(answer["error"], answer["exit_code"], answer)
        return answer


async def readable(fd: int) -> None:
    """Wait until fd is readable; a pidfd is, once its process has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def read_to_end(fd: int, keep: int = 1 << 20) -> bytes:
    """Read all that comes through a pipe, keeping the first `keep` bytes."""
    kept = bytearray()
    while True:
        await readable(fd)
        chunk = os.read(fd, 65536)
        if not chunk:
            return bytes(kept)
        kept += chunk[: keep - len(kept)]
