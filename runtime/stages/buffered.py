"""Lines on their way to a log that may be slow: a thread of its own writes them, the program never waits.

At most `room` bytes of lines wait.  What comes when it is full is lost, and the log is told how many lines that were.
"""

import threading
import time
from collections import deque

from swarmd.runtime.stages.jsonlog import Lines, Sink

_PATIENCE = 1.0  # s that a flush waits


class Buffered(Lines):
    """last_patience: s that the end waits for what is still to be written."""

    def __init__(self, sink: Sink, room: int, last_patience: float = 5.0) -> None:
        super().__init__()
        self._sink, self._room, self._last_patience = sink, room, last_patience
        self._queue: deque[tuple[str, bytes, int]] = deque()
        self._waiting = 0  # bytes, also of those being written
        self._lost = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def append(self, stream: str, lines: bytes, at: int) -> None:
        with self._changed:
            if self._waiting and self._waiting + len(lines) > self._room:
                self._lost += lines.count(b"\n") or 1
                return
            self._queue.append((stream, lines, at))
            self._waiting += len(lines)
            self._changed.notify_all()

    def flush(self, stream: str) -> None:
        super().flush(stream)
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, _PATIENCE)

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(self._last_patience)
        if not self._thread.is_alive():
            self._sink.close()

    def _run(self) -> None:
        while taken := self._take():
            for stream, lines, at in taken:
                self._sink.append(stream, lines, at)
            with self._changed:
                self._waiting -= sum(len(lines) for _, lines, _ in taken)
                lost, self._lost = self._lost, 0
                self._changed.notify_all()
            if lost:
                said = f"swarmd: {lost} lines lost: the log is slower than they came, and max-buffer-size was full\n"
                self._sink.append("stderr", said.encode(), time.time_ns())

    def _take(self) -> list[tuple[str, bytes, int]]:
        """All that waits, once there is something; nothing when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            taken = list(self._queue)
            self._queue.clear()
            return taken
