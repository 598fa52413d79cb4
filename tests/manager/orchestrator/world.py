"""A cluster for plans to act on, without a store, an event loop or agents: a transaction that is always open.

The orchestrator's loops settle in it as they would in a transaction. `place` stands for the scheduler, `report` for an
agent; `tick` moves the clock. Every write is checked against the rules that hold for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from swarmd.manager.orchestrator.enforcer import ConstraintEnforcer
from swarmd.manager.orchestrator.reaper import Reaper
from swarmd.manager.orchestrator.replicated import ReplicatedOrchestrator
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import AnyObject, T
from swarmd.proto import task_states as states
from swarmd.proto.clock import timestamp
from swarmd.proto.objects_pb2 import (
    NODE_AVAILABILITY_ACTIVE,
    NODE_STATE_DOWN,
    NODE_STATE_READY,
    ContainerSpec,
    Node,
    NodeSpec,
    NodeState,
    NodeStatus,
    ReplicatedMode,
    Resources,
    Service,
    ServiceMode,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
)

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def service(replicas: int = 1, *, image: str = "app:1", id: str = "web") -> Service:
    return Service(
        id=id,
        spec_version=1,
        spec=ServiceSpec(
            name=id,
            task=TaskSpec(container=ContainerSpec(image=image)),
            mode=ServiceMode(replicated=ReplicatedMode(replicas=replicas)),
        ),
    )


def node(id: str, *, state: NodeState.ValueType = NODE_STATE_READY, resources: Resources | None = None) -> Node:
    made = Node(id=id, spec=NodeSpec(availability=NODE_AVAILABILITY_ACTIVE), status=NodeStatus(state=state))
    made.description.hostname = id
    made.description.resources.CopyFrom(resources or Resources(nano_cpus=4 * 10**9, memory_bytes=8 << 30))
    return made


@dataclass
class World:
    """Satisfies Tx and Clock."""

    time: int = START
    objects: dict[tuple[type, str], AnyObject] = field(default_factory=dict)
    revision: int = 0

    def __post_init__(self) -> None:
        ids = count(1)
        parts = (self, self, lambda: f"task{next(ids):04}")
        self.orchestrator = ReplicatedOrchestrator(*parts)  # type: ignore[arg-type]
        self.enforcer = ConstraintEnforcer(*parts)  # type: ignore[arg-type]
        self.reaper = Reaper(*parts)  # type: ignore[arg-type]

    # ------------------------------------------------------------ Clock

    def now(self) -> int:
        return self.time

    def tick(self, seconds: float) -> None:
        self.time += int(seconds * SECOND)

    # ------------------------------------------------------------ Tx

    def get(self, kind: type[T], id: str) -> T | None:
        return self.objects.get((kind, id))  # type: ignore[return-value]

    def find(
        self, kind: type[T], *, name: str | None = None, service_id: str | None = None, node_id: str | None = None
    ) -> Sequence[T]:
        assert name is None
        found = [obj for (of, _), obj in self.objects.items() if of is kind]
        if service_id is not None:
            found = [obj for obj in found if isinstance(obj, Task) and obj.service_id == service_id]
        if node_id is not None:
            found = [obj for obj in found if isinstance(obj, Task) and obj.node_id == node_id]
        return found  # type: ignore[return-value]

    def put(self, obj: AnyObject) -> None:
        obj = edited(obj)
        old = self.objects.get((type(obj), obj.id))
        self.revision += 1
        self.time += 1  # no two writes at the same moment
        obj.created_at.CopyFrom(timestamp(self.time) if old is None else old.created_at)
        obj.updated_at.CopyFrom(timestamp(self.time))
        if isinstance(old, Task) and isinstance(obj, Task):
            check_move(old, obj)
        self.objects[type(obj), obj.id] = obj

    def delete(self, obj: AnyObject) -> None:
        del self.objects[type(obj), obj.id]

    # ------------------------------------------------------------ what managers do

    def pass_once(self) -> None:
        """Every loop looks at every key, once."""
        for loop in (self.enforcer, self.orchestrator, self.reaper):
            for key in sorted(loop.keys(self)):
                loop.settle(key, self)

    def settle(self) -> None:
        """Let every loop look at every key until none has anything left to write."""
        for _ in range(200):
            before = self.revision, len(self.objects)
            self.pass_once()
            if (self.revision, len(self.objects)) == before:
                return
        raise AssertionError(f"the loops never come to rest: {self.describe()}")

    def due(self) -> int | None:
        """When the orchestrator next wants to look, of all its services; the loops being at rest."""
        times = [self.orchestrator.settle(key, self) for key in self.orchestrator.keys(self)]
        return min((time for time in times if time is not None), default=None)

    # ------------------------------------------------------------ what others do

    def place(self, *nodes: str) -> None:
        """Assign the tasks that have no node to these in turn; by default to all that are ready."""
        ready = [
            found.id
            for found in self.find(Node)
            if found.status.state == NODE_STATE_READY and not found.spec.availability
        ]
        targets = list(nodes) or ready
        for turn, task in enumerate(task for task in self.live() if not task.node_id):
            if targets:
                placed = edited(task)
                placed.node_id = targets[turn % len(targets)]
                placed.status.state = states.ASSIGNED
                self.put(placed)

    def report(self, task: Task, state: TaskState.ValueType, *, unhealthy: bool = False) -> None:
        known = self.get(Task, task.id)
        assert known is not None
        moved = edited(known)
        moved.status.state = state
        moved.status.unhealthy = unhealthy
        moved.status.timestamp.CopyFrom(timestamp(self.time))
        self.put(moved)

    def obey(self) -> None:
        """Agents of nodes that are up do what is wanted of them, at once."""
        for task in self.tasks():
            known = self.get(Node, task.node_id)
            if known is None or known.status.state == NODE_STATE_DOWN or task.status.state in states.ENDED:
                continue
            if task.desired_state > states.RUNNING:
                self.report(task, states.SHUTDOWN)
            elif task.status.state < task.desired_state:
                self.report(task, task.desired_state)

    def converge(self) -> None:
        """Loops, scheduler and agents in turn, until all are at rest; the clock stands still."""
        for _ in range(200):
            before = self.revision, len(self.objects)
            self.settle()
            self.place()
            self.obey()
            if (self.revision, len(self.objects)) == before:
                return
        raise AssertionError(f"the cluster never comes to rest: {self.describe()}")

    # ------------------------------------------------------------ what there is

    def service(self, id: str = "web") -> Service:
        found = self.get(Service, id)
        assert found is not None
        return edited(found)

    def edit_node(self, id: str) -> Node:
        found = self.get(Node, id)
        assert found is not None
        return edited(found)

    def tasks(self) -> list[Task]:
        return sorted(self.find(Task), key=lambda task: (task.slot, task.created_at.seconds, task.created_at.nanos))

    def live(self) -> list[Task]:
        """Tasks that are wanted and have not ended."""
        return [
            task
            for task in self.tasks()
            if task.desired_state <= states.RUNNING and task.status.state not in states.ENDED
        ]

    def running(self) -> list[Task]:
        return [task for task in self.live() if task.status.state == states.RUNNING]

    def describe(self) -> str:
        return "; ".join(
            f"{task.id} slot {task.slot} on {task.node_id or 'no node'}: {states.name(task.status.state)}, "
            f"wanted {states.name(task.desired_state)}, spec {task.spec_version}"
            for task in self.tasks()
        )


def check_move(old: Task, new: Task) -> None:
    """What holds for every write of a task."""
    assert states.may_want(old.desired_state, new.desired_state), f"{old.id} is wanted less"
    moved = old.status.state != new.status.state
    assert not moved or states.may_move(old.status.state, new.status.state), f"{old.id} moved back"
    assert not old.node_id or old.node_id == new.node_id, f"{old.id} changed nodes"
    assert (old.slot, old.service_id, old.spec_version) == (new.slot, new.service_id, new.spec_version)
