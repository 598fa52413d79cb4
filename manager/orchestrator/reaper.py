"""Deletes tasks that nobody needs any more, and gives up those whose node is gone.

- A task that is to be removed goes once it is over. All of a service that was removed are to be removed.
- Of each slot's ended tasks the newest few stay, for `service ps`: Cluster.spec.orchestration says how many.
- A task on a node that was removed, or has been down for a day, is ORPHANED: nothing of it counts as in use any more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swarmd.manager.orchestrator.reconcile import WRITES, Loop, fitting
from swarmd.manager.orchestrator.slots import NEVER, SECOND, Situation, Slot, has_ended, is_over, is_wanted, wanting
from swarmd.manager.orchestrator.update import is_updating
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Commit, Tx, View
from swarmd.proto import task_states as states
from swarmd.proto.clock import nanoseconds, timestamp
from swarmd.proto.objects_pb2 import NODE_STATE_DOWN, Cluster, Node, Service, Task

DEFAULT_HISTORY = 5  # ended tasks per slot
ORPHAN_AFTER = 24 * 3600 * SECOND


class Reaper(Loop):
    """Its keys are the ids of services, those that are no more included while they have tasks."""

    def keys(self, view: View) -> Iterable[str]:
        return {task.service_id for task in view.find(Task)}

    def touched(self, view: View, commit: Commit) -> Iterable[str]:
        ids: set[str] = set()
        for change in commit.changes:
            match change.obj:
                case Service(id=service_id):
                    ids.add(service_id)
                case Task(service_id=service_id) as task if has_ended(task) or not is_wanted(task):
                    ids.add(service_id)
                case Node(id=node_id):
                    ids.update(task.service_id for task in view.find(Task, node_id=node_id))
                case Cluster():
                    ids.update(self.keys(view))
        return ids

    def settle(self, service_id: str, tx: Tx) -> int | None:
        now = self._clock.now()
        service = tx.get(Service, service_id)
        tasks = tx.find(Task, service_id=service_id)
        situation = Situation.of(service or Service(id=service_id), tasks, tx.find(Node), now, self._new_id)
        harvest = plan(situation, history_limit(tx.find(Cluster)), removed=service is None)
        for task in harvest.puts[: fitting([[task] for task in harvest.puts])]:
            tx.put(task)
        if not harvest.puts:
            for task in harvest.deletes[:WRITES]:
                tx.delete(task)
        return now if harvest.puts or harvest.deletes else harvest.due


@dataclass(frozen=True, slots=True)
class Harvest:
    puts: list[Task]
    deletes: list[Task]
    due: int | None  # when the next task is to be given up


def history_limit(clusters: Sequence[Cluster]) -> int:
    """How many ended tasks a slot keeps; negative: all."""
    for cluster in clusters:
        if cluster.spec.orchestration.HasField("task_history_retention_limit"):
            return cluster.spec.orchestration.task_history_retention_limit
    return DEFAULT_HISTORY


def plan(situation: Situation, limit: int, *, removed: bool) -> Harvest:
    """What to give up and what to delete of one service's tasks; `removed`: there is no such service any more."""
    if is_updating(situation.service) and limit == 0:
        limit = 1  # the update counts its failures there
    puts: list[Task] = []
    deletes: list[Task] = []
    due = NEVER
    for slot in situation.slots.values():
        unneeded = surplus(slot, limit)
        for task in slot.tasks:
            give_up = orphaned_at(task, situation.nodes)
            if give_up <= situation.now:
                puts.append(_orphaned(task, situation.now))
            elif removed and task.desired_state < states.REMOVE:
                puts.append(wanting(task, states.REMOVE, situation.now))
            elif task in unneeded or (is_over(task) and task.desired_state == states.REMOVE):
                deletes.append(task)
            else:
                due = min(due, give_up)
    return Harvest(puts, deletes, due if due < NEVER else None)


def surplus(slot: Slot, limit: int) -> list[Task]:
    """The slot's past tasks, without the newest few that are its history; those that never got to a node are none.

    The newest of all always stays, since it says how the slot was left.
    """
    past = [task for task in slot.tasks if is_over(task) and task.desired_state == states.SHUTDOWN]
    history = [task for task in past if has_ended(task)]
    kept = history if limit < 0 else history[len(history) - min(limit, len(history)) :]
    return [task for task in past if task not in kept and task is not slot.newest]


def orphaned_at(task: Task, nodes: Mapping[str, Node]) -> int:
    """When to stop believing that the task may run: 0 on a node that was removed, NEVER on one that is not down."""
    if not task.node_id or has_ended(task):
        return NEVER
    node = nodes.get(task.node_id)
    if node is None:
        return 0
    if node.status.state != NODE_STATE_DOWN:
        return NEVER
    return nanoseconds(node.heard_at if node.HasField("heard_at") else node.updated_at) + ORPHAN_AFTER


def _orphaned(task: Task, now: int) -> Task:
    copy = edited(task)
    copy.status.state = states.ORPHANED
    copy.status.message = "its node was removed, or was down for a day"
    copy.status.timestamp.CopyFrom(timestamp(now))
    return copy
