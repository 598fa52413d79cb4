"""Runs a program inside a running container and brings back what it wrote, bounded."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from swarmd.runtime.model import Struct
from swarmd.runtime.spawner_client import Spawner, readable

_KEPT = 1 << 20
# How long output may still come, from what the program left behind with its streams, once it has ended itself.
_LINGER = 0.2


class ExecResult(Struct, frozen=True):
    """exit_code is 128+n when a signal ended it; of each stream the first MiB is kept."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class _Output:
    """One stream of the program."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.kept = bytearray()

    async def read(self) -> None:
        while True:
            await readable(self.reader)
            chunk = os.read(self.reader, 65536)
            if not chunk:
                return
            self.kept += chunk[: _KEPT - len(self.kept)]

    def close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        self.close_writer()
        os.close(self.reader)


async def execute(
    spawner: Spawner,
    directory: Path,
    pidfd: int,
    command: Sequence[str],
    *,
    env: Sequence[str] = (),
    user: str = "",
    workdir: str = "",
    timeout: float | None = None,
) -> ExecResult:
    """Raise StartError when the program can't be run, TimeoutError when it was killed for taking too long."""
    options = {"env": list(env), "user": user, "workdir": workdir, "timeout": timeout}
    request = {"op": "exec", "directory": str(directory), "command": list(command), **options}
    outputs = (_Output(), _Output())
    try:
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(output.read()) for output in outputs]
            try:
                asking = group.create_task(spawner.ask(request, [pidfd, *(output.writer for output in outputs)]))
                await asyncio.sleep(0)  # the request is sent; the writers are the program's alone from here
                for output in outputs:
                    output.close_writer()
                answer = await asking
                await asyncio.wait(reading, timeout=_LINGER)
            finally:
                for task in reading:
                    task.cancel()
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    finally:
        for output in outputs:
            output.close()
    if answer.get("timeout"):
        raise TimeoutError(f"{command[0]} was killed: it took longer than {timeout:g} s")
    return ExecResult(exit_code=answer["exit_code"], stdout=bytes(outputs[0].kept), stderr=bytes(outputs[1].kept))
