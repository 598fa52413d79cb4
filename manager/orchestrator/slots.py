"""Slots, and the steps a plan takes in them: the words in which the orchestrator's plans are written.

A service of n replicas holds n slots; a slot has at most one wanted task (two while a start-first update is under way)
and the history of those before it. A plan is a function of a `Situation`, all that is known at one moment; it returns
`Step`s, each of which touches one slot and is written whole or not at all.

Invariant: no two tasks of a slot run at once, but in a start-first update. A new task is wanted READY, and so prepared
but not started, until every task it follows has stopped or can't be waited for (`vacant_at`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from swarmd.manager.store.edit import edited
from swarmd.proto import task_states as states
from swarmd.proto.clock import nanoseconds, timestamp
from swarmd.proto.objects_pb2 import (
    NODE_STATE_DOWN,
    Node,
    RestartEvent,
    Service,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)

SECOND = 1_000_000_000
OLD_TASK_TIMEOUT = 60 * SECOND  # how long a replacement waits for the old task to stop
DEFAULT_STOP_GRACE = 10 * SECOND
NEVER = 1 << 63


@dataclass(frozen=True, slots=True)
class Slot:
    number: int
    tasks: tuple[Task, ...] = ()  # oldest first

    @property
    def wanted(self) -> list[Task]:
        return [task for task in self.tasks if is_wanted(task)]

    @property
    def unwanted(self) -> list[Task]:
        return [task for task in self.tasks if not is_wanted(task)]

    @property
    def held(self) -> bool:
        """Whether the slot is one of the service's replicas, be it without a task just now."""
        return any(task.desired_state < states.REMOVE for task in self.tasks)

    @property
    def newest(self) -> Task | None:
        """The task that speaks for the slot: the newest wanted one, else the last of its history."""
        kept = [task for task in self.tasks if task.desired_state < states.REMOVE]
        return max(kept, key=lambda task: (is_wanted(task), age_key(task)), default=None)


@dataclass(frozen=True, slots=True)
class Situation:
    """What a plan decides from. `now` is nanoseconds since the epoch, on the leader's clock."""

    service: Service
    slots: Mapping[int, Slot]
    nodes: Mapping[str, Node]
    now: int
    new_id: Callable[[], str]

    @classmethod
    def of(
        cls, service: Service, tasks: Sequence[Task], nodes: Iterable[Node], now: int, new_id: Callable[[], str]
    ) -> "Situation":
        by_slot: defaultdict[int, list[Task]] = defaultdict(list)
        for task in sorted(tasks, key=age_key):
            by_slot[task.slot].append(task)
        slots = {number: Slot(number, tuple(by_slot[number])) for number in sorted(by_slot)}
        return cls(service, slots, {node.id: node for node in nodes}, now, new_id)

    def held(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.held]


@dataclass(frozen=True, slots=True)
class Step:
    """What to write for one slot, all at once."""

    slot: int
    puts: tuple[Task, ...]
    restart: RestartEvent | None = None  # to be added to the service's history
    forget: bool = False  # the slot's restart history is about a spec, or a replica, that is no more


def age_key(task: Task) -> tuple[int, str]:
    return nanoseconds(task.created_at), task.id


def is_wanted(task: Task) -> bool:
    return task.desired_state <= states.RUNNING


def has_ended(task: Task) -> bool:
    return task.status.state in states.ENDED


def is_over(task: Task) -> bool:
    """Whether nothing of the task can run any more. One that no node has heard of is over once it is unwanted."""
    return has_ended(task) or (not task.node_id and not is_wanted(task))


def is_lost(task: Task, nodes: Mapping[str, Node]) -> bool:
    """Whether the task's node can't be asked to stop it: down, or no longer of the cluster."""
    node = nodes.get(task.node_id)
    return bool(task.node_id) and (node is None or node.status.state == NODE_STATE_DOWN)


def template(spec: ServiceSpec) -> TaskSpec:
    """What the service's tasks are made from, with `Networks` taken from its older place if need be."""
    if spec.task.networks or not spec.networks:
        return spec.task
    task = edited(spec.task)
    task.networks.extend(spec.networks)
    return task


def vacant_at(mates: Iterable[Task], situation: Situation) -> int:
    """When a slot is free of these unwanted tasks: 0 if it is, else the moment to stop waiting for them."""
    waits = [
        nanoseconds(task.desired_since) + patience(task)
        for task in mates
        if not is_over(task) and not is_lost(task, situation.nodes)
    ]
    return max(waits, default=0)


def patience(task: Task) -> int:
    container = task.spec.container
    grace = container.stop_grace_period if container.HasField("stop_grace_period") else DEFAULT_STOP_GRACE
    return max(OLD_TASK_TIMEOUT, grace + DEFAULT_STOP_GRACE)


def wanting(task: Task, desired: TaskState.ValueType, now: int) -> Task:
    """The task with another desired state; it only ever grows."""
    assert states.may_want(task.desired_state, desired)
    copy = edited(task)
    copy.desired_state = desired
    copy.desired_since.CopyFrom(timestamp(now))
    return copy


def new_task(situation: Situation, slot: int, mates: Iterable[Task] = (), not_before: int = 0) -> Task:
    """A task for the slot; wanted RUNNING at once if nothing must be waited for, else READY."""
    service, now = situation.service, situation.now
    task = Task(
        id=situation.new_id(),
        spec=template(service.spec),
        spec_version=service.spec_version,
        service_id=service.id,
        service_name=service.spec.name,
        service_labels=service.spec.labels,
        slot=slot,
        status=TaskStatus(state=states.NEW, timestamp=timestamp(now), message="created"),
        desired_state=states.RUNNING,
        desired_since=timestamp(now),
    )
    if not_before > now:
        task.not_before.CopyFrom(timestamp(not_before))
    if max(not_before, vacant_at(mates, situation)) > now:
        task.desired_state = states.READY
    return task
