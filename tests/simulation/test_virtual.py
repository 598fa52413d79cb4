import asyncio

import pytest

from tests.simulation import virtual


def test_a_day_passes_at_once() -> None:
    async def day() -> int:
        clock = virtual.VirtualClock()
        before = clock.now()
        await clock.sleep(24 * 3600)
        return clock.now() - before

    assert virtual.run(day()) == 24 * 3600 * 10**9


def test_timers_fire_in_order() -> None:
    async def order() -> list[float]:
        seen: list[float] = []

        async def after(seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append(seconds)

        async with asyncio.TaskGroup() as group:
            for seconds in (3, 0.1, 2, 0.25):
                group.create_task(after(seconds))
        return seen

    assert virtual.run(order()) == [0.1, 0.25, 2, 3]


def test_a_deadlock_is_named() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="every task waits for another"):
        virtual.run(stuck())


def test_what_a_callback_raises_is_not_lost() -> None:
    async def broken() -> None:
        asyncio.get_running_loop().call_later(1, lambda: 1 // 0)
        await asyncio.sleep(2)

    with pytest.raises(ZeroDivisionError):
        virtual.run(broken())
