"""A store is a cache and a way to commit: the part that every implementation shares.

`commit` is what they differ in: `memory.py` compares and writes in this process, `etcd.py` in etcd.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

from swarmd.manager.store.cache import Cache
from swarmd.manager.store.interface import Commit, Fence, I, R, Tx, View
from swarmd.manager.store.transaction import Limits, Transaction
from swarmd.proto.backoff import Backoff
from swarmd.proto.clock import Clock, timestamp
from swarmd.proto.errors import Conflict, Invalid

MAX_RUNS = 50


class Committer(Protocol):
    async def commit(self, tx: Transaction, fence: Fence | None) -> bool:
        """Write all of tx if nothing it expects has changed, and return whether that was so.

        Either way the cache has caught up with the outcome.  Raises Unavailable, LeadershipLost.
        """
        ...


class CachedStore:
    """Satisfies Store."""

    def __init__(
        self, cache: Cache, committer: Committer, clock: Clock, limits: Limits, fence: Fence | None = None
    ) -> None:
        self._cache = cache
        self._committer = committer
        self._clock = clock
        self._limits = limits
        self._fence = fence

    def view(self) -> View:
        return self._cache

    def view_and_watch(self) -> AbstractAsyncContextManager[tuple[View, AsyncIterator[Commit]]]:
        return self._cache.view_and_watch()

    def fenced(self, fence: Fence) -> "CachedStore":
        return CachedStore(self._cache, self._committer, self._clock, self._limits, fence)

    async def transact(self, fn: Callable[[Tx], R]) -> R:
        backoff = Backoff(base=0.002, cap=0.1)
        for _ in range(MAX_RUNS):
            tx = Transaction(self._cache, timestamp(self._clock.now()))
            result = fn(tx)
            self._check_size(tx)
            if not tx.writes or await self._committer.commit(tx, self._fence):
                return result
            await self._clock.sleep(backoff.next())
        raise Conflict("others keep changing the same objects: try again in a moment")

    async def batch(self, items: Iterable[I], fn: Callable[[Tx, I], None]) -> None:
        waiting = list(items)
        while waiting:
            waiting = waiting[await self.transact(partial(self._fill, waiting, fn)) :]

    def _fill(self, items: list[I], fn: Callable[[Tx, I], None], tx: Tx) -> int:
        """Apply fn to as many items as fit, and return their number."""
        assert isinstance(tx, Transaction)
        for count, item in enumerate(items):
            own = tx.over()
            fn(own, item)
            if count and not tx.fits(self._limits, own):
                return count
            tx.join(own)
        return len(items)

    def _check_size(self, tx: Transaction) -> None:
        if tx.writes and not tx.fits(self._limits):
            raise Invalid(
                f"{len(tx.writes)} changes of {tx.size} bytes are more than one transaction can hold "
                f"({self._limits.operations} operations, {self._limits.size} bytes): make fewer at a time"
            )
