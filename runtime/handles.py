"""What a run is held by: pidfds of its program and of its shim, which mean them and nobody else while they are open."""

import contextlib
import os
import select
import signal

from swarmd.runtime.records import Run
from swarmd.runtime.spawner_client import readable
from swarmd.runtime.stages import files


class Handles:
    """program, shim: -1 where there is none any more."""

    def __init__(self) -> None:
        self.program = self.shim = -1

    def open(self, run: Run) -> None:
        self.shim = _pidfd(run.shim, run.shim_start)
        self.program = _pidfd(run.pid, run.pid_start)

    def close(self) -> None:
        for fd in (self.program, self.shim):
            if fd >= 0:
                os.close(fd)
        self.program = self.shim = -1

    def signal(self, number: int) -> None:
        """To the program; one that has ended hears nothing."""
        with contextlib.suppress(ProcessLookupError):
            if self.program >= 0:
                signal.pidfd_send_signal(self.program, number)

    def has_ended(self) -> bool:
        """Whether the program is gone, which the shim may not have told yet."""
        if self.program < 0:
            return True
        poll = select.poll()
        poll.register(self.program, select.POLLIN)
        return bool(poll.poll(0))

    async def end(self) -> None:
        """Wait for the shim's, which comes after all that it has to do."""
        if self.shim >= 0:
            await readable(self.shim)


def _pidfd(pid: int, started: int) -> int:
    """Of the process that started at that time (clock ticks since boot, proc(5)), not of one that has its pid now."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    if files.start_time(pid) == started:
        return fd
    os.close(fd)
    return -1
