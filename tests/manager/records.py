"""Objects in a dictionary: a store, its view and its transaction in one, for tests of what is done with them."""

from collections.abc import Callable, Sequence
from typing import Any

from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import AnyObject, T
from swarmd.proto import objects_pb2 as pb


class Records:
    def __init__(self, *objects: AnyObject) -> None:
        self.revision = 0
        self._objects: dict[tuple[type, str], Any] = {}
        for obj in objects:
            self.put(obj)

    def view(self) -> "Records":
        return self

    async def transact(self, fn: Callable[[Any], Any]) -> Any:
        return fn(self)

    def get(self, kind: type[T], id: str) -> T | None:
        return self._objects.get((kind, id))

    def the(self, kind: type[T], id: str) -> T:
        """The object, which must be there."""
        found = self.get(kind, id)
        assert found is not None, f"no {kind.__name__} {id}"
        return found

    def find(
        self, kind: type[T], *, name: str | None = None, service_id: str | None = None, node_id: str | None = None
    ) -> Sequence[T]:
        found = [obj for (of, _), obj in self._objects.items() if of is kind]
        if name is not None:
            found = [obj for obj in found if _name(obj) == name]
        if service_id is not None:
            found = [obj for obj in found if obj.service_id == service_id]
        return found if node_id is None else [obj for obj in found if obj.node_id == node_id]

    def put(self, obj: AnyObject) -> None:
        self.revision += 1
        copy = edited(obj)
        copy.version.index = self.revision
        self._objects[type(obj), obj.id] = copy

    def delete(self, obj: AnyObject) -> None:
        del self._objects[type(obj), obj.id]


def _name(obj: Any) -> str:
    return str(obj.description.hostname if isinstance(obj, pb.Node) else obj.spec.name)


def node(id: str, *, manager: bool = False, reachable: bool = True, member: int = 0) -> pb.Node:
    made = pb.Node(id=id, description=pb.NodeDescription(hostname=f"host-{id}", addr="10.0.0.1"))
    if manager:
        made.spec.role = made.certified_role = pb.NODE_ROLE_MANAGER
        made.manager_status.addr = f"{id}:2378"
        made.manager_status.reachability = pb.REACHABILITY_REACHABLE if reachable else pb.REACHABILITY_UNREACHABLE
        made.etcd_member_id = member
    return made
