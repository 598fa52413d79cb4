"""The local copy of the cluster's objects, as of one revision, and those who follow it.

**Invariant:** changes come in revision order and from one place (the watch), so the copy is always a state that
the cluster really had.  What reads and writes it is in `cached.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from swarmd.manager.store.interface import AnyObject, Changed, Commit, View
from swarmd.manager.store.tables import Key, Tables, key_of, version_of
from swarmd.manager.store.watch import Subscriber


class Cache(Tables):
    """Satisfies View."""

    def __init__(self) -> None:
        super().__init__()
        self.revision = 0
        self._subscribers: list[Subscriber] = []
        self._advanced = asyncio.Event()

    def apply(self, revision: int, writes: Iterable[tuple[Key, AnyObject | None]]) -> None:
        """Take over the changes up to a revision; what is already known is passed over."""
        if revision <= self.revision:
            return
        self._publish(revision, [(key, new) for key, new in writes], resynced=False)

    def replace(self, revision: int, objects: Iterable[AnyObject]) -> None:
        """Take over a whole listing; subscribers get the difference."""
        listed = {key_of(obj): obj for obj in objects}
        gone: list[tuple[Key, AnyObject | None]] = [(key, None) for key in self.keys() if key not in listed]
        new = [(key, obj) for key, obj in listed.items() if version_of(self.lookup(key)) != version_of(obj)]
        self._publish(revision, [*gone, *new], resynced=True)

    def _publish(self, revision: int, writes: list[tuple[Key, AnyObject | None]], *, resynced: bool) -> None:
        changes = []
        for key, new in writes:
            old = self.discard(key) if new is None else self.put(new)
            if old is not None or new is not None:
                changes.append(Changed(old, new))
        self.revision = revision
        commit = Commit(revision, tuple(changes), resynced)
        for subscriber in self._subscribers:
            subscriber.publish(commit)
        self._advanced.set()
        self._advanced = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once condition() holds; it is asked again after each change."""
        while not condition():
            await self._advanced.wait()

    @asynccontextmanager
    async def view_and_watch(self) -> AsyncIterator[tuple[View, AsyncIterator[Commit]]]:
        subscriber = Subscriber()
        self._subscribers.append(subscriber)
        try:
            yield self, subscriber.commits()
        finally:
            self._subscribers.remove(subscriber)
