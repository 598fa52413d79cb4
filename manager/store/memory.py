"""The store without etcd: for tests and simulations.  Deterministic: no real time, no randomness.

Several stores over one backend are several managers: each has a cache of its own, which hears of the others' commits
one turn of the event loop later, so that conflicts, lost fences and changes of leader happen as on etcd.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from swarmd.manager.store.cache import Cache
from swarmd.manager.store.cached import CachedStore
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import AnyObject, Fence, LeadershipLost
from swarmd.manager.store.tables import Key, Kind, Tables, version_of
from swarmd.manager.store.transaction import Limits, Transaction
from swarmd.proto.clock import Clock

Writes = list[tuple[Key, AnyObject | None]]


class MemoryBackend:
    """The cluster's state, and who stands for election."""

    def __init__(self) -> None:
        self.revision = 0
        self._objects = Tables()
        self._followers: list[_Follower] = []
        self._candidates: dict[str, tuple[str, Fence]] = {}  # by key, oldest first
        self._elected = asyncio.Event()

    # ------------------------------------------------------------ objects

    def follow(self, follower: "_Follower") -> Writes:
        """Hear every commit from now on; returns what there is."""
        self._followers.append(follower)
        return [(key, self._objects.lookup(key)) for key in self._objects.keys()]  # noqa: SIM118 (not a dict)

    def commit(self, tx: Transaction, fresh_names: set[tuple[Kind, str]], fence: Fence | None) -> bool:
        if fence is not None and not self.holds(fence):
            raise LeadershipLost("another manager leads")
        if any(version_of(self._objects.lookup(key)) != version for key, version in tx.expected.items()):
            return False
        if any(self._objects.find(kind, name=name) for kind, name in fresh_names):
            return False
        self.revision += 1
        writes = [(key, self._store(key, new)) for key, new in tx.writes.items()]
        for follower in self._followers:
            follower.hear(self.revision, writes)
        return True

    def _store(self, key: Key, new: AnyObject | None) -> AnyObject | None:
        if new is None:
            self._objects.discard(key)
            return None
        stored = cast("AnyObject", edited(cast("Any", new)))
        stored.version.index = self.revision
        self._objects.put(stored)
        return stored

    # ------------------------------------------------------------ election

    def stand(self, candidate: str) -> Fence:
        self.revision += 1
        fence = Fence(f"election/{self.revision}", self.revision)
        self._candidates[fence.key] = (candidate, fence)
        return fence

    def withdraw(self, fence: Fence) -> None:
        """Take a key away, as when its lease ends: the leadership it stands for is lost."""
        if self._candidates.pop(fence.key, None) is not None:
            self._elected.set()
            self._elected = asyncio.Event()

    def holds(self, fence: Fence) -> bool:
        return fence.key in self._candidates

    def leading(self) -> tuple[str, Fence] | None:
        return next(iter(self._candidates.values()), None)

    async def changed(self) -> None:
        """Return when a key has been taken away."""
        await self._elected.wait()


class _Follower:
    """A cache that hears of commits in order, and of others' a little later: satisfies Committer."""

    def __init__(self, backend: MemoryBackend) -> None:
        self.cache = Cache()
        self._backend = backend
        self._unheard: list[tuple[int, Writes]] = []
        self.cache.apply(backend.revision, backend.follow(self))

    def hear(self, revision: int, writes: Writes) -> None:
        self._unheard.append((revision, writes))
        asyncio.get_running_loop().call_soon(self.catch_up)

    def catch_up(self) -> None:
        unheard, self._unheard = self._unheard, []
        for revision, writes in unheard:
            self.cache.apply(revision, writes)

    async def commit(self, tx: Transaction, fence: Fence | None) -> bool:
        fresh_names = {claim for claim, taker in tx.name_claims().items() if taker is not None and tx.is_free(*claim)}
        await asyncio.sleep(0)  # as on etcd, another may get in first
        committed = self._backend.commit(tx, fresh_names, fence)
        self.catch_up()
        return committed


class MemoryStore(CachedStore):
    """Satisfies Store."""

    def __init__(self, clock: Clock, backend: MemoryBackend | None = None, limits: Limits | None = None) -> None:
        follower = _Follower(backend or MemoryBackend())
        super().__init__(follower.cache, follower, clock, limits or Limits())


class MemoryElection:
    """Satisfies Election."""

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend

    @asynccontextmanager
    async def campaign(self, candidate: str) -> AsyncIterator["MemoryLeadership"]:
        fence = self._backend.stand(candidate)
        try:
            while self._backend.leading() != (candidate, fence):
                await self._backend.changed()
            yield MemoryLeadership(self._backend, fence)
        finally:
            self._backend.withdraw(fence)

    async def leader(self) -> str | None:
        leading = self._backend.leading()
        return leading[0] if leading else None


class MemoryLeadership:
    """Satisfies Leadership."""

    def __init__(self, backend: MemoryBackend, fence: Fence) -> None:
        self._backend = backend
        self.fence = fence

    async def lost(self) -> None:
        while self._backend.holds(self.fence):
            await self._backend.changed()
