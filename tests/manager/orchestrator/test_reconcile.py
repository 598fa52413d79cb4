import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from swarmd.manager.orchestrator.reconcile import Agenda, Loop, fitting
from swarmd.manager.store.interface import Commit, R, Tx, View
from swarmd.proto.errors import Unavailable
from swarmd.proto.objects_pb2 import Task
from tests.manager.orchestrator.world import World
from tests.simulation import virtual

SECOND = 1_000_000_000


def test_keys_come_once_and_in_order() -> None:
    async def taken() -> list[str]:
        agenda = Agenda(virtual.VirtualClock())
        agenda.add(["b", "a"])
        agenda.add(["b", "c"])
        return await agenda.take()

    assert virtual.run(taken()) == ["a", "b", "c"]


def test_a_key_comes_when_it_is_due() -> None:
    async def taken() -> tuple[list[str], float]:
        clock = virtual.VirtualClock()
        agenda = Agenda(clock)
        agenda.schedule("late", clock.now() + 90 * SECOND)
        agenda.schedule("soon", clock.now() + 30 * SECOND)
        agenda.schedule("never", clock.now() + SECOND)
        agenda.schedule("never", None)
        return await agenda.take(), clock.monotonic()

    assert virtual.run(taken()) == (["soon"], 30.0)


def test_a_new_key_does_not_wait_for_one_that_is_due_later() -> None:
    async def taken() -> tuple[list[str], float]:
        clock = virtual.VirtualClock()
        agenda = Agenda(clock)
        agenda.schedule("late", clock.now() + 90 * SECOND)
        asyncio.get_running_loop().call_later(2, agenda.add, ["now"])
        return await agenda.take(), clock.monotonic()

    assert virtual.run(taken()) == (["now"], 2.0)


class Flaky:
    """A store without quorum for its first writes."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def view(self) -> View:
        return World()

    @asynccontextmanager
    async def view_and_watch(self) -> AsyncIterator[tuple[View, AsyncIterator[Commit]]]:
        async def commits() -> AsyncIterator[Commit]:
            await asyncio.Event().wait()
            yield Commit(0, ())

        yield World(), commits()

    async def transact(self, fn: Callable[[Tx], R]) -> R:
        self.failures -= 1
        if self.failures >= 0:
            raise Unavailable("no quorum")
        return fn(World())


class Counting(Loop):
    settled = 0

    def keys(self, view: View) -> Iterable[str]:
        return ["one"]

    def touched(self, view: View, commit: Commit) -> Iterable[str]:
        return []

    def settle(self, key: str, tx: Tx) -> int | None:
        self.settled += 1
        return None


def test_a_lost_quorum_is_waited_out() -> None:
    async def settled() -> tuple[int, int]:
        loop = Counting(Flaky(3), virtual.VirtualClock(), str)  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as group:
            running = group.create_task(loop.run())
            await asyncio.sleep(2.5)
            before = loop.settled
            await asyncio.sleep(1.0)
            running.cancel()
        return before, loop.settled

    assert virtual.run(settled()) == (0, 1)


def test_a_transaction_holds_so_many_writes_and_bytes() -> None:
    small, large = Task(id="small"), Task(id="x" * (600 << 10))
    assert fitting([[small]] * 30) == 30
    assert fitting([[small, small]] * 80) == 50
    assert fitting([[large]] * 3) == 1
    assert fitting([[small] * 200]) == 1
    assert fitting([]) == 0
