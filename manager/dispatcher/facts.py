"""What nodes have to know, cut into facts: a key, a message, and the topics that the fact belongs to.

    topic       who follows it                              its facts
    node        that node                                   its tasks, until they ended
    network     nodes with a live task on it; all, if       the network, where tasks and nodes are reached on it,
                it is the ingress network                   the services on it
    everywhere  all                                         services with ingress ports

A function of one object and the address of its node: no state.  board.py keeps the facts, feed.py sends them.
"""

from collections.abc import Iterator

from swarmd.manager.store.interface import AnyObject, View
from swarmd.proto.dispatcher_pb2 import Change, NetworkEndpoint, NodeEndpoint, Removal, ServiceEndpoint
from swarmd.proto.objects_pb2 import PUBLISH_MODE_INGRESS, Network, NetworkAttachment, Node, Service, Task
from swarmd.proto.task_states import ASSIGNED, ENDED, RUNNING

Topic = tuple[str, str]
Key = tuple[str, ...]  # kind of fact, ids
Facts = dict[tuple[Topic, Key], Change]

EVERYWHERE: Topic = ("everywhere", "")
_ORDER = {"network": 0, "service": 1, "node": 2, "endpoint": 3, "task": 4}  # what a task needs comes before it


def node_topic(node_id: str) -> Topic:
    return "node", node_id


def network_topic(network_id: str) -> Topic:
    return "network", network_id


def rank(key: Key) -> int:
    return _ORDER[key[0]]


def facts_of(view: View, obj: AnyObject) -> Facts:
    match obj:
        case Task():
            return dict(_of_task(view, obj))
        case Service():
            return dict(_of_service(obj))
        case Node():
            return dict(_of_node(obj))
        case Network():
            return {(network_topic(obj.id), ("network", obj.id)): Change(network=obj)}
        case _:
            return {}


def _of_task(view: View, task: Task) -> Iterator[tuple[tuple[Topic, Key], Change]]:
    if not task.node_id or task.status.state < ASSIGNED or task.status.state in ENDED:
        return
    yield (node_topic(task.node_id), ("task", task.id)), Change(task=task)
    reached = reached_at(view.get(Node, task.node_id))
    for attachment in task.networks:
        if attachment.addresses and reached:  # of a node that was removed, tasks may not yet have been given up
            endpoint = _endpoint(task, attachment, reached)
            yield (
                (network_topic(attachment.network_id), ("endpoint", attachment.network_id, task.id)),
                Change(endpoint=endpoint),
            )


def _endpoint(task: Task, attachment: NetworkAttachment, node_addr: str) -> NetworkEndpoint:
    return NetworkEndpoint(
        task_id=task.id,
        network_id=attachment.network_id,
        service_id=task.service_id,
        service_name=task.service_name,
        task_name=f"{task.service_name}.{task.slot}.{task.id}",
        aliases=attachment.aliases,
        address=_without_prefix(attachment.addresses[0]),
        node_addr=node_addr,
        serving=task.status.state == RUNNING and task.desired_state == RUNNING,
    )


def _of_service(service: Service) -> Iterator[tuple[tuple[Topic, Key], Change]]:
    endpoint = service.endpoint
    change = Change(
        service=ServiceEndpoint(
            service_id=service.id,
            service_name=service.spec.name,
            ports=endpoint.ports,
            virtual_ips=endpoint.virtual_ips,
        )
    )
    networks = {vip.network_id for vip in endpoint.virtual_ips}
    networks |= {attachment.target for attachment in (*service.spec.task.networks, *service.spec.networks)}
    topics = [network_topic(network_id) for network_id in sorted(networks)]
    if any(port.publish_mode == PUBLISH_MODE_INGRESS for port in endpoint.ports):
        topics.append(EVERYWHERE)
    for topic in topics:
        yield (topic, ("service", service.id)), change


def _of_node(node: Node) -> Iterator[tuple[tuple[Topic, Key], Change]]:
    for attachment in node.networks:
        if attachment.addresses:
            endpoint = NodeEndpoint(
                node_id=node.id,
                network_id=attachment.network_id,
                address=_without_prefix(attachment.addresses[0]),
                node_addr=reached_at(node),
            )
            yield (
                (network_topic(attachment.network_id), ("node", attachment.network_id, node.id)),
                Change(node_endpoint=endpoint),
            )


def reached_at(node: Node | None) -> str:
    return "" if node is None else node.status.addr or node.description.addr


def _without_prefix(address: str) -> str:
    return address.partition("/")[0]


def same(old: Change, new: Change) -> bool:
    """Whether a node that knows the old fact need not hear the new one: it made a task's status itself."""
    if old.WhichOneof("of") == new.WhichOneof("of") == "task":
        return _orders(old.task) == _orders(new.task)
    return old == new


def _orders(task: Task) -> tuple[object, ...]:
    return task.desired_state, task.spec, list(task.networks), list(task.ports)


def removal(key: Key) -> Removal:
    match key:
        case ("task", id):
            return Removal(task_id=id)
        case ("network", id):
            return Removal(network_id=id)
        case ("service", id):
            return Removal(service_id=id)
        case ("endpoint", network_id, task_id):
            return Removal(endpoint=NetworkEndpoint(task_id=task_id, network_id=network_id))
        case ("node", network_id, node_id):
            return Removal(node_endpoint=NodeEndpoint(node_id=node_id, network_id=network_id))
    raise ValueError(f"no fact has the key {key}")
