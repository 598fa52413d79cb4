"""What each object needs of addresses and ports, taken from the ledger.

Every function looks at one object as it is now and returns what has to be written for it, or None when it has all it
needs.  They need no particular order or event: run again they find nothing left to do.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from swarmd.manager.allocator.grants import NetworkGrant, NodeGrant, ServiceGrant, TaskGrant
from swarmd.manager.allocator.ledger import Ledger, is_ingress
from swarmd.manager.allocator.pools import next_subnet
from swarmd.manager.store.interface import View
from swarmd.proto.errors import AlreadyExists, FailedPrecondition, SwarmdError
from swarmd.proto.objects_pb2 import (
    ENDPOINT_MODE_VIP,
    Cluster,
    Endpoint,
    Network,
    NetworkAttachment,
    NetworkAttachmentConfig,
    Node,
    PortConfig,
    Service,
    Task,
    VirtualIP,
)
from swarmd.proto.task_states import ENDED

_DEFAULT_POOL, _DEFAULT_SIZE = ("10.0.0.0/8",), 20


def for_network(view: View, ledger: Ledger, network: Network) -> NetworkGrant | None:
    """Raises Exhausted when no subnet is left, AlreadyExists when the one asked for overlaps another."""
    if network.subnet or ledger.is_open(network.id):
        return None
    subnet = _subnet(view, ledger, network)
    return NetworkGrant(network, str(subnet), ledger.open_network(network, subnet))


def _subnet(view: View, ledger: Ledger, network: Network) -> ipaddress.IPv4Network:
    asked = next((config.subnet for config in network.spec.ipam if config.subnet), "")
    if not asked:
        cluster = next(iter(view.find(Cluster)), Cluster())
        pools = list(cluster.default_addr_pool) or _DEFAULT_POOL
        return next_subnet(pools, cluster.subnet_size or _DEFAULT_SIZE, ledger.subnets)
    subnet = ipaddress.IPv4Network(asked, strict=False)
    if other := next((each for each in ledger.subnets if each.overlaps(subnet)), None):
        raise AlreadyExists(f"subnet {subnet} overlaps {other} of another network")
    return subnet


def for_service(view: View, ledger: Ledger, service: Service) -> ServiceGrant | None:
    """Its published ports, and in vip mode an address on each of its networks.

    Raises, with the reason for the service's tasks, if anything can't be had; what it had before stays its own.
    """
    ports = _ports(view, ledger, service)
    networks = _networks(view, service.spec.task.networks, ports)
    vips: list[VirtualIP] = []
    if service.spec.endpoint.mode == ENDPOINT_MODE_VIP:
        vips = [VirtualIP(network_id=n.id, addr=ledger.address(service.id, n)) for n, _ in networks]
    ledger.keep_only(service.id, [vip.network_id for vip in vips])
    ledger.unpublish(service.id, [(port.protocol, port.published_port) for port in ports if is_ingress(port)])
    endpoint = Endpoint(ports=ports, virtual_ips=vips)
    if ports or vips:
        endpoint.spec.CopyFrom(service.spec.endpoint)
    return ServiceGrant(service, endpoint) if endpoint != service.endpoint else None


def _ports(view: View, ledger: Ledger, service: Service) -> list[PortConfig]:
    had = {
        (port.protocol, port.target_port): port.published_port for port in service.endpoint.ports if is_ingress(port)
    }
    given: list[PortConfig] = []
    for wanted in service.spec.endpoint.ports:
        port = PortConfig()
        port.CopyFrom(wanted)
        port.protocol = port.protocol or "tcp"
        if is_ingress(port):
            # A dynamic port stays the same as long as its target is published.
            port.published_port = port.published_port or had.pop((port.protocol, port.target_port), 0)
            try:
                port.published_port = ledger.publish(service.id, port)
            except AlreadyExists as taken:
                other = view.get(Service, str(taken))
                name = other.spec.name if other else str(taken)
                raise AlreadyExists(
                    f"port {port.published_port}/{port.protocol} is already published by service {name}"
                ) from None
        given.append(port)
    return given


def _networks(
    view: View, attachments: Iterable[NetworkAttachmentConfig], ports: Iterable[PortConfig]
) -> list[tuple[Network, Sequence[str]]]:
    """The networks with the aliases wanted there; that of published ports comes last."""
    found: list[tuple[Network, Sequence[str]]] = []
    for attachment in attachments:
        network = view.get(Network, attachment.target)
        if network is None or network.removing:
            raise FailedPrecondition(f"network {attachment.target} is not there any more")
        found.append((network, attachment.aliases))
    if any(map(is_ingress, ports)):
        ingress = ingress_network(view)
        if ingress is None:
            raise FailedPrecondition("there is no ingress network to publish ports on: create one, or use mode=host")
        found.append((ingress, ()))
    return found


def for_task(view: View, ledger: Ledger, task: Task, refused: str = "") -> TaskGrant:
    """refused: why its service could not be served, if so."""
    service = view.get(Service, task.service_id)
    if service is None or refused:
        return TaskGrant(task, why=refused or "its service is gone")
    ports = service.endpoint.ports
    try:
        attachments = [
            NetworkAttachment(
                network_id=network.id,
                network_name=network.spec.name,
                addresses=[ledger.address(task.id, network)],
                aliases=aliases,
            )
            for network, aliases in _networks(view, task.spec.networks, ports)
        ]
    except SwarmdError as error:
        ledger.keep_only(task.id, ())
        return TaskGrant(task, why=str(error))
    return TaskGrant(task, attachments, ports)


def for_node(view: View, ledger: Ledger, node: Node) -> NodeGrant | None:
    """An address, the gateway of its tasks, on the ingress network and on those of every task recorded there.

    Ended tasks count too, so that the gateway does not change whenever the only task is replaced.
    Raises Exhausted.
    """
    ingress = ingress_network(view)
    wanted = {ingress.id: ingress} if ingress else {}
    for task in view.find(Task, node_id=node.id):
        for attachment in task.networks:
            network = view.get(Network, attachment.network_id)
            if network is not None:
                wanted[network.id] = network
    attachments = [
        NetworkAttachment(
            network_id=network.id, network_name=network.spec.name, addresses=[ledger.address(node.id, network)]
        )
        for network in sorted(wanted.values(), key=lambda network: network.id)
        if ledger.is_open(network.id)
    ]
    ledger.keep_only(node.id, wanted)
    return NodeGrant(node, attachments) if attachments != list(node.networks) else None


def is_unused(view: View, network: Network) -> bool:
    """Whether a network with a tombstone can go."""
    return network.removing and not any(
        attachment.network_id == network.id
        for task in view.find(Task)
        if task.status.state not in ENDED
        for attachment in task.networks
    )


def ingress_network(view: View) -> Network | None:
    return next((n for n in view.find(Network) if n.spec.ingress and not n.removing), None)
