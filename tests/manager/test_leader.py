"""Leadership is a scope: what ends it, and that all parts end with it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from swarmd.manager.leader import campaign
from swarmd.manager.store.interface import Fence, LeadershipLost
from swarmd.proto.errors import Unavailable


class Reign:
    fence = Fence("leader", 1)

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def lost(self) -> None:
        await self.over.wait()


class Polls:
    """An election that every candidate wins."""

    def __init__(self) -> None:
        self.reigns: asyncio.Queue[Reign] = asyncio.Queue()

    @asynccontextmanager
    async def campaign(self, candidate: str) -> AsyncIterator[Reign]:
        reign = Reign()
        self.reigns.put_nowait(reign)
        yield reign

    async def leader(self) -> str | None:
        return None


class FencedStore:
    def fenced(self, fence: Fence) -> "FencedStore":
        return self


class Clock:
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Part:
    def __init__(self, do: Callable[[], None]) -> None:
        self.do = do
        self.started, self.ended = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        self.started.set()
        try:
            self.do()
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@pytest.mark.parametrize("error", [LeadershipLost("x"), Unavailable("x"), ZeroDivisionError("a defect")])
async def test_whatever_ends_a_part_ends_the_reign_and_another_is_sought(error: Exception) -> None:
    polls, sound = Polls(), Part(lambda: None)
    failures = [error]

    def fail_once() -> None:
        if failures:
            raise failures.pop()

    parts: Any = [lambda store: sound, lambda store: Part(fail_once)]
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(campaign(FencedStore(), polls, "n1", Clock(), parts))  # type: ignore[arg-type]
        await polls.reigns.get()
        await polls.reigns.get()
        assert sound.ended.is_set()
        task.cancel()


async def test_a_lost_key_ends_all_parts() -> None:
    polls, part = Polls(), Part(lambda: None)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(campaign(FencedStore(), polls, "n1", Clock(), [lambda store: part]))  # type: ignore[arg-type]
        reign = await polls.reigns.get()
        await part.started.wait()
        reign.over.set()
        await part.ended.wait()
        task.cancel()
