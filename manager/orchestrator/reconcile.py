"""The loop that every part of the orchestrator is: keys come in, each is settled as things are now.

Events and timers only say which key to look at. What is kept here is a cache: the first pass over every key, which a
new leader makes, finds it again.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial

from swarmd.manager.store.interface import Commit, Store, Tx, View
from swarmd.proto.clock import Clock
from swarmd.proto.errors import Unavailable
from swarmd.proto.objects_pb2 import Task

RETRY = 1_000_000_000  # ns, after the store had no quorum
WRITES = 100  # per transaction, of the 128 operations that etcd allows
BYTES = 1 << 20  # per transaction, of the 1.5 MiB that etcd allows


class Loop(ABC):
    """One part of the orchestrator: settles all keys, then those that commits touch or that are due."""

    def __init__(self, store: Store, clock: Clock, new_id: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    @abstractmethod
    def keys(self, view: View) -> Iterable[str]:
        """Every key there is."""

    @abstractmethod
    def touched(self, view: View, commit: Commit) -> Iterable[str]:
        """The keys that a commit may have given work."""

    @abstractmethod
    def settle(self, key: str, tx: Tx) -> int | None:
        """Write what the key needs now; return when (ns) to look at it again, or None. Runs again on conflict."""

    async def run(self) -> None:
        """Reconcile until cancelled; losing leadership is a cancellation."""
        agenda = Agenda(self._clock)
        async with self._store.view_and_watch() as (view, commits):
            agenda.add(self.keys(view))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(commits, agenda))
                while True:
                    for key in await agenda.take():
                        agenda.schedule(key, await self._settled(key))

    async def _settled(self, key: str) -> int | None:
        try:
            return await self._store.transact(partial(self.settle, key))
        except Unavailable:
            return self._clock.now() + RETRY

    async def _follow(self, commits: AsyncIterator[Commit], agenda: "Agenda") -> None:
        async for commit in commits:
            agenda.add(self.touched(self._store.view(), commit))


def fitting(groups: Sequence[Sequence[Task]]) -> int:
    """How many of the groups, from the first on, one transaction can hold; at least one."""
    writes = size = 0
    for number, group in enumerate(groups):
        writes += len(group)
        size += sum(task.ByteSize() for task in group)
        if number and (writes > WRITES or size > BYTES):
            return number
    return len(groups)


class Agenda:
    """Keys to look at, now or at a time. A key is there once however often it was added."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now: set[str] = set()
        self._later: dict[str, int] = {}
        self._bell = asyncio.Event()

    def add(self, keys: Iterable[str]) -> None:
        self._now.update(keys)
        if self._now:
            self._bell.set()

    def schedule(self, key: str, due: int | None) -> None:
        """Look at the key at that time, in place of any other that was set for it."""
        if due is None:
            self._later.pop(key, None)
        else:
            self._later[key] = due

    async def take(self) -> list[str]:
        """Wait for keys that are due; each is handed out once, in order."""
        while not (ready := self._now | self._due()):
            await self._wait()
        self._now.clear()
        self._bell.clear()
        for key in ready:
            self._later.pop(key, None)
        return sorted(ready)

    def _due(self) -> set[str]:
        now = self._clock.now()
        return {key for key, due in self._later.items() if due <= now}

    async def _wait(self) -> None:
        """Until a key is added, or the next one is due."""
        if not self._later:
            await self._bell.wait()
            return
        pause = max(min(self._later.values()) - self._clock.now(), 0) / 1e9
        async with asyncio.TaskGroup() as group:
            alarm = group.create_task(self._clock.sleep(pause))
            bell = group.create_task(self._bell.wait())
            await asyncio.wait({alarm, bell}, return_when=asyncio.FIRST_COMPLETED)
            alarm.cancel()
            bell.cancel()
