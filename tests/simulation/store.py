"""etcd as managers see it: every store is a cache that lags, and nobody is sure that a lost write has not landed.

A transaction runs on the store's own, possibly stale view. It commits if all that it read by id or wrote is still the
newest, and runs again otherwise. Requests and answers get lost, and a lost request may still arrive, seconds later.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from swarmd.manager.store import interface
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import (
    AnyObject,
    Changed,
    Commit,
    Fence,
    I,
    LeadershipLost,
    R,
    T,
    Tx,
    View,
)
from swarmd.proto.clock import Clock, timestamp
from swarmd.proto.errors import Conflict, Unavailable
from swarmd.proto.objects_pb2 import Task

Key = tuple[type[AnyObject], str]
Objects = dict[Key, AnyObject]
Found = dict[tuple[type[AnyObject], str | None, str | None], Sequence[AnyObject]]


@dataclass
class Weather:
    """How bad things are, for every store; mended at once when the faults stop."""

    loss: float = 0.02  # of requests, and of answers
    latency: float = 0.02  # seconds, at most
    straggling: float = 3.0  # seconds after which a lost request may still arrive, at most
    lag: float = 0.1  # seconds that news of a commit takes, at most


@dataclass(eq=False)
class Etcd:
    """What is so; the stores' caches follow it."""

    clock: Clock
    rng: random.Random
    weather: Weather
    objects: Objects = field(default_factory=dict)
    revision: int = 0
    leader: Fence | None = None
    stores: list["Store"] = field(default_factory=list)

    def store(self, *, faulty: bool = True) -> "Store":
        made = Store(self, faulty)
        self.stores.append(made)
        return made

    def commit(self, expected: dict[Key, int], writes: dict[Key, AnyObject | None], fence: Fence | None) -> int:
        """Write all and return the revision; raise Conflict if anything expected has changed, or LeadershipLost."""
        if fence is not None and fence != self.leader:
            raise LeadershipLost("another manager leads")
        for key, version in expected.items():
            if _version(self.objects.get(key)) != version:
                raise Conflict(f"{key[1]} has changed")
        changes = []
        for key, new in writes.items():
            old = self.objects.pop(key, None)
            if new is not None:
                new = edited(new)
                new.version.index = self.revision + 1
                self.objects[key] = new
            if old is not None or new is not None:
                changes.append(Changed(old, new))
        return self._publish(tuple(changes))

    def _publish(self, changes: tuple[Changed, ...]) -> int:
        self.revision += 1
        for store in self.stores:
            store.hear(Commit(self.revision, changes))
        return self.revision

    @asynccontextmanager
    async def campaign(self, candidate: str) -> AsyncIterator["Leader"]:
        while self.leader is not None:
            await self.clock.sleep(self.rng.uniform(0.05, 0.2))
        self._publish(())  # the leader's key
        leader = Leader(self, Fence(f"leader/{candidate}", self.revision))
        self.leader = leader.fence
        try:
            yield leader
        finally:
            if self.leader == leader.fence:
                self.leader = None

    def depose(self) -> None:
        self.leader = None


@dataclass
class Leader:
    etcd: Etcd
    fence: Fence

    async def lost(self) -> None:
        """Return some time after it was lost: until then two managers believe that they lead."""
        while self.etcd.leader == self.fence:
            await self.etcd.clock.sleep(self.etcd.rng.uniform(0.2, 2.0))


def _version(obj: AnyObject | None) -> int:
    return 0 if obj is None else obj.version.index


@dataclass
class _Tx:
    """Satisfies Tx, and View as long as nothing is put."""

    objects: Objects
    found: Found  # what was looked for among these objects
    revision: int
    now: int
    writes: dict[Key, AnyObject | None] = field(default_factory=dict)
    expected: dict[Key, int] = field(default_factory=dict)

    def get(self, kind: type[T], id: str) -> T | None:
        return self._expect((kind, id))  # type: ignore[arg-type, return-value]

    def _expect(self, key: Key) -> AnyObject | None:
        """Read by id: what the commit depends on."""
        self.expected.setdefault(key, _version(self.objects.get(key)))
        return self.writes.get(key, self.objects.get(key))

    def find(
        self, kind: type[T], *, name: str | None = None, service_id: str | None = None, node_id: str | None = None
    ) -> Sequence[T]:
        assert name is None, "nothing simulated looks for names"
        if self.writes:
            return self._matching({**self.objects, **self.writes}, kind, service_id, node_id)
        asked = (kind, service_id, node_id)
        if asked not in self.found:
            self.found[asked] = self._matching(self.objects, kind, service_id, node_id)
        return self.found[asked]  # type: ignore[return-value]

    @staticmethod
    def _matching(
        objects: Mapping[Key, AnyObject | None], kind: type[T], service_id: str | None, node_id: str | None
    ) -> tuple[T, ...]:
        return tuple(
            obj  # type: ignore[misc]
            for (of, _), obj in objects.items()
            if of is kind
            and obj is not None
            and (service_id is None or (isinstance(obj, Task) and obj.service_id == service_id))
            and (node_id is None or (isinstance(obj, Task) and obj.node_id == node_id))
        )

    def put(self, obj: AnyObject) -> None:
        old = self._expect((type(obj), obj.id))
        copy = edited(obj)
        copy.updated_at.CopyFrom(timestamp(self.now))
        copy.created_at.CopyFrom(copy.updated_at if old is None else old.created_at)
        self.writes[type(obj), obj.id] = copy

    def delete(self, obj: AnyObject) -> None:
        self._expect((type(obj), obj.id))
        self.writes[type(obj), obj.id] = None


@dataclass(eq=False)
class Store:
    """Satisfies the Store protocol. One that is not faulty knows everything at once."""

    etcd: Etcd
    faulty: bool
    cache: Objects = field(default_factory=dict)
    found: Found = field(default_factory=dict)  # in this cache, since it last changed
    revision: int = 0
    watchers: list[asyncio.Queue[Commit]] = field(default_factory=list)
    on_the_way: deque[Commit] = field(default_factory=deque)
    news_at: float = 0.0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, commit: Commit) -> None:
        """Learn of a commit after a while, but in order."""
        if not self.faulty:
            self._apply(commit)
            return
        now = self.etcd.clock.monotonic()
        # A moment later than the one before: the loop may call what is due at the same time in any order.
        self.news_at = max(self.news_at + 1e-6, now + self.etcd.rng.uniform(0, self.etcd.weather.lag))
        # Two timers of one moment may fire in either order, so the order is kept here.
        self.on_the_way.append(commit)
        asyncio.get_running_loop().call_at(self.news_at, self._arrive)

    def _arrive(self) -> None:
        self._apply(self.on_the_way.popleft())

    def _apply(self, commit: Commit) -> None:
        for change in commit.changes:
            key = (type(change.obj), change.obj.id)
            self.cache.pop(key, None)
            if change.new is not None:
                self.cache[key] = change.new
        self.found.clear()
        self.revision = commit.revision
        for watcher in self.watchers:
            watcher.put_nowait(commit)
        self.news.set()
        self.news = asyncio.Event()

    def view(self) -> View:
        return self._tx()

    def _tx(self) -> _Tx:
        return _Tx(self.cache, self.found, self.revision, self.etcd.clock.now())

    @asynccontextmanager
    async def view_and_watch(self) -> AsyncIterator[tuple[View, AsyncIterator[Commit]]]:
        queue: asyncio.Queue[Commit] = asyncio.Queue()

        async def commits() -> AsyncIterator[Commit]:
            while True:
                yield await queue.get()

        self.watchers.append(queue)
        try:
            yield self.view(), commits()
        finally:
            self.watchers.remove(queue)

    async def transact(self, fn: Callable[[Tx], R], fence: Fence | None = None) -> R:
        while True:
            tx = self._tx()
            result = fn(tx)
            if not tx.writes:
                return result
            try:
                revision = await self._send(tx, fence)
            except Conflict:
                await self._reach(self.etcd.revision)
                continue
            await self._reach(revision)
            return result

    async def _send(self, tx: _Tx, fence: Fence | None) -> int:
        rng, weather = self.etcd.rng, self.etcd.weather
        if not self.faulty:
            return self.etcd.commit(tx.expected, tx.writes, fence)
        await self.etcd.clock.sleep(rng.uniform(0, weather.latency))
        if rng.random() < weather.loss:
            if rng.random() < 0.5:
                delay = rng.uniform(0, weather.straggling)
                asyncio.get_running_loop().call_later(delay, self._straggle, tx, fence)
            raise Unavailable("no quorum: the request timed out")
        revision = self.etcd.commit(tx.expected, tx.writes, fence)
        if rng.random() < weather.loss:
            raise Unavailable("no quorum: the answer was lost")
        return revision

    def _straggle(self, tx: _Tx, fence: Fence | None) -> None:
        try:
            self.etcd.commit(tx.expected, tx.writes, fence)
        except (Conflict, LeadershipLost):
            return  # too late to do harm

    async def _reach(self, revision: int) -> None:
        while self.revision < revision:
            await self.news.wait()

    async def batch(self, items: Iterable[I], fn: Callable[[Tx, I], None], fence: Fence | None = None) -> None:
        for item in items:
            await self.transact(partial(_flipped, fn, item), fence)

    def fenced(self, fence: Fence) -> interface.Store:
        return _Fenced(self, fence)


@dataclass(eq=False)
class _Fenced:
    """The same store, in the hands of a leader."""

    inner: Store
    fence: Fence

    def view(self) -> View:
        return self.inner.view()

    def view_and_watch(self) -> AbstractAsyncContextManager[tuple[View, AsyncIterator[Commit]]]:
        return self.inner.view_and_watch()

    async def transact(self, fn: Callable[[Tx], R]) -> R:
        return await self.inner.transact(fn, self.fence)

    async def batch(self, items: Iterable[I], fn: Callable[[Tx, I], None]) -> None:
        await self.inner.batch(items, fn, self.fence)

    def fenced(self, fence: Fence) -> interface.Store:
        return _Fenced(self.inner, fence)


def _flipped(fn: Callable[[Tx, I], None], item: I, tx: Tx) -> None:
    fn(tx, item)
