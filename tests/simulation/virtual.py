"""An event loop whose time is a number: sleeping costs nothing, and the same program does the same again.

When nothing is ready the loop would wait for its next timer; here the selector moves the clock there instead.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")

EPOCH = 1_700_000_000 * 1_000_000_000


class _Selector(selectors.SelectSelector):
    """Never waits: time that would pass here has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits for another: nothing will ever happen again")
        self.elapsed += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        # A timer is due when it is within this of now; without it rounding would let the loop spin.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.elapsed


class VirtualClock:
    """Satisfies Clock, inside a virtual loop."""

    def now(self) -> int:
        return EPOCH + round(self.monotonic() * 1e9)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(main: Coroutine[Any, Any, R]) -> R:
    """Run until main is done. What a callback raises is raised here too, at the end."""
    raised: list[BaseException] = []

    def keep(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        raised.append(context.get("exception") or RuntimeError(context["message"]))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.get_loop().set_exception_handler(keep)
        result = runner.run(main)
    if raised:
        raise raised[0]
    return result
