"""One reader of a cache's changes.

A slow reader's changes are merged per object, so what waits is bounded by the state, and nothing is lost.
"""

import asyncio
from collections.abc import AsyncIterator

from swarmd.manager.store.interface import Changed, Commit
from swarmd.manager.store.tables import Key, key_of


class Subscriber:
    def __init__(self) -> None:
        self._waiting: dict[Key, Changed] = {}
        self._revision = 0
        self._resynced = False
        self._wake = asyncio.Event()

    def publish(self, commit: Commit) -> None:
        self._revision = commit.revision
        self._resynced |= commit.resynced
        for change in commit.changes:
            key = key_of(change.obj)
            earlier = self._waiting.pop(key, None)
            merged = Changed(earlier.old, change.new) if earlier else change
            if merged.old is not None or merged.new is not None:  # else: came and went before anybody looked
                self._waiting[key] = merged
        if self._waiting:
            self._wake.set()

    async def commits(self) -> AsyncIterator[Commit]:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._waiting:
                continue
            commit = Commit(self._revision, tuple(self._waiting.values()), self._resynced)
            self._waiting, self._resynced = {}, False
            yield commit
