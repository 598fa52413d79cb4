"""Hands every event to everyone who listens, in order; a listener that never reads loses the oldest."""

import asyncio
from collections.abc import AsyncIterator

from swarmd.runtime.model import Event

_KEPT = 4096


class Events:
    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[Event]] = set()

    def publish(self, event: Event) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    def listen(self) -> AsyncIterator[Event]:
        """Yield events from this call on, even those before the first read."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_KEPT)
        self._listeners.add(queue)
        return self._read(queue)

    async def _read(self, queue: asyncio.Queue[Event]) -> AsyncIterator[Event]:
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)
