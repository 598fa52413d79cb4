"""Objects by kind and id, and by the indexes that views offer: the shape of caches and of a transaction's own writes.

**Invariant:** an object is in exactly the index entries that its fields name.  `cache.py` keeps one of these true to
the cluster; `transaction.py` lays one over it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from swarmd.manager.store.interface import AnyObject, T
from swarmd.proto.objects_pb2 import Cluster, Config, Holdings, Network, Node, Secret, Service, Task, Volume

Kind = type[AnyObject]
Key = tuple[Kind, str]  # kind, id

KINDS: tuple[Kind, ...] = (Cluster, Node, Service, Task, Network, Secret, Config, Volume, Holdings)
UNIQUELY_NAMED: frozenset[Kind] = frozenset((Service, Network, Secret, Config, Volume))


def key_of(obj: AnyObject) -> Key:
    return type(obj), obj.id


def name_of(obj: AnyObject) -> str:
    if isinstance(obj, Node):
        return obj.description.hostname
    return "" if isinstance(obj, Task | Holdings) else obj.spec.name


def version_of(obj: AnyObject | None) -> int:
    """The revision of its last change; 0 for what is not there."""
    return 0 if obj is None else obj.version.index


def kind_name(kind: Any) -> str:
    """The kind as a user and an etcd key say it."""
    return str(kind.DESCRIPTOR.name).lower()


def _index_values(obj: AnyObject) -> Iterator[tuple[str, str]]:
    if isinstance(obj, Task):
        yield "service_id", obj.service_id
        yield "node_id", obj.node_id
    else:
        yield "name", name_of(obj)


class Tables:
    def __init__(self) -> None:
        self._objects: dict[Kind, dict[str, AnyObject]] = {}
        # Dictionaries rather than sets: what is found comes in the order it was put, the same in every run.
        self._indexes: dict[tuple[Kind, str, str], dict[str, AnyObject]] = {}

    def get(self, kind: type[T], id: str) -> T | None:
        return cast("T | None", self.lookup((cast("Kind", kind), id)))

    def lookup(self, key: Key) -> AnyObject | None:
        return self._objects.get(key[0], {}).get(key[1])

    def find(
        self, kind: type[T], *, name: str | None = None, service_id: str | None = None, node_id: str | None = None
    ) -> Sequence[T]:
        return cast("Sequence[T]", list(self._found(cast("Kind", kind), name, service_id, node_id).values()))

    def _found(self, kind: Kind, name: str | None, service_id: str | None, node_id: str | None) -> dict[str, AnyObject]:
        asked = (("name", name), ("service_id", service_id), ("node_id", node_id))
        match [(index, value) for index, value in asked if value is not None]:
            case []:
                return self._objects.get(kind, {})
            case [(index, value)]:
                return self._indexes.get((kind, index, value), {})
            case _:
                raise ValueError("find takes one index at most")

    def put(self, obj: AnyObject) -> AnyObject | None:
        """Hold obj; return what was there before."""
        old = self.discard(key_of(obj))
        kind = type(obj)
        self._objects.setdefault(kind, {})[obj.id] = obj
        for index, value in _index_values(obj):
            self._indexes.setdefault((kind, index, value), {})[obj.id] = obj
        return old

    def discard(self, key: Key) -> AnyObject | None:
        """Forget an object; return it if it was there."""
        kind, id = key
        old = self._objects.get(kind, {}).pop(id, None)
        if old is not None:
            for index, value in _index_values(old):
                entries = self._indexes[kind, index, value]
                del entries[id]
                if not entries:
                    del self._indexes[kind, index, value]
        return old

    def keys(self) -> list[Key]:
        return [(kind, id) for kind, objects in self._objects.items() for id in objects]
