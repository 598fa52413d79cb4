"""Where a task may run: rules, each with the reason that users read when it is broken.

A filter looks at a demand once and yields the questions to ask of each node.  Filters hold no state; adding a rule is
adding a function to one of the lists.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from swarmd.manager.scheduler.index import Demand, NodeInfo, architecture
from swarmd.proto.objects_pb2 import NODE_AVAILABILITY_ACTIVE, NODE_STATE_READY, Node


class Rule(NamedTuple):
    reason: str
    broken: Callable[[NodeInfo], bool]


Filter = Callable[[Demand], Iterable[Rule]]


def node_not_ready(demand: Demand) -> Iterator[Rule]:
    yield Rule("node not ready", lambda info: _node(info).status.state != NODE_STATE_READY)


def node_not_active(demand: Demand) -> Iterator[Rule]:
    yield Rule("node not active", lambda info: _node(info).spec.availability != NODE_AVAILABILITY_ACTIVE)


def unsupported_platform(demand: Demand) -> Iterator[Rule]:
    if wanted := demand.platforms:
        yield Rule("unsupported platform", lambda info: not any(_runs(info, *platform) for platform in wanted))


def unmet_constraint(demand: Demand) -> Iterator[Rule]:
    for constraint in demand.constraints:
        yield Rule(f"constraint {constraint} not met", lambda info, c=constraint: not c.matches(_node(info)))  # type: ignore[misc]


def insufficient_cpu(demand: Demand) -> Iterator[Rule]:
    if demand.cpu:
        yield Rule("insufficient cpu", lambda info: info.free_cpu < demand.cpu)


def insufficient_memory(demand: Demand) -> Iterator[Rule]:
    if demand.memory:
        yield Rule("insufficient memory", lambda info: info.free_memory < demand.memory)


def host_port_in_use(demand: Demand) -> Iterator[Rule]:
    for protocol, port in demand.ports:
        yield Rule(f"host port {port}/{protocol} in use", lambda info, p=(protocol, port): info.ports[p] > 0)  # type: ignore[misc]


# Decided by the node's own state and remembered until that changes. A node is charged to the first rule it breaks.
STANDING: tuple[Filter, ...] = (node_not_ready, node_not_active, unsupported_platform, unmet_constraint)

# Decided by what runs there. Within a pass nodes only fill up, so one that breaks these stays out of it.
CAPACITY: tuple[Filter, ...] = (insufficient_cpu, insufficient_memory, host_port_in_use)


def rules(filters: Iterable[Filter], demand: Demand) -> list[Rule]:
    return [rule for filter in filters for rule in filter(demand)]


def max_replicas_per_node_reached(demand: Demand, running: Callable[[str], int]) -> list[Rule]:
    """running: tasks of the service on a node."""
    most = demand.placement.max_replicas
    return [Rule("max replicas per node reached", lambda info: running(info.id) >= most)] if most else []


def reason(rules: Iterable[Rule], info: NodeInfo) -> str:
    """The first rule that the node breaks; empty if none."""
    return next((rule.reason for rule in rules if rule.broken(info)), "")


def _node(info: NodeInfo) -> Node:
    assert info.node is not None
    return info.node


def _runs(info: NodeInfo, os: str, arch: str) -> bool:
    """A platform that names no system or architecture is any."""
    platform = _node(info).description.platform
    return os in ("", platform.os) and arch in ("", architecture(platform.architecture))
