"""What the control API can do with each kind of object: one entry per kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from swarmd.manager.control import clusters, networks, nodes, services
from swarmd.manager.store.interface import Tx
from swarmd.proto import control_pb2 as pb
from swarmd.proto.errors import Invalid
from swarmd.proto.objects_pb2 import Cluster, Holdings, Network, Node, Object, Service, Task

Create = Callable[[Tx, Any, str, int], Any]  # the object, a new id, now
Update = Callable[[Tx, Any, bool, int], Any]  # the object, rollback, now
Remove = Callable[[Tx, str, bool], str]  # reference, force


@dataclass(frozen=True, slots=True)
class Kind:
    message: Any
    create: Create | None = None
    update: Update | None = None
    remove: Remove | None = None
    shown: Callable[[Any], Any] = lambda obj: obj

    @property
    def noun(self) -> str:
        return str(self.message.DESCRIPTOR.name.lower())

    def wrap(self, obj: Any) -> Object:
        return Object(**{self.noun: self.shown(obj)})


KINDS: Mapping[int, Kind] = {
    pb.KIND_CLUSTER: Kind(Cluster, update=clusters.update, shown=clusters.shown),
    pb.KIND_NODE: Kind(Node, update=nodes.update, remove=nodes.remove),
    pb.KIND_SERVICE: Kind(Service, services.create, services.update, services.remove),
    pb.KIND_TASK: Kind(Task),
    pb.KIND_NETWORK: Kind(Network, networks.create, remove=networks.remove),
    pb.KIND_HOLDINGS: Kind(Holdings),
}
BY_NOUN = {kind.noun: kind for kind in KINDS.values()}


def kind_of(number: int) -> Kind:
    kind = KINDS.get(number)
    if kind is None:
        name = pb.Kind.Name(number) if number in pb.Kind.values() else str(number)  # type: ignore[arg-type]
        raise Invalid(f"the cluster has no objects of kind {name.removeprefix('KIND_').lower()}")
    return kind


def opened(obj: Object) -> tuple[Kind, Any]:
    """The kind and the message inside."""
    noun = obj.WhichOneof("of")
    if noun is None or noun not in BY_NOUN:
        raise Invalid(f"the cluster has no objects of kind {noun or 'unknown'}")
    return BY_NOUN[noun], getattr(obj, noun)
