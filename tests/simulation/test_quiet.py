"""A loaded cluster in which nothing is wrong: messages are late and overtake one another, and that is all.

For an hour no node may be taken for lost and no task be replaced: whatever happens then is a false alarm.  Who is here
is judged by the real `Attendance` and `LivenessLoop`; the managers are the first nodes.
"""

import asyncio
from dataclasses import dataclass
from functools import partial

from swarmd.manager.dispatcher.attendance import Attendance
from swarmd.manager.dispatcher.liveness import LivenessLoop
from swarmd.manager.dispatcher.session import AgentSession
from swarmd.manager.store.interface import Changed, Store, Tx
from swarmd.proto.objects_pb2 import (
    NODE_STATE_READY,
    REACHABILITY_REACHABLE,
    Node,
    NodeDescription,
    Service,
    Task,
    TaskStatus,
)
from swarmd.proto.task_states import RUNNING
from tests.manager.orchestrator.world import node, service
from tests.simulation import virtual
from tests.simulation.agent import Agent
from tests.simulation.cluster import Cluster
from tests.simulation.invariants import Violation
from tests.simulation.manager import Manager

NODES = 16
TASKS = 200
HOUR = 3600.0
SETTLING = 60.0  # s, for all tasks to run
LATENCY = 0.5  # s, at most, each way; each message has its own
PERIOD = 1.0  # s, of heartbeats


@dataclass(eq=False)
class AttentiveManager(Manager):
    """Judges nodes as the real one does."""

    def __post_init__(self) -> None:
        self.attendance = Attendance(self.store, self.clock, self.name)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.attendance.run())
            group.create_task(super().run())

    async def _watch_nodes(self, store: Store) -> None:
        await LivenessLoop(store, self.clock).run()

    async def hear(self, node_id: str) -> None:
        if session := self.attendance.sessions.get(node_id):
            session.heard = self.clock.monotonic()
            return
        session = AgentSession(node_id, self.new_id(), PERIOD, self.clock.monotonic())
        await self.attendance.arrive(session, NodeDescription(hostname=node_id))


class Quiet(Cluster):
    def __init__(self, seed: int, group: asyncio.TaskGroup) -> None:
        super().__init__(seed, group, [], nodes=NODES)
        self.network.loss = self.weather.loss = 0.0
        self.network.latency = LATENCY
        self.has_settled = False

    def _manager(self, name: str) -> Manager:
        node_id = name.replace("manager", "node")
        return AttentiveManager(node_id, self.etcd.store(), self.etcd, self.clock, self._new_id, self.heard)

    def _agent(self, name: str) -> Agent:
        return Agent(name, self.rng, self.clock, self._on_start)

    async def run(self) -> None:
        for name in self.agents:
            made = node(name)
            if name in (manager.name for manager in self.managers):
                made.manager_status.addr = f"{name}:2378"
                made.manager_status.reachability = REACHABILITY_REACHABLE
            await self.store.transact(partial(_put, made))
        await self.store.transact(partial(_put, service(TASKS)))
        tasks = [self.group.create_task(self._watch())]
        for manager in self.managers:
            self._start(manager)
        tasks += [self.group.create_task(self._session(agent)) for agent in self.agents.values()]
        await self.clock.sleep(SETTLING)
        counted_on = {found.session_manager for found in self.store.view().find(Node)}
        assert counted_on == {manager.name for manager in self.managers}, f"nodes have sessions with {counted_on}"
        running = sum(task.status.state == RUNNING for task in self.store.view().find(Task))
        assert running == TASKS, f"only {running} of {TASKS} tasks run"
        self.has_settled = True
        await self.clock.sleep(HOUR)
        for task in (*tasks, *self.running.values()):
            task.cancel()

    def _serve(self, manager: Manager, agent: Agent, sent: dict[str, TaskStatus]) -> None:
        assert isinstance(manager, AttentiveManager)
        self.group.create_task(manager.hear(agent.name))
        super()._serve(manager, agent, sent)

    async def _watch(self) -> None:
        async with self.store.view_and_watch() as (_, commits):
            async for commit in commits:
                for change in commit.changes:
                    self._check(change)

    def _check(self, change: Changed) -> None:
        if isinstance(change.new, Node) and change.new.status.state != NODE_STATE_READY:
            raise Violation(f"{self.clock.monotonic():.1f} s: {change.new.id} is {change.new.status}")
        if self.has_settled and isinstance(change.obj, Task):
            raise Violation(f"{self.clock.monotonic():.1f} s: task {change.old} becomes {change.new}")


def _put(obj: Node | Service, tx: Tx) -> None:
    tx.put(obj)


def test_an_hour_without_a_fault_changes_nothing() -> None:
    async def hour() -> None:
        async with asyncio.TaskGroup() as group:
            await Quiet(1, group).run()

    virtual.run(hour())
