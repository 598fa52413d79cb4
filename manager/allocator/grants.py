"""What was decided for an object, and how it is written: nothing, if the object no longer is as it was decided on."""

from collections.abc import Sequence
from dataclasses import dataclass

from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Tx
from swarmd.proto.objects_pb2 import Endpoint, Network, NetworkAttachment, Node, PortConfig, Service, Task
from swarmd.proto.task_states import NEW, PENDING, RUNNING


@dataclass(frozen=True, slots=True)
class NetworkGrant:
    network: Network
    subnet: str
    vni: int

    def applied(self, tx: Tx) -> Network | None:
        stored = tx.get(Network, self.network.id)
        if stored is None:
            return None
        changed = edited(stored)
        changed.subnet, changed.vni = self.subnet, self.vni
        return changed


@dataclass(frozen=True, slots=True)
class ServiceGrant:
    service: Service
    endpoint: Endpoint

    def applied(self, tx: Tx) -> Service | None:
        stored = tx.get(Service, self.service.id)
        if stored is None:
            return None
        changed = edited(stored)
        changed.endpoint.CopyFrom(self.endpoint)
        return changed


@dataclass(frozen=True, slots=True)
class TaskGrant:
    """why: set when something can't be had; then the task stays NEW and says so."""

    task: Task
    networks: Sequence[NetworkAttachment] = ()
    ports: Sequence[PortConfig] = ()
    why: str = ""

    def applied(self, tx: Tx) -> Task | None:
        stored = tx.get(Task, self.task.id)
        if stored is None or not is_new(stored):
            return None
        changed = edited(stored)
        changed.status.err = self.why
        if self.why:
            changed.status.message = "waiting for addresses or ports"
            return changed
        changed.networks.extend(self.networks)
        changed.ports.extend(self.ports)
        changed.status.state = PENDING
        changed.status.message = "waiting for a node"
        return changed


@dataclass(frozen=True, slots=True)
class NodeGrant:
    node: Node
    networks: Sequence[NetworkAttachment]

    def applied(self, tx: Tx) -> Node | None:
        stored = tx.get(Node, self.node.id)
        if stored is None:
            return None
        changed = edited(stored)
        del changed.networks[:]
        changed.networks.extend(self.networks)
        return changed


Grant = NetworkGrant | ServiceGrant | TaskGrant | NodeGrant


def is_new(task: Task) -> bool:
    """Whether it still waits for the allocator."""
    return task.status.state == NEW and task.desired_state <= RUNNING
