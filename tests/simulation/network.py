"""The network between simulated hosts: messages are late, lost and reordered; hosts are cut off and come back."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Network:
    rng: random.Random
    loss: float = 0.1
    latency: float = 0.2  # seconds, at most; each message has its own, and so they overtake one another
    cut: set[str] = field(default_factory=set)

    def reaches(self, source: str, target: str) -> bool:
        return source not in self.cut and target not in self.cut

    def send(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        """Call `deliver` some time later, if the message arrives at all."""
        if self.rng.random() < self.loss:
            return
        loop = asyncio.get_running_loop()
        loop.call_later(self.rng.uniform(0.001, self.latency), self._arrive, source, target, deliver)

    def _arrive(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        if self.reaches(source, target):
            deliver()
