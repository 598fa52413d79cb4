"""The Engine API's list filters, one entry per key: any value of a key has to match (of labels, each), and all keys."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from swarmd.manager.store.interface import View
from swarmd.proto.control_pb2 import Values
from swarmd.proto.errors import Invalid
from swarmd.proto.objects_pb2 import (
    NODE_ROLE_MANAGER,
    TASK_STATE_RUNNING,
    Network,
    Node,
    NodeAvailability,
    Service,
    Task,
)

# Whether an object meets the values of a key; the view resolves names.
Filter = Callable[[Any, Sequence[str], View], bool]


def select(objects: Iterable[Any], filters: Mapping[str, Values], known: Mapping[str, Filter], view: View) -> list[Any]:
    """Raise Invalid, naming the key, if it is not one of this kind's."""
    unknown = sorted(set(filters) - set(known))
    if unknown:
        raise Invalid(f"there is no filter {unknown[0]!r} here; there are {', '.join(sorted(known))}")
    wanted = [(known[key], list(values.values)) for key, values in filters.items() if values.values]
    return [obj for obj in objects if all(matches(obj, values, view) for matches, values in wanted)]


def prefix(read: Callable[[Any], str]) -> Filter:
    return lambda obj, values, view: read(obj).startswith(tuple(values))


def one_of(read: Callable[[Any], str], allowed: Sequence[str], key: str) -> Filter:
    def matches(obj: Any, values: Sequence[str], view: View) -> bool:
        for value in values:
            if value not in allowed:
                raise Invalid(f"filter {key}={value} is not understood; there are {', '.join(allowed)}")
        return read(obj) in values

    return matches


def labels(read: Callable[[Any], Mapping[str, str]]) -> Filter:
    """`key` or `key=value`, all of them."""

    def matches(obj: Any, values: Sequence[str], view: View) -> bool:
        held = read(obj)
        for wanted in values:
            key, has_value, value = wanted.partition("=")
            if key not in held or (has_value and held[key] != value):
                return False
        return True

    return matches


def _service(task: Task, values: Sequence[str], view: View) -> bool:
    """A name is that of the service which has it now; tasks of a removed one answer to it only while nobody has."""
    for value in values:
        named = {service.id for service in view.find(Service, name=value)}
        if task.service_id in named or task.service_id.startswith(value):
            return True
        if not named and task.service_name == value:
            return True
    return False


def _node(task: Task, values: Sequence[str], view: View) -> bool:
    if not task.node_id:
        return False
    node = view.get(Node, task.node_id)
    hostname = node.description.hostname if node is not None else ""
    return any(task.node_id.startswith(value) or hostname == value for value in values)


def _desired_state(task: Task) -> str:
    return "running" if task.desired_state <= TASK_STATE_RUNNING else "shutdown"


def task_name(task: Task) -> str:
    return f"{task.service_name}.{task.slot}.{task.id}"


def _role(node: Node) -> str:
    return "manager" if node.spec.role == NODE_ROLE_MANAGER else "worker"


def _availability(node: Node) -> str:
    return NodeAvailability.Name(node.spec.availability).removeprefix("NODE_AVAILABILITY_").lower()


BY_KIND: dict[Any, dict[str, Filter]] = {
    Service: {
        "id": prefix(lambda service: service.id),
        "name": prefix(lambda service: service.spec.name),
        "label": labels(lambda service: service.spec.labels),
        "mode": one_of(lambda service: "replicated", ("replicated", "global"), "mode"),
    },
    Task: {
        "id": prefix(lambda task: task.id),
        "name": prefix(task_name),
        "service": _service,
        "node": _node,
        "desired-state": one_of(_desired_state, ("running", "shutdown", "accepted"), "desired-state"),
        "label": labels(lambda task: task.spec.container.labels),
    },
    Node: {
        "id": prefix(lambda node: node.id),
        "name": prefix(lambda node: node.description.hostname),
        "label": labels(lambda node: node.description.engine.labels),
        "node.label": labels(lambda node: node.spec.labels),
        "role": one_of(_role, ("manager", "worker"), "role"),
        "membership": one_of(lambda node: "accepted", ("accepted", "pending"), "membership"),
        "availability": one_of(_availability, ("active", "pause", "drain"), "availability"),
    },
    Network: {
        "id": prefix(lambda network: network.id),
        "name": prefix(lambda network: network.spec.name),
        "label": labels(lambda network: network.spec.labels),
        "driver": one_of(lambda network: network.spec.driver, ("overlay", "bridge", "host", "none"), "driver"),
        "scope": one_of(lambda network: "swarm", ("swarm", "local"), "scope"),
        "type": one_of(lambda network: "custom", ("custom", "builtin"), "type"),
    },
}
