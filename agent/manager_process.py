"""The manager of this node: a child process that lives while its stdin is open, so it never outlives us.

It says `ready` on stdout once it answers, and why it ends: `error CODE SENTENCE`; its log goes where ours goes.
"""

import asyncio
import contextlib
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from swarmd.proto.backoff import Backoff
from swarmd.proto.errors import BY_GRPC_CODE, FailedPrecondition, SwarmdError, Unavailable

log = logging.getLogger(__name__)
STOP = 10.0  # s, to end after its stdin was closed
START = 60.0  # s, to become ready


class Removed(FailedPrecondition):
    """The store's members took this node's out: a manager with this certificate can't run any more."""


@dataclass(slots=True)
class ManagerState:
    """How this node's manager is, as the one who keeps it running knows."""

    start: float | None = None  # loop time at which the start that is under way began
    problem: str = ""  # why it does not run


class ManagerProcess:
    """One run of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, config: Path, patience: float | None = START) -> "ManagerProcess":
        """Return once it answers; raise what it says if it ends before or takes too long."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "swarmd.manager", str(config)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
            start_new_session=True,  # Ctrl-C is for the daemon, which then stops its manager in order
        )
        manager = cls(process)
        try:
            async with asyncio.timeout(patience):
                await manager._ready()
        except TimeoutError:
            await manager.stop()
            raise Unavailable(f"the manager was not ready within {patience:g} s: see the log of swarmd") from None
        except BaseException:
            await manager.stop()
            raise
        return manager

    async def _ready(self) -> None:
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode(errors="replace").strip():
            if line == "ready":
                return
            if line.startswith("error "):
                raise _told(line)
        raise Unavailable(f"the manager ended with exit code {await self._process.wait()}: see the log of swarmd")

    async def wait(self) -> int:
        """Return its exit code; raises Removed."""
        assert self._process.stdout is not None
        last = (await self._process.stdout.read()).decode(errors="replace").strip().rpartition("\n")[2]
        if last.startswith("error ") and isinstance(problem := _told(last), Removed):
            raise problem
        return await self._process.wait()

    async def stop(self) -> None:
        """Let it end, and see to it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP):
                    await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()


def _told(line: str) -> SwarmdError:
    _, code, sentence = line.split(" ", 2)
    return Removed(sentence) if code == "REMOVED" else BY_GRPC_CODE.get(code, Unavailable)(sentence)


async def supervise(config: Path, running: ManagerProcess | None, state: ManagerState) -> None:
    """Keep a manager running until cancelled, or until it was Removed."""
    backoff = Backoff(base=0.2, cap=5.0)
    while True:
        state.start = asyncio.get_running_loop().time()
        try:
            # One that has to wait for a quorum of others is not ready for long, and still must go on.
            manager = running or await ManagerProcess.start(config, patience=None)
        except Removed as removed:
            state.start, state.problem = None, str(removed)
            return
        except SwarmdError as error:
            log.warning("manager: %s", error)
            state.start, state.problem = None, str(error)
            await asyncio.sleep(backoff.next())
            continue
        running = None
        state.start, state.problem = None, ""
        backoff.reset()
        try:
            code = await manager.wait()
            log.warning("the manager ended with exit code %d: starting it again", code)
            state.start = asyncio.get_running_loop().time()
            state.problem = "this node's manager ended and is being started again"
        except Removed as removed:
            state.problem = str(removed)
            return
        finally:
            await manager.stop()
        await asyncio.sleep(backoff.next())
