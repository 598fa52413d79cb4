"""Exponential back-off with full jitter.

>>> delays = Backoff(base=0.1, cap=5.0)
>>> 0 <= delays.next() <= 0.1
True
"""

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    base: float  # seconds, upper bound of the first delay
    cap: float  # seconds, upper bound of any delay
    rng: random.Random = field(default_factory=random.Random)
    _bound: float = field(init=False, default=0.0)

    def next(self) -> float:
        """Return the next delay in seconds."""
        self._bound = min(self.cap, self._bound * 2 or self.base)
        return self.rng.uniform(self._bound / 2, self._bound)

    def reset(self) -> None:
        self._bound = 0.0
