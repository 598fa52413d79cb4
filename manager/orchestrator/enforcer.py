"""Takes tasks off nodes that may no longer run them; the orchestrator then fills their slots elsewhere.

A node that is down, drained or gone loses all its tasks at once, and without any restart being counted. One whose
labels or resources changed loses those tasks that would not be placed there now.
"""

from collections.abc import Iterable, Sequence

from swarmd.manager.orchestrator.reconcile import Loop, fitting
from swarmd.manager.orchestrator.slots import age_key, has_ended, is_wanted, wanting
from swarmd.manager.scheduler import constraints
from swarmd.manager.store.interface import Commit, Tx, View
from swarmd.proto import task_states as states
from swarmd.proto.objects_pb2 import NODE_AVAILABILITY_DRAIN, NODE_STATE_DOWN, Node, Task


class ConstraintEnforcer(Loop):
    """Its keys are the ids of nodes."""

    def keys(self, view: View) -> Iterable[str]:
        # A node that is no more is a key too, while tasks name it.
        named = {task.node_id for task in view.find(Task) if task.node_id}
        return named | {node.id for node in view.find(Node)}

    def touched(self, view: View, commit: Commit) -> Iterable[str]:
        ids: set[str] = set()
        for change in commit.changes:
            match change.obj:
                case Node(id=node_id):
                    ids.add(node_id)
                case Task(node_id=node_id) as task if node_id and not has_ended(task):
                    ids.add(node_id)
        return ids

    def settle(self, node_id: str, tx: Tx) -> int | None:
        now = self._clock.now()
        misplaced = plan(tx.get(Node, node_id), tx.find(Task, node_id=node_id))
        for task in misplaced[: fitting([[task] for task in misplaced])]:
            tx.put(wanting(task, states.SHUTDOWN, now))
        return now if misplaced else None


def plan(node: Node | None, tasks: Sequence[Task]) -> list[Task]:
    """The tasks that have to leave the node."""
    live = sorted((task for task in tasks if is_wanted(task) and not has_ended(task)), key=age_key)
    if node is None or node.status.state == NODE_STATE_DOWN or node.spec.availability == NODE_AVAILABILITY_DRAIN:
        return live
    misplaced = [task for task in live if _is_barred(task, node)]
    return misplaced + _beyond_capacity([task for task in live if task not in misplaced], node)


def _is_barred(task: Task, node: Node) -> bool:
    return not all(rule.matches(node) for rule in constraints.parse(task.spec.placement.constraints))


def _beyond_capacity(tasks: Iterable[Task], node: Node) -> list[Task]:
    """Those tasks, youngest first to go, whose reservations the node can't hold."""
    cpus, memory = node.description.resources.nano_cpus, node.description.resources.memory_bytes
    excess: list[Task] = []
    for task in tasks:
        reserved = task.spec.resources.reservations
        if reserved.nano_cpus > max(cpus, 0) or reserved.memory_bytes > max(memory, 0):
            excess.append(task)
        else:
            cpus -= reserved.nano_cpus
            memory -= reserved.memory_bytes
    return excess
