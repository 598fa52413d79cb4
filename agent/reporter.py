"""Statuses on their way to a manager: the newest of each task, until one has acknowledged it.

**Invariant:** a status leaves only when its own batch is acknowledged, never for an older one of the same task.
"""

import asyncio
from itertools import islice

from swarmd.proto.dispatcher_pb2 import Statuses, TaskStatusUpdate
from swarmd.proto.objects_pb2 import TaskStatus

BATCH = 100


class Reporter:
    def __init__(self) -> None:
        self._waiting: dict[str, TaskStatus] = {}
        self._sent: dict[int, dict[str, TaskStatus]] = {}
        self._batch = 0
        self._some = asyncio.Event()

    def report(self, task_id: str, status: TaskStatus) -> None:
        self._waiting[task_id] = status
        self._some.set()

    async def next(self) -> Statuses:
        """The next batch to send."""
        await self._some.wait()
        self._batch += 1
        taken = dict(islice(self._waiting.items(), BATCH))
        for task_id in taken:
            del self._waiting[task_id]
        self._sent[self._batch] = taken
        if not self._waiting:
            self._some.clear()
        updates = [TaskStatusUpdate(task_id=task_id, status=status) for task_id, status in taken.items()]
        return Statuses(batch=self._batch, updates=updates)

    def acknowledge(self, batch: int) -> None:
        self._sent.pop(batch, None)

    def resend(self) -> None:
        """A new session: whatever was not acknowledged goes again, unless a newer status took its place."""
        unacknowledged: dict[str, TaskStatus] = {}
        for _, sent in sorted(self._sent.items()):
            unacknowledged |= sent
        self._sent.clear()
        self._waiting = unacknowledged | self._waiting
        if self._waiting:
            self._some.set()
