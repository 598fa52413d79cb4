"""A simulated manager: the real control loops while it leads, and a plain dispatcher for the agents that chose it.

`_parts` is what runs while it leads. Of the dispatcher only what it does to the store is simulated.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from swarmd.manager.allocator.allocator import Allocator
from swarmd.manager.leader import Part
from swarmd.manager.orchestrator.enforcer import ConstraintEnforcer
from swarmd.manager.orchestrator.reaper import Reaper
from swarmd.manager.orchestrator.replicated import ReplicatedOrchestrator
from swarmd.manager.scheduler.scheduler import Scheduler
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Leadership, LeadershipLost, Store, Tx
from swarmd.proto import task_states as states
from swarmd.proto.clock import Clock, timestamp
from swarmd.proto.errors import Unavailable
from swarmd.proto.objects_pb2 import (
    NODE_STATE_DOWN,
    NODE_STATE_READY,
    Node,
    Task,
    TaskStatus,
)
from tests.simulation.store import Etcd

MISSED = 3.5  # seconds without a heartbeat until a node is down


@dataclass(eq=False)
class Manager:
    name: str
    store: Store
    etcd: Etcd
    clock: Clock
    new_id: Callable[[], str]
    heard: dict[str, float]  # node -> when any manager last heard of it

    async def run(self) -> None:
        """Serve agents, and lead whenever elected, until cancelled, which is a crash."""
        while True:
            try:
                async with self.etcd.campaign(self.name) as leadership:
                    await self._lead(self.store.fenced(leadership.fence), leadership)
            except* (LeadershipLost, Unavailable):
                pass
            await self.clock.sleep(0.1)

    async def _lead(self, store: Store, leadership: Leadership) -> None:
        async with asyncio.TaskGroup() as group:
            for part in self._parts(store):
                group.create_task(part.run())
            group.create_task(self._watch_nodes(store))
            await leadership.lost()
            raise LeadershipLost("another manager leads")

    def _parts(self, store: Store) -> list[Part]:
        return [
            ReplicatedOrchestrator(store, self.clock, self.new_id),
            ConstraintEnforcer(store, self.clock, self.new_id),
            Reaper(store, self.clock, self.new_id),
            Allocator(store, self.clock),
            Scheduler(store, self.clock),
        ]

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
