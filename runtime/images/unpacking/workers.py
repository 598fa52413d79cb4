"""The daemon's side of the workers: as many at once as there are processors, kept for the next job for a while.

**Invariant:** a job that fails or is cancelled leaves nothing: its process is dead before what it made is removed.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from swarmd.runtime.errors import Exhausted, Invalid, RuntimeFault
from swarmd.runtime.images.unpacking import jobs
from swarmd.runtime.images.unpacking.jobs import Compression, Indexed, Packed, Unpacked
from swarmd.runtime.images.unpacking.removal import empty

_COMMAND = ("-P", "-X", "utf8", "-m", "swarmd.runtime.images.unpacking.worker")
_IDLE = 60.0  # s
_FAULTS: dict[str, type[RuntimeFault]] = {"invalid": Invalid, "exhausted": Exhausted, "other": RuntimeFault}


class Workers:
    def __init__(self, idle: float = _IDLE) -> None:
        """idle: s after which a worker without a job ends."""
        count = len(os.sched_getaffinity(0))
        # Apart: a job that waits for a slow network keeps no other from its processor.
        self._busy, self._waiting = asyncio.Semaphore(count), asyncio.Semaphore(count)
        self._patience, self._most_idle = idle, 2 * count
        self._idle: dict[_Worker, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def unpack(self, blob: Path, into: Path, growth: AsyncIterator[int] | None) -> Unpacked:
        """Unpack a layer into an empty directory, which is empty again if that fails.

        growth: says, while the blob is still written, how many bytes of it are there; its end is that of the blob.
        Raises Invalid for a damaged or hostile archive, Exhausted when the disk is full, and what growth raises.
        """
        job = jobs.UnpackJob(blob=os.fsencode(blob), into=os.fsencode(into), grows=growth is not None)
        return await self._unpacked(job, growth, lambda: empty(into))

    async def measure(self, blob: Path) -> Unpacked:
        """The same digests without unpacking; files_size is 0."""
        return await self._unpacked(jobs.UnpackJob(blob=os.fsencode(blob), into=b""), None, lambda: None)

    async def index(self, archive: Path, plain: Path, list: Path, growth: AsyncIterator[int] | None) -> Indexed:
        """List what the archive of a build context holds, as stages/snapshot.py does.

        plain: where the archive is written without its compression, if it has one.  growth: as in unpack, but whoever
        sends a context may wait for another job before sending on, so it has no place among those that are counted.
        What it has written when it fails is for the caller to remove.  Raises what unpack raises.
        """
        job = jobs.IndexJob(
            blob=os.fsencode(archive), plain=os.fsencode(plain), list=os.fsencode(list), grows=growth is not None
        )
        answer = await self._run(job, growth, lambda: None, self._busy if growth is None else nullcontext())
        assert isinstance(answer, Indexed)
        return answer

    async def pack(
        self,
        directory: Path,
        blob: Path,
        *,
        paths: Iterable[str] | None = None,
        compression: Compression = "gzip",
        clamp: int | None = None,
        owner_offset: int = 0,
    ) -> Packed:
        """Write a directory as a layer into a file, which is removed if that fails, and not yet flushed to the disk.

        paths: only these, with all below them and the directories that lead to them.  clamp: no time of a file is
        later, in s since the epoch.  owner_offset: the id on disk of who is 0 in the layer.
        """
        job = jobs.PackJob(
            directory=os.fsencode(directory),
            blob=os.fsencode(blob),
            paths=None if paths is None else tuple(os.fsencode(path) for path in paths),
            compression=compression,
            clamp=clamp,
            owner_offset=owner_offset,
        )
        answer = await self._run(job, None, lambda: blob.unlink(missing_ok=True), self._busy)
        assert isinstance(answer, Packed)
        return answer

    async def close(self) -> None:
        """End the workers that have no job; those that have one end with it."""
        self._closed = True
        for worker in [*self._idle]:
            self._end(worker)
        while self._ending:
            await asyncio.wait(self._ending)

    async def _unpacked(
        self, job: jobs.UnpackJob, growth: AsyncIterator[int] | None, undo: Callable[[], None]
    ) -> Unpacked:
        answer = await self._run(job, growth, undo, self._busy if growth is None else self._waiting)
        assert isinstance(answer, Unpacked)
        return answer

    async def _run(
        self,
        job: jobs.Job,
        growth: AsyncIterator[int] | None,
        undo: Callable[[], None],
        slot: AbstractAsyncContextManager[None],
    ) -> Indexed | Packed | Unpacked:
        async with slot:
            worker = self._taken() or await _Worker.start()
            try:
                answer = await worker.do(job, growth)
                if isinstance(answer, jobs.Failed):
                    raise _FAULTS[answer.kind](answer.message)
            except BaseException:
                await asyncio.shield(self._undone(worker, undo))
                raise
            self._idle[worker] = asyncio.get_running_loop().call_later(self._patience, self._end, worker)
            if self._closed or len(self._idle) > self._most_idle:
                self._end(worker)
            return answer

    def _taken(self) -> "_Worker | None":
        while self._idle:
            worker, timer = self._idle.popitem()
            timer.cancel()
            if worker.lives():
                return worker
        return None

    def _end(self, worker: "_Worker") -> None:
        self._idle.pop(worker).cancel()
        task = asyncio.ensure_future(worker.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    @staticmethod
    async def _undone(worker: "_Worker", undo: Callable[[], None]) -> None:
        await worker.kill()
        await asyncio.to_thread(undo)


class _Worker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdin and process.stdout
        self._input, self._output = process.stdin, process.stdout

    @classmethod
    async def start(cls) -> "_Worker":
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                *_COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the daemon, which decides what becomes of the jobs
            )
        )

    def lives(self) -> bool:
        """Asked of the kernel: the loop may not have heard of its end yet."""
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    async def do(self, job: jobs.Job, growth: AsyncIterator[int] | None) -> jobs.Answer:
        self._say(jobs.encode(job))
        answering = asyncio.ensure_future(self._output.readline())
        feeding = asyncio.ensure_future(self._feed(growth)) if growth is not None else None
        try:
            if feeding:
                await asyncio.wait({answering, feeding}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    await feeding  # raises what the download raised
            line = await answering
        finally:
            for task in (answering, feeding):
                if task and not task.done():
                    task.cancel()
                    await asyncio.wait([task])
        if not line.endswith(b"\n"):
            raise RuntimeFault(self._died(job, await self._process.wait()))
        answer: jobs.Answer = jobs.decode_answer(line)
        return answer

    async def _feed(self, growth: AsyncIterator[int]) -> None:
        async for size in growth:
            self._say(jobs.encode(size))
            with contextlib.suppress(ConnectionError):  # it has died: there will be no answer
                await self._input.drain()
        self._say(jobs.encode(None))

    def _say(self, line: bytes) -> None:
        self._input.write(line + b"\n")

    def _died(self, job: jobs.Job, code: int) -> str:
        what = f"the process that worked on {jobs.about(job)}"
        if code == -signal.SIGKILL:
            return f"{what} was killed, as the kernel does when memory is short: free some memory and try again"
        return f"{what} ended by itself with code {code}: see the log of swarmd"

    async def end(self) -> None:
        self._input.close()
        await self._process.wait()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
