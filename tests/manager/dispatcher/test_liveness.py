"""What the leader holds of nodes whose manager is gone; and that load alone never makes it call one down."""

import asyncio
import random
from collections.abc import Coroutine
from functools import partial

import pytest

from swarmd.manager.dispatcher import LivenessLoop
from swarmd.manager.dispatcher.attendance import Attendance
from swarmd.manager.dispatcher.liveness import ELSEWHERE, OWN, gone_since, lost
from swarmd.manager.dispatcher.session import AgentSession
from swarmd.manager.store.memory import MemoryStore
from swarmd.proto import objects_pb2 as pb
from tests.manager.dispatcher.agents import change, node, put, state_of
from tests.simulation.virtual import VirtualClock, run

HOUR = 3600.0


def held(id: str, by: str, state: int = pb.NODE_STATE_READY, *, manager: str = "") -> pb.Node:
    """A node whose session manager `by` holds; manager: "up" or "away" if it is one itself."""
    made = node(id, manager_addr=f"{id}:2378" if manager else "")
    if manager == "away":
        made.manager_status.reachability = pb.REACHABILITY_UNREACHABLE
    made.session_manager = by
    made.status.state = state  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("nodes", "after", "expected"),
    [
        ([held("m", "m", manager="up"), held("a", "m")], 100.0, []),
        ([held("m", "m", manager="away"), held("a", "m")], OWN - 0.1, []),
        ([held("m", "m", manager="away"), held("a", "m")], OWN, ["m"]),
        ([held("m", "m", manager="away"), held("a", "m")], ELSEWHERE, ["m", "a"]),
        ([held("m", "n", manager="away"), held("n", "n", manager="up")], 100.0, []),  # heard by another manager
        ([held("a", "gone")], ELSEWHERE - 0.1, []),
        ([held("a", "gone")], ELSEWHERE, ["a"]),
        ([held("m", "n"), held("a", "m")], ELSEWHERE, ["m", "a"]),  # demoted; and n was removed
        ([held("m", "m")], ELSEWHERE - 0.1, []),  # demoted: its agent looks for another manager
        ([held("a", "gone", pb.NODE_STATE_DISCONNECTED)], ELSEWHERE, ["a"]),
        ([held("a", "gone", pb.NODE_STATE_DOWN)], 100.0, []),
        ([held("a", "", pb.NODE_STATE_UNKNOWN)], 100.0, []),  # never had a session
    ],
)
def test_judgement(nodes: list[pb.Node], after: float, expected: list[str]) -> None:
    by_id = {each.id: each for each in nodes}
    gone = gone_since(by_id, {}, 10.0)
    gone = gone_since(by_id, gone, 10.0 + after)
    assert [each.id for each in lost(by_id, gone, 10.0 + after)] == expected


def test_absence_starts_anew_once_the_manager_was_back() -> None:
    away, back = held("m", "m", manager="away"), held("m", "m", manager="up")
    gone = gone_since({"m": away}, {}, 0.0)
    assert gone_since({"m": back}, gone, 2.0) == {}


class Stalling(VirtualClock):
    """The clock of a process that now and then hangs: time passes in which it does nothing."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._hung = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._hung

    async def hang(self) -> None:
        while True:
            await self.sleep(self.random.uniform(0.1, 3.0))
            self._hung += self.random.uniform(0.0, 1.5)


def test_an_hour_of_stalls_calls_no_node_down() -> None:
    """The leader's own probes fail while it hangs: the manager seems gone for a while, again and again."""

    async def hour() -> int:
        clock = Stalling(1)
        store = MemoryStore(clock)
        await put(store, held("m", "m", manager="up"), held("a", "m"))

        async def flap() -> None:
            while clock.monotonic() < HOUR:
                for state in (pb.REACHABILITY_UNREACHABLE, pb.REACHABILITY_REACHABLE):
                    await change(store, pb.Node, "m", partial(_seen, state))
                    await clock.sleep(clock.random.uniform(0.7, 2.0))
                assert state_of(store, "m") == pb.NODE_STATE_READY

        await _beside(flap(), LivenessLoop(store, clock).run(), clock.hang())
        return state_of(store, "a")

    assert run(hour()) == pb.NODE_STATE_READY


def _seen(state: pb.Reachability.ValueType, manager: pb.Node) -> None:
    manager.manager_status.reachability = state


def test_an_hour_of_jitter_and_stalls_expires_no_session() -> None:
    """Heartbeats come early by up to a tenth, or late by a second, and the manager hangs for up to 1.5 s at a time."""

    async def hour() -> tuple[int, object]:
        clock = Stalling(3)
        store = MemoryStore(clock)
        await put(store, node("a"))
        attendance = Attendance(store, clock, "m")
        session = AgentSession("a", "s1", 1.0, clock.monotonic())
        await attendance.arrive(session, pb.NodeDescription(addr="10.0.0.1"))

        async def beat() -> None:
            while clock.monotonic() < HOUR:
                await clock.sleep(clock.random.uniform(0.9, 2.0))
                session.heard = clock.monotonic()

        await _beside(beat(), attendance.run(), clock.hang())
        return state_of(store, "a"), session.ended

    assert run(hour()) == (pb.NODE_STATE_READY, None)


async def _beside(main: Coroutine[None, None, None], *background: Coroutine[None, None, None]) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in background]
        await main
        for task in tasks:
            task.cancel()
