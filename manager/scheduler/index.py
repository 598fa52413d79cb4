"""What the scheduler knows: how full each node is, where each service runs, and which tasks wait for a node.

Kept up from commits one object at a time, never recounted.  Every object carries the revision it was stored at, so
one that comes late (its commit was still on the way when a pass had already read its successor) changes nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from weakref import WeakValueDictionary

from swarmd.manager.scheduler.constraints import Constraint, parse
from swarmd.manager.store.interface import AnyObject, Commit, View
from swarmd.proto.clock import nanoseconds
from swarmd.proto.objects_pb2 import PUBLISH_MODE_HOST, Node, Placement, Service, Task
from swarmd.proto.task_states import ENDED, PENDING, RUNNING

FAULTY_WINDOW = 300 * 1_000_000_000  # ns
FAULTY_AFTER = 5
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

Port = tuple[str, int]


class NodeInfo:
    """A node and what is left of it.  tasks: those that are to go on running."""

    __slots__ = ("free_cpu", "free_memory", "id", "node", "ports", "standing", "tasks")

    def __init__(self, id: str) -> None:
        self.id = id
        self.node: Node | None = None  # None: only its tasks are known
        self.tasks = 0
        self.free_cpu = 0
        self.free_memory = 0
        self.ports: Counter[Port] = Counter()
        self.standing: dict[tuple[str, ...], str] = {}  # by terms, the reason against it; forgotten when it changes


@dataclass(frozen=True, eq=False)
class Demand:
    """What a task asks of a node.  Tasks that ask the same share one, whatever their service: compare by identity."""

    placement: Placement
    cpu: int
    memory: int
    ports: tuple[Port, ...]

    @cached_property
    def constraints(self) -> list[Constraint]:
        return parse(self.placement.constraints)

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """What the node's own state decides, as a key."""
        platforms = (f"{os}/{arch}" for os, arch in sorted(self.platforms))
        return (*self.placement.constraints, *platforms)

    @cached_property
    def platforms(self) -> frozenset[tuple[str, str]]:
        return frozenset((p.os, architecture(p.architecture)) for p in self.placement.platforms)

    @cached_property
    def preferences(self) -> tuple[str, ...]:
        return tuple(p.spread.spread_descriptor for p in self.placement.preferences)


class GroupKey(NamedTuple):
    """Tasks alike: of one service, made from one version of its spec."""

    service_id: str
    spec_version: int
    demand: Demand


class _Booking(NamedTuple):
    node: NodeInfo
    service_id: str
    demand: Demand
    counts: bool


class Index:
    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._services: dict[str, Service] = {}
        self._versions: dict[str, int] = {}  # of tasks
        self._bookings: dict[str, _Booking] = {}
        self._demands: WeakValueDictionary[tuple[bytes, int, int, tuple[Port, ...]], Demand] = WeakValueDictionary()
        self._running: defaultdict[str, Counter[str]] = defaultdict(Counter)  # service -> node -> tasks
        self._unhealthy: defaultdict[str, dict[str, tuple[str, int]]] = defaultdict(
            dict
        )  # service -> task -> (node, ns)
        self._waiting: dict[GroupKey, dict[str, Task]] = {}
        self._group_of: dict[str, GroupKey] = {}
        self._due: dict[GroupKey, None] = {}

    @classmethod
    def of(cls, view: View) -> "Index":
        index = cls()
        everything: list[AnyObject] = [*view.find(Node), *view.find(Service), *view.find(Task)]
        for obj in everything:
            index.observe(obj)
        return index

    def apply(self, commit: Commit) -> None:
        for change in commit.changes:
            if change.new is not None:
                self.observe(change.new)
            elif change.old is not None:
                self.forget(change.old)

    def observe(self, obj: AnyObject) -> None:
        if isinstance(obj, Task):
            self._observe_task(obj)
        elif isinstance(obj, Node):
            self._observe_node(obj)
        elif isinstance(obj, Service):
            self._services[obj.id] = obj

    def forget(self, obj: AnyObject) -> None:
        if isinstance(obj, Task):
            self._stop_waiting(obj.id)
            self.release(obj.id)
            self._versions.pop(obj.id, None)
            self._unhealthy[obj.service_id].pop(obj.id, None)
        elif isinstance(obj, Node):
            self._set_node(obj.id, None)
        elif isinstance(obj, Service):
            self._services.pop(obj.id, None)
            self._unhealthy.pop(obj.id, None)

    # ------------------------------------------------------------ questions

    @property
    def nodes(self) -> Iterable[NodeInfo]:
        return (info for info in self._nodes.values() if info.node is not None)

    def running(self, service_id: str) -> Counter[str]:
        """Tasks of the service on each node that has any; follows what is booked."""
        return self._running[service_id]

    def take_due(self) -> list[tuple[GroupKey, list[Task]]]:
        """The waiting groups for which something has changed since they were last taken."""
        due, self._due = self._due, {}
        return [(key, list(self._waiting[key].values())) for key in due if key in self._waiting]

    @property
    def due(self) -> bool:
        return bool(self._due)

    def faulty(self, service_id: str, now: int) -> frozenset[str]:
        """Nodes where the service failed too often of late; an end by health check counts double."""
        service = self._services.get(service_id)
        unhealthy = self._unhealthy.get(service_id, {})
        if not unhealthy and (service is None or not service.restarts.events):
            return frozenset()
        failures = Counter(node for node, at in unhealthy.values() if now - at < FAULTY_WINDOW)
        for event in service.restarts.events if service else ():
            if event.failed and now - nanoseconds(event.at) < FAULTY_WINDOW:
                failures[event.node_id] += 1
        return frozenset(node for node, count in failures.items() if count >= FAULTY_AFTER)

    # ------------------------------------------------------------ bookings

    def book(self, task_id: str, service_id: str, demand: Demand, node: NodeInfo, counts: bool = True) -> None:
        """Count the task as being on the node; observing the stored task later confirms it or takes it back."""
        self._bookings[task_id] = _Booking(node, service_id, demand, counts)
        node.free_cpu -= demand.cpu
        node.free_memory -= demand.memory
        if demand.ports:
            node.ports.update(demand.ports)
        if counts:
            node.tasks += 1
            self._running[service_id][node.id] += 1

    def release(self, task_id: str) -> None:
        booking = self._bookings.pop(task_id, None)
        if booking is None:
            return
        node, service_id, demand, counts = booking
        node.free_cpu += demand.cpu
        node.free_memory += demand.memory
        node.ports -= Counter(demand.ports)
        if counts:
            node.tasks -= 1
            running = self._running[service_id]
            running[node.id] -= 1
            if not running[node.id]:
                del running[node.id]
            if not running:
                del self._running[service_id]
        self._due |= dict.fromkeys(self._waiting)

    # ------------------------------------------------------------ observations

    def _observe_task(self, task: Task) -> None:
        if task.version.index < self._versions.get(task.id, 0):
            return
        self._versions[task.id] = task.version.index
        wanted, ended = task.desired_state <= RUNNING, task.status.state in ENDED
        if task.status.state == PENDING and not task.node_id and wanted:
            self.release(task.id)
            self._wait(task)
            return
        self._stop_waiting(task.id)
        if not task.node_id or ended:
            self.release(task.id)
        else:
            self._rebook(task, wanted)
        if task.status.unhealthy and ended:
            self._unhealthy[task.service_id][task.id] = (task.node_id, nanoseconds(task.status.timestamp))

    def _rebook(self, task: Task, counts: bool) -> None:
        node = self._node(task.node_id)
        held = self._bookings.get(task.id)
        if held is None or held.node is not node or held.counts != counts:
            self.release(task.id)
            self.book(task.id, task.service_id, self.demand(task), node, counts)

    def _wait(self, task: Task) -> None:
        key = self._group_of.get(task.id)
        if key is None:
            key = GroupKey(task.service_id, task.spec_version, self.demand(task))
            self._group_of[task.id] = key
            self._due[key] = None
        self._waiting.setdefault(key, {})[task.id] = task

    def _stop_waiting(self, task_id: str) -> None:
        key = self._group_of.pop(task_id, None)
        if key is not None:
            group = self._waiting[key]
            del group[task_id]
            if not group:
                del self._waiting[key]

    def _observe_node(self, node: Node) -> None:
        known = self._node(node.id).node
        if known is None or _matters(known) != _matters(node):
            self._set_node(node.id, node)
            self._due |= dict.fromkeys(self._waiting)

    def _set_node(self, id: str, node: Node | None) -> None:
        info = self._node(id)
        info.free_cpu += _cpu(node) - _cpu(info.node)
        info.free_memory += _memory(node) - _memory(info.node)
        info.node = node
        info.standing.clear()

    def _node(self, id: str) -> NodeInfo:
        info = self._nodes.get(id)
        if info is None:
            info = self._nodes[id] = NodeInfo(id)
        return info

    def demand(self, task: Task) -> Demand:
        spec = task.spec
        reserved = spec.resources.reservations
        ports = tuple(
            sorted((p.protocol or "tcp", p.published_port) for p in task.ports if p.publish_mode == PUBLISH_MODE_HOST)
        )
        key = (spec.placement.SerializeToString(), reserved.nano_cpus, reserved.memory_bytes, ports)
        demand = self._demands.get(key)
        if demand is None:
            demand = self._demands[key] = Demand(spec.placement, *key[1:])
        return demand


def architecture(name: str) -> str:
    return _ARCHITECTURES.get(name, name)


def _matters(node: Node) -> tuple[object, ...]:
    """What placement depends on, so that a heartbeat or an address does not send all waiting tasks round again."""
    return node.spec, node.description, node.status.state, node.status.addr


def _cpu(node: Node | None) -> int:
    return node.description.resources.nano_cpus if node else 0


def _memory(node: Node | None) -> int:
    return node.description.resources.memory_bytes if node else 0
