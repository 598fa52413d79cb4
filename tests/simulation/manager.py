"""A simulated manager: the real control loops while it leads, and a plain dispatcher for the agents that chose it.

`LEADER_PARTS` is what runs while it leads; `Placement` stands for the allocator and the scheduler.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from swarmd.manager.orchestrator.enforcer import ConstraintEnforcer
from swarmd.manager.orchestrator.reaper import Reaper
from swarmd.manager.orchestrator.reconcile import Loop
from swarmd.manager.orchestrator.replicated import ReplicatedOrchestrator
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Commit, LeadershipLost, Store, Tx, View
from swarmd.proto import task_states as states
from swarmd.proto.clock import Clock, timestamp
from swarmd.proto.errors import Unavailable
from swarmd.proto.objects_pb2 import (
    NODE_AVAILABILITY_ACTIVE,
    NODE_STATE_DOWN,
    NODE_STATE_READY,
    Node,
    Task,
    TaskStatus,
)
from tests.simulation.store import Etcd

MISSED = 3.5  # seconds without a heartbeat until a node is down


class Placement(Loop):
    """Puts every new task on the emptiest node."""

    def keys(self, view: View) -> Iterable[str]:
        return ["all"]

    def touched(self, view: View, commit: Commit) -> Iterable[str]:
        return ["all"] if any(isinstance(change.obj, Node) or _is_new(change.new) for change in commit.changes) else []

    def settle(self, key: str, tx: Tx) -> int | None:
        nodes = [node.id for node in tx.find(Node) if _takes_tasks(node)]
        for task in [task for task in tx.find(Task) if _is_new(task)] if nodes else []:
            placed = edited(task)
            placed.node_id = min(nodes, key=lambda node: (len(tx.find(Task, node_id=node)), node))
            placed.status.state = states.ASSIGNED
            tx.put(placed)
        return None


def _is_new(obj: object) -> bool:
    return isinstance(obj, Task) and not obj.node_id and obj.desired_state <= states.RUNNING


def _takes_tasks(node: Node) -> bool:
    return node.status.state == NODE_STATE_READY and node.spec.availability == NODE_AVAILABILITY_ACTIVE


LEADER_PARTS = (ReplicatedOrchestrator, ConstraintEnforcer, Reaper, Placement)


@dataclass(eq=False)
class Manager:
    name: str
    store: Store
    etcd: Etcd
    clock: Clock
    new_id: Callable[[], str]
    heard: dict[str, float]  # node -> when any manager last heard of it
    leads: bool = False

    async def run(self) -> None:
        """Serve agents, and lead whenever elected, until cancelled, which is a crash."""
        while True:
            async with self.etcd.campaign(self.name) as leadership:
                self.leads = True
                try:
                    await self._lead(self.store.fenced(leadership.fence), leadership.lost)
                except* LeadershipLost:
                    pass
                finally:
                    self.leads = False

    async def _lead(self, store: Store, lost: Callable[[], object]) -> None:
        async with asyncio.TaskGroup() as group:
            for part in LEADER_PARTS:
                group.create_task(part(store, self.clock, self.new_id).run())
            group.create_task(self._watch_nodes(store))
            await lost()  # type: ignore[misc]
            raise LeadershipLost("another manager leads")

    # ------------------------------------------------------------ nodes

    async def _watch_nodes(self, store: Store) -> None:
        since = self.clock.monotonic()  # a new leader gives every node the time to be heard
        while True:
            alive = {
                node.id: self.clock.monotonic() - max(self.heard.get(node.id, 0.0), since) < MISSED
                for node in store.view().find(Node)
            }
            for node_id in sorted(alive):
                try:
                    await store.transact(partial(self._judge, node_id, alive[node_id]))
                except Unavailable:
                    continue
            await self.clock.sleep(1.0)

    def _judge(self, node_id: str, alive: bool, tx: Tx) -> None:
        node = tx.get(Node, node_id)
        state = NODE_STATE_READY if alive else NODE_STATE_DOWN
        if node is None or node.status.state == state:
            return
        judged = edited(node)
        judged.status.state = state
        judged.heard_at.CopyFrom(timestamp(self.clock.now()))
        tx.put(judged)

    # ------------------------------------------------------------ agents

    def assignments(self, node_id: str) -> tuple[int, list[Task]]:
        view = self.store.view()
        return view.revision, list(view.find(Task, node_id=node_id))

    async def take_statuses(self, statuses: dict[str, TaskStatus]) -> bool:
        try:
            await self.store.transact(partial(_apply, statuses))
        except Unavailable:
            return False
        return True


def _apply(statuses: dict[str, TaskStatus], tx: Tx) -> None:
    for id, status in statuses.items():
        task = tx.get(Task, id)
        if task is not None and states.may_move(task.status.state, status.state):
            moved = edited(task)
            moved.status.CopyFrom(status)
            tx.put(moved)
