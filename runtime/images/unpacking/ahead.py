"""An iterator that a thread runs ahead of whoever takes from it: what releases the lock in both runs at once."""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_DEPTH = 8


class Ahead(Generic[T]):
    """Raises in its turn what the iterator raised. A daemon thread: a process that gives up half-way may just end."""

    def __init__(self, source: Iterator[T]) -> None:
        self._queue: queue.Queue[tuple[T] | BaseException] = queue.Queue(_DEPTH)
        threading.Thread(target=self._run, args=(source,), daemon=True).start()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, StopIteration):
                return
            if isinstance(item, BaseException):
                raise item
            yield item[0]

    def _run(self, source: Iterator[T]) -> None:
        try:
            for item in source:
                self._queue.put((item,))
            self._queue.put(StopIteration())
        except BaseException as error:  # whatever it is, the other thread has to hear of it
            self._queue.put(error)
