"""Gives every PENDING task a node, or says why it can't.

`plan` decides; this loop feeds it and stores what it decided.  A pass starts as soon as something is waiting; what
is committed while one is stored comes in one piece with the next commit, so load is batched by itself.  After
storing, the index is set from what the store then holds: a task that somebody changed in between is simply seen as
it is now.
"""

from collections.abc import Iterable

from swarmd.manager.scheduler.index import Index
from swarmd.manager.scheduler.plan import Placement, Refusal, plan
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Store, Tx
from swarmd.proto.clock import Clock, timestamp
from swarmd.proto.objects_pb2 import NODE_AVAILABILITY_ACTIVE, NODE_STATE_READY, Node, Task
from swarmd.proto.task_states import ASSIGNED, PENDING, RUNNING


class Scheduler:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def run(self) -> None:
        """Schedule until cancelled; losing leadership is a cancellation."""
        async with self._store.view_and_watch() as (view, commits):
            index = Index.of(view)
            await self._settle(index)
            async for commit in commits:
                index.apply(commit)
                await self._settle(index)

    async def _settle(self, index: Index) -> None:
        """One pass; what it finds changed under it is on its way as a commit, which brings the next one."""
        if index.due:
            decided = plan(index.take_due(), index, self._clock.now())
            refusals = [refusal for refusal in decided.refusals if refusal.task.status.err != refusal.why]
            await self._store.batch(decided.placements, self._assign)
            await self._store.batch(refusals, self._explain)
            self._observe(index, [*(p.task for p in decided.placements), *(r.task for r in refusals)])

    def _observe(self, index: Index, tasks: Iterable[Task]) -> None:
        view = self._store.view()
        for task in tasks:
            stored = view.get(Task, task.id)
            if stored is None:
                index.forget(task)
            else:
                index.observe(stored)

    def _assign(self, tx: Tx, placement: Placement) -> None:
        task = _waiting(tx, placement.task.id)
        node = tx.get(Node, placement.node_id)
        if task is None or node is None or not _takes_tasks(node):
            return
        task.node_id = placement.node_id
        task.status.state = ASSIGNED
        task.status.message = "a node is chosen"
        task.status.err = ""
        task.status.timestamp.CopyFrom(timestamp(self._clock.now()))
        tx.put(task)

    def _explain(self, tx: Tx, refusal: Refusal) -> None:
        task = _waiting(tx, refusal.task.id)
        if task is not None:
            task.status.message = "waiting for a suitable node"
            task.status.err = refusal.why
            task.status.timestamp.CopyFrom(timestamp(self._clock.now()))
            tx.put(task)


def _waiting(tx: Tx, id: str) -> Task | None:
    """A copy to edit, if the task still waits for a node."""
    task = tx.get(Task, id)
    if task is None or task.status.state != PENDING or task.desired_state > RUNNING:
        return None
    return edited(task)


def _takes_tasks(node: Node) -> bool:
    return node.status.state == NODE_STATE_READY and node.spec.availability == NODE_AVAILABILITY_ACTIVE
