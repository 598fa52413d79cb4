"""Members follow roles: who is taken out of etcd, and who is not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from swarmd.manager.departures import StoreMember
from swarmd.manager.roles import Roles, may_leave
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import AnyObject, LeadershipLost
from swarmd.proto.clock import SystemClock
from swarmd.proto.objects_pb2 import NODE_ROLE_WORKER, REACHABILITY_REACHABLE, REACHABILITY_UNREACHABLE, Node
from tests.manager.records import Records, node


class Members:
    def __init__(self, *members: StoreMember) -> None:
        self.listed = list(members)
        self.removed = asyncio.Event()

    async def present(self) -> Sequence[StoreMember]:
        return list(self.listed)

    def left(self) -> list[int]:
        return [member.id for member in self.listed]

    async def remove(self, member_id: int) -> None:
        self.listed = [member for member in self.listed if member.id != member_id]
        self.removed.set()


class Watched(Records):
    """A store that tells of its writes."""

    def __init__(self, *objects: Node) -> None:
        self.written = asyncio.Event()
        super().__init__(*objects)

    def put(self, obj: AnyObject) -> None:
        super().put(obj)
        self.written.set()

    @asynccontextmanager
    async def view_and_watch(self) -> AsyncIterator[tuple[Any, AsyncIterator[Any]]]:
        async def nothing() -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield

        yield self, nothing()


async def everybody(addresses: list[str]) -> list[bool]:
    return [True] * len(addresses)


async def run_until(records: Watched, roles: Roles, done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(roles.run())
        while not done():
            records.written.clear()
            await records.written.wait()
        task.cancel()


def made(down: frozenset[str] = frozenset()) -> tuple[Watched, Members, Roles]:
    records = Watched(*(node(f"n{n}", manager=True, member=n) for n in (1, 2, 3)))
    members = Members(*(StoreMember(n, f"n{n}", ("10.0.0.1",)) for n in (1, 2, 3)))

    async def probe(addresses: list[str]) -> list[bool]:
        return [address.removesuffix(":2378") not in down for address in addresses]

    return records, members, Roles(records, SystemClock(), "n1", members, probe)  # type: ignore[arg-type]


def demote(records: Records, id: str) -> None:
    found = records.get(Node, id)
    assert found is not None
    demoted = edited(found)
    demoted.spec.role = NODE_ROLE_WORKER
    records.put(demoted)


def status(records: Records, id: str) -> tuple[bool, int]:
    found = records.get(Node, id)
    assert found is not None
    return found.manager_status.leader, found.manager_status.reachability


async def test_leader_and_reachability_are_kept_true() -> None:
    records, _, roles = made(down=frozenset({"n3"}))
    await run_until(records, roles, lambda: status(records, "n3") == (False, REACHABILITY_UNREACHABLE))
    assert status(records, "n1") == (True, REACHABILITY_REACHABLE)
    assert status(records, "n2") == (False, REACHABILITY_REACHABLE)


async def test_a_demoted_manager_s_member_goes_and_the_node_says_so() -> None:
    records, members, roles = made()
    demote(records, "n2")

    def gone() -> bool:
        found = records.get(Node, "n2")
        return found is not None and not found.etcd_member_id and not found.HasField("manager_status")

    await run_until(records, roles, gone)
    assert members.left() == [1, 3]


async def test_a_demoted_leader_leaves_its_own_member_to_the_next_leader() -> None:
    records, members, roles = made()
    demote(records, "n1")
    with pytest.RaisesGroup(LeadershipLost, flatten_subgroups=True):
        await run_until(records, roles, lambda: False)
    assert members.left() == [1, 2, 3]


async def test_a_demoted_leader_leads_on_while_no_other_manager_answers() -> None:
    records, members, roles = made(down=frozenset({"n2", "n3"}))
    demote(records, "n1")
    await run_until(records, roles, lambda: status(records, "n3") == (False, REACHABILITY_UNREACHABLE))
    assert members.left() == [1, 2, 3]


class Hasty(SystemClock):
    """Each look at it is minutes after the one before."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 100.0
        return self._now


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.manager.roles.PERIOD", 0.01)


@pytest.mark.usefixtures("quick")
async def test_a_manager_whose_member_is_gone_becomes_a_worker() -> None:
    records, members, _ = made()
    await members.remove(2)
    roles = Roles(records, Hasty(), "n1", members, everybody)  # type: ignore[arg-type]

    def demoted() -> bool:
        found = records.the(Node, "n2")
        return found.spec.role == NODE_ROLE_WORKER and not found.etcd_member_id

    await run_until(records, roles, demoted)
    assert members.left() == [1, 3]


@pytest.mark.usefixtures("quick")
async def test_a_learner_without_a_manager_is_taken_out() -> None:
    records, members, _ = made()
    members.listed.append(StoreMember(4, "", ("10.0.0.4",)))
    roles = Roles(records, Hasty(), "n1", members, everybody)  # type: ignore[arg-type]
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(roles.run())
        await members.removed.wait()
        task.cancel()
    assert members.left() == [1, 2, 3]


@pytest.mark.parametrize(
    ("staying", "healthy", "may"),
    [
        ({1, 2, 3}, {1, 2, 3}, True),
        ({1, 2, 3}, {1, 3}, True),
        ({1, 2, 3}, {2, 3}, False),
        ({1, 2}, {2}, False),
        ({2}, {2}, False),
    ],
)
def test_a_member_leaves_only_while_a_majority_of_the_others_answers(
    staying: set[int], healthy: set[int], may: bool
) -> None:
    assert may_leave(2, staying, healthy) is may
