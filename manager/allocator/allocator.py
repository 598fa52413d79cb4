"""Gives networks their subnets, services their virtual IPs and ports, tasks and nodes their addresses.

NEW tasks become PENDING when they have all they need, or learn why they can't.  The ledger knows what is in use;
`plan` says what an object lacks; this loop brings both together, with all that one commit brought in one batch.
Networks come before services, and services before tasks, because each needs what the one before was given.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from swarmd.manager.allocator import plan
from swarmd.manager.allocator.grants import Grant, TaskGrant, is_new
from swarmd.manager.allocator.ledger import Ledger
from swarmd.manager.store.interface import AnyObject, Changed, Store, Tx
from swarmd.proto.clock import Clock, timestamp
from swarmd.proto.errors import SwarmdError
from swarmd.proto.objects_pb2 import Cluster, Network, Node, Service, Task
from swarmd.proto.task_states import ENDED, NEW

O = TypeVar("O", Network, Service, Node)  # noqa: E741

_Ids = dict[str, None]  # a set that keeps its order: first come, first served


@dataclass(slots=True)
class _Due:
    """Ids of what may lack something."""

    networks: _Ids = field(default_factory=dict)
    services: _Ids = field(default_factory=dict)
    tasks: _Ids = field(default_factory=dict)
    nodes: _Ids = field(default_factory=dict)


class Allocator:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def run(self) -> None:
        """Allocate until cancelled; losing leadership is a cancellation."""
        async with self._store.view_and_watch() as (view, commits):
            pass_ = _Pass(self._store, self._clock, Ledger.of(view))
            everything: list[AnyObject] = [*view.find(Network), *view.find(Service), *view.find(Task), *view.find(Node)]
            for obj in everything:
                pass_.note(Changed(None, obj))
            await pass_.run()
            async for commit in commits:
                for change in commit.changes:
                    pass_.note(change)
                await pass_.run()


class _Pass:
    """What is due, what had to be refused, and how both are settled."""

    def __init__(self, store: Store, clock: Clock, ledger: Ledger) -> None:
        self._store, self._clock, self._ledger = store, clock, ledger
        self._due = _Due()
        self._refused: dict[str, str] = {}  # networks, services and nodes that can't be served, and why
        self._waiting: _Ids = {}  # tasks that could not be served
        self._doomed: _Ids = {}  # networks with a tombstone

    def note(self, change: Changed) -> None:
        """Remember what a change makes worth looking at, and take back what it frees."""
        obj, gone = change.obj, change.new is None
        if isinstance(obj, Task):
            self._note_task(obj, gone)
            if obj.networks and obj.node_id and (gone or not isinstance(change.old, Task) or not change.old.node_id):
                self._due.nodes[obj.node_id] = None
        elif isinstance(obj, Cluster):
            self._retry(True)
        elif gone:
            self._refused.pop(obj.id, None)
            self._retry(self._ledger.release(obj))
        if isinstance(obj, Network):
            self._due.networks[obj.id] = None
        elif isinstance(obj, Service):
            self._due.services[obj.id] = None
        elif isinstance(obj, Node):
            self._due.nodes[obj.id] = None

    def _note_task(self, task: Task, gone: bool) -> None:
        if gone or task.status.state in ENDED:
            self._waiting.pop(task.id, None)
            self._retry(self._ledger.release(task))
        elif task.status.state == NEW and task.id not in self._waiting:
            self._due.tasks[task.id] = None

    def _retry(self, released: bool) -> None:
        """Something came free: whoever waits may have it."""
        if released:
            refused = dict.fromkeys(self._refused)
            self._due.networks |= refused
            self._due.services |= refused
            self._due.nodes |= refused
            self._due.tasks |= self._waiting

    async def run(self) -> None:
        due, self._due = self._due, _Due()
        if due.networks:
            await self._store.batch(self._networks(due), self._write)
        if self._doomed:
            await self._store.batch(self._unused(), self._delete)
        if due.services:
            await self._store.batch(self._services(due), self._write)
        tasks = self._tasks(due)
        await self._store.batch([*tasks, *self._nodes(due)], self._write)
        self._take_back(tasks)

    # ------------------------------------------------------------ decide

    def _networks(self, due: _Due) -> list[Grant]:
        """A network that becomes usable, or goes, changes what services and nodes can have."""
        view = self._store.view()
        networks = [network for id in due.networks if (network := view.get(Network, id))]
        live = [network for network in networks if not network.removing]
        self._doomed |= {network.id: None for network in networks if network.removing}
        grants = self._decide(live, lambda network: plan.for_network(view, self._ledger, network))
        for network in live:
            self._ledger.explain(network.id, self._refused.get(network.id, ""))
        if grants or len(live) < len(due.networks):
            due.services |= {service.id: None for service in view.find(Service)}
            due.nodes |= {node.id: None for node in view.find(Node)}
        return grants

    def _unused(self) -> list[Network]:
        view = self._store.view()
        doomed = [network for id in self._doomed if (network := view.get(Network, id))]
        self._doomed = {network.id: None for network in doomed}
        return [network for network in doomed if plan.is_unused(view, network)]

    def _services(self, due: _Due) -> list[Grant]:
        view = self._store.view()
        services = [service for id in due.services if (service := view.get(Service, id))]
        grants = self._decide(services, lambda service: plan.for_service(view, self._ledger, service))
        looked_at = {service.id for service in services}
        waiting = (task for id in self._waiting if (task := view.get(Task, id)))
        due.tasks |= {task.id: None for task in waiting if task.service_id in looked_at}
        return grants

    def _tasks(self, due: _Due) -> list[TaskGrant]:
        view = self._store.view()
        grants: list[TaskGrant] = []
        for id in due.tasks:
            task = view.get(Task, id)
            self._waiting.pop(id, None)
            if task is None or not is_new(task):
                continue
            grant = plan.for_task(view, self._ledger, task, self._refused.get(task.service_id, ""))
            if grant.why:
                self._waiting[id] = None
            if not grant.why or grant.why != task.status.err:
                grants.append(grant)
        return grants

    def _nodes(self, due: _Due) -> list[Grant]:
        view = self._store.view()
        nodes = [node for id in due.nodes if (node := view.get(Node, id))]
        return self._decide(nodes, lambda node: plan.for_node(view, self._ledger, node))

    def _decide(self, objects: Iterable[O], decide: Callable[[O], Grant | None]) -> list[Grant]:
        grants: list[Grant] = []
        for obj in objects:
            self._refused.pop(obj.id, None)
            try:
                grant = decide(obj)
            except SwarmdError as error:
                self._refused[obj.id] = str(error)
            else:
                grants += [grant] if grant else []
        return grants

    # ------------------------------------------------------------ write

    def _write(self, tx: Tx, grant: Grant) -> None:
        changed = grant.applied(tx)
        if isinstance(changed, Task):
            changed.status.timestamp.CopyFrom(timestamp(self._clock.now()))
        if changed is not None:
            tx.put(changed)

    def _delete(self, tx: Tx, network: Network) -> None:
        stored = tx.get(Network, network.id)
        if stored is not None and plan.is_unused(tx, stored):
            tx.delete(stored)

    def _take_back(self, grants: Iterable[TaskGrant]) -> None:
        """A task that ended or went while its addresses were being written does not keep them."""
        view = self._store.view()
        for grant in grants:
            stored = view.get(Task, grant.task.id)
            if stored is None or stored.status.state in ENDED or stored.status.state == NEW:
                self._ledger.release(grant.task)
