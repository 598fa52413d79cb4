"""How many nodes may read here at once: few, so that each gets much, and hands it on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from swarmd.runtime.errors import Exhausted

MOST = 2  # nodes
SMALL = 64 * 1024  # bytes of content that needs no place: descriptions of images, mostly
LINGER = 1.0  # s that a node keeps its place between two pieces of content


class Places:
    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._reading: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def others(self, node_id: str) -> int:
        """How many other nodes have a place."""
        now = self._monotonic()
        self._until = {id: until for id, until in self._until.items() if until > now}
        return len(({*self._reading} | {*self._until}) - {node_id})

    @contextmanager
    def taken(self, node_id: str, sharing: int) -> Iterator[None]:
        """Exhausted if the node would share with more others than it wants to, or than there is room for."""
        others = self.others(node_id)
        if others >= min(max(sharing, 1), MOST):
            raise Exhausted(f"{others} nodes read here already")
        self._reading[node_id] = self._reading.get(node_id, 0) + 1
        try:
            yield
        finally:
            self._reading[node_id] -= 1
            if not self._reading[node_id]:
                del self._reading[node_id]
            self._until[node_id] = self._monotonic() + LINGER
