"""Hands every event to everyone who listens, in order, and keeps the latest.

A listener that never reads loses the oldest.  The latest are in a file too, so that they outlive the daemon; it is not
synced, so a crash of the host may lose some.
"""

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from swarmd.runtime.model import Event

_KEPT = 4096
_HISTORY = 1000


class Events:
    def __init__(self, file: Path) -> None:
        """file: where the latest are kept, a line of JSON each; its directory is there."""
        self._listeners: weakref.WeakSet[asyncio.Queue[Event]] = weakref.WeakSet()  # gone with who reads them
        self._history: deque[Event] = deque(maxlen=_HISTORY)
        self._file = file
        self._lines = 0
        if file.exists():
            for line in file.read_bytes().splitlines():
                with contextlib.suppress(msgspec.DecodeError):  # half a line: the host crashed
                    self._history.append(msgspec.json.decode(line, type=Event))
        self._rewrite()

    def publish(self, event: Event) -> None:
        self._history.append(event)
        self._keep(event)
        for queue in list(self._listeners):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def listen(self, since: int = 0) -> AsyncIterator[Event]:
        """Yield events from this call on, those before the first read too; since (ns): also those kept."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_KEPT)
        if since:
            for event in self._history:
                if event.at >= since:
                    queue.put_nowait(event)
        self._listeners.add(queue)
        return self._read(queue)

    async def _read(self, queue: asyncio.Queue[Event]) -> AsyncIterator[Event]:
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)  # at once

    def _keep(self, event: Event) -> None:
        with contextlib.suppress(OSError):  # a full disk must not stop a container
            with self._file.open("ab") as file:
                file.write(msgspec.json.encode(event) + b"\n")
            self._lines += 1
            if self._lines > 2 * _HISTORY:
                self._rewrite()

    def _rewrite(self) -> None:
        with contextlib.suppress(OSError):
            self._file.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in self._history))
        self._lines = len(self._history)
