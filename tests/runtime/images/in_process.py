"""Layers unpacked without a process for it, which would be most of the time of a test that is about something else."""

from collections.abc import AsyncIterator
from pathlib import Path

from swarmd.runtime.errors import Exhausted, Invalid, RuntimeFault
from swarmd.runtime.images.unpacking import jobs, worker
from swarmd.runtime.images.unpacking.removal import empty
from swarmd.runtime.images.unpacking.workers import Workers

_FAULTS = {"invalid": Invalid, "exhausted": Exhausted, "other": RuntimeFault}


class InProcess(Workers):
    """Begins when all has come, and the loop waits meanwhile."""

    async def unpack(self, blob: Path, into: Path, growth: AsyncIterator[int] | None) -> jobs.Unpacked:
        if growth is not None:
            async for _ in growth:
                pass
        answer = worker.answer(jobs.UnpackJob(blob=bytes(blob), into=bytes(into)))
        if isinstance(answer, jobs.Failed):
            empty(into)
            raise _FAULTS[answer.kind](answer.message)
        assert isinstance(answer, jobs.Unpacked)
        return answer
