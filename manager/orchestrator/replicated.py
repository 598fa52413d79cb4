"""Keeps every replicated service at its number of tasks, of its present spec.

This is the one loop that makes tasks, so that what restarts, updates and changes of scale want is decided together, in
one transaction per pass: `plan` and `RULES` say in which order. `restart` and `update` hold their parts of the plan.
A pass writes what one transaction can hold, and looks again until nothing is left to do.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count, islice

from swarmd.manager.orchestrator import restart, update
from swarmd.manager.orchestrator.reconcile import Loop, fitting
from swarmd.manager.orchestrator.slots import (
    Situation,
    Slot,
    Step,
    has_ended,
    new_task,
    wanting,
)
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Changed, Commit, Tx, View
from swarmd.proto import task_states as states
from swarmd.proto.objects_pb2 import Node, Service, Task


class ReplicatedOrchestrator(Loop):
    """Its keys are the ids of services."""

    def keys(self, view: View) -> Iterable[str]:
        return [service.id for service in view.find(Service)]

    def touched(self, view: View, commit: Commit) -> Iterable[str]:
        ids: set[str] = set()
        for change in commit.changes:
            match change.obj:
                case Service(id=service_id):
                    ids.add(service_id)
                case Task(service_id=service_id) if _matters(change):
                    ids.add(service_id)
                case Node(id=node_id):
                    # A node that is lost, or back, decides whether its tasks are waited for.
                    ids.update(task.service_id for task in view.find(Task, node_id=node_id))
        return ids

    def settle(self, service_id: str, tx: Tx) -> int | None:
        service = tx.get(Service, service_id)
        if service is None:
            return None
        now = self._clock.now()
        tasks = tx.find(Task, service_id=service_id)
        # By id, so that the commit depends on them: a node that came back meanwhile may still run the old task.
        nodes = {id: node for id in {task.node_id for task in tasks if task.node_id} if (node := tx.get(Node, id))}
        decided = plan(Situation.of(service, tasks, nodes.values(), now, self._new_id))
        return now if _write(tx, decided) else decided.due


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, and when to look again if nothing changes before."""

    service: Service
    steps: list[Step]
    service_changed: bool = False
    due: int | None = None


def plan(situation: Situation) -> Plan:
    """Return the next steps towards what the service's spec asks for; none once it is there."""
    service = situation.service
    if not service.spec.mode.HasField("replicated"):
        return Plan(service, [])
    steps = change_scale(situation)
    scaled = {step.slot for step in steps}
    steps += [step for slot in situation.held() if slot.number not in scaled and (step := mend(slot, situation))]
    rollout = update.plan(situation)
    # A slot takes one step at a time: what is repaired now is updated by a later pass.
    busy = {step.slot for step in steps}
    steps += [step for step in rollout.steps if step.slot not in busy]
    due = min((time for time in (restart.next_start(situation), rollout.due) if time), default=None)
    return Plan(rollout.service or service, steps, service_changed=rollout.service is not None, due=due)


# ---------------------------------------------------------------- the number of slots


def change_scale(situation: Situation) -> list[Step]:
    """Open or close slots until there are as many as replicas."""
    mode = situation.service.spec.mode.replicated
    replicas = mode.replicas if mode.HasField("replicas") else 1
    held = situation.held()
    if len(held) > replicas:
        return [close(slot, situation) for slot in removal_order(held)[: len(held) - replicas]]
    taken = {slot.number for slot in held}
    numbers = islice((number for number in count(1) if number not in taken), replicas - len(held))
    return [fill(situation.slots.get(number, Slot(number)), situation) for number in numbers]


def close(slot: Slot, situation: Situation) -> Step:
    """Remove a slot with its history."""
    kept = (task for task in slot.tasks if task.desired_state < states.REMOVE)
    return Step(slot.number, tuple(wanting(task, states.REMOVE, situation.now) for task in kept), forget=True)


def removal_order(slots: Iterable[Slot]) -> list[Slot]:
    """What serves nobody first; then what keeps the rest evenly spread; then the highest slot."""
    by_node: defaultdict[str, list[tuple[bool, int, Slot]]] = defaultdict(list)
    for slot in slots:
        task = slot.newest
        serves = any(mate.status.state == states.RUNNING for mate in slot.wanted)
        by_node[task.node_id if task else ""].append((serves, -slot.number, slot))
    ranked = [
        (serves, height - len(mates), number, slot)
        for mates in by_node.values()
        for height, (serves, number, slot) in enumerate(sorted(mates, key=lambda entry: entry[:2]))
    ]
    return [slot for *_, slot in sorted(ranked, key=lambda entry: entry[:3])]


# ---------------------------------------------------------------- one slot


def mend(slot: Slot, situation: Situation) -> Step | None:
    """The first thing that the slot needs."""
    return next((step for rule in RULES if (step := rule(slot, situation))), None)


def fill_empty(slot: Slot, situation: Situation) -> Step | None:
    """Put a task into a slot without one, at once; but not where the restart policy has left it so."""
    if slot.wanted or slot.newest is None or slot.newest.final:
        return None
    return fill(slot, situation)


def fill(slot: Slot, situation: Situation) -> Step:
    return Step(slot.number, (new_task(situation, slot.number, slot.tasks),))


RULES: tuple[Callable[[Slot, Situation], Step | None], ...] = (
    restart.replace_ended,
    update.retire_spare,
    fill_empty,
    restart.start_due,
)


# ---------------------------------------------------------------- store


def _write(tx: Tx, decided: Plan) -> bool:
    """Write as many of the steps as fit, none in part; return whether there was anything to write."""
    if not decided.steps and not decided.service_changed:
        return False
    steps = decided.steps[: fitting([step.puts for step in decided.steps])]
    puts = [task for step in steps for task in step.puts]
    for task in puts:
        tx.put(task)
    # A transaction does not notice tasks that were added since its view, be it by a write of this very loop whose
    # answer was lost. So every pass that makes tasks also writes the service: of two from the same view, one fails.
    makes = any(not task.HasField("version") for task in puts)
    service = edited(decided.service)
    service.restarts.CopyFrom(restart.record(service.restarts, steps, service.spec.task.restart))
    if makes or decided.service_changed or service != decided.service:
        tx.put(service)
    return True


def _matters(change: Changed) -> bool:
    """Whether a task changed in a way that plans look at; on its way to RUNNING it makes several that they don't."""
    old, new = change.old, change.new
    if not isinstance(old, Task) or not isinstance(new, Task):
        return True
    if old.desired_state != new.desired_state:
        return True
    return old.status.state != new.status.state and (new.status.state == states.RUNNING or has_ended(new))
