"""What this node knows of the cluster's networks, and the kernel state that follows from it.

Kept on disk, so that a node that restarts without a manager still routes as it did.
"""

from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError

from swarmd.proto.dispatcher_pb2 import Assignments, Change, NetworkEndpoint, NodeEndpoint, ServiceEndpoint
from swarmd.proto.identity import write_atomically
from swarmd.proto.objects_pb2 import PUBLISH_MODE_INGRESS, Network
from swarmd.runtime.network.values import Endpoint, IngressPort, Overlay, OverlayState, ServiceRoute
from swarmd.runtime.network.values import NodeEndpoint as RuntimeNodeEndpoint


class NetworkState:
    def __init__(self, path: Path, node_id: str) -> None:
        self._path = path
        self._node_id = node_id
        self._networks: dict[str, Network] = {}
        self._services: dict[str, ServiceEndpoint] = {}
        self._endpoints: dict[tuple[str, str], NetworkEndpoint] = {}
        self._nodes: dict[tuple[str, str], NodeEndpoint] = {}
        with suppress(FileNotFoundError, DecodeError):  # a manager tells it all again
            self.update(Assignments.FromString(path.read_bytes()))

    def update(self, told: Assignments) -> None:
        if told.full:
            for known in (self._networks, self._services, self._endpoints, self._nodes):
                known.clear()
        for change in told.changes:
            match change.WhichOneof("of"):
                case "network":
                    self._networks[change.network.id] = change.network
                case "service":
                    self._services[change.service.service_id] = change.service
                case "endpoint":
                    self._endpoints[change.endpoint.network_id, change.endpoint.task_id] = change.endpoint
                case "node_endpoint":
                    node = change.node_endpoint
                    self._nodes[node.network_id, node.node_id] = node
        for removal in told.removals:
            match removal.WhichOneof("of"):
                case "network_id":
                    self._networks.pop(removal.network_id, None)
                case "service_id":
                    self._services.pop(removal.service_id, None)
                case "endpoint":
                    self._endpoints.pop((removal.endpoint.network_id, removal.endpoint.task_id), None)
                case "node_endpoint":
                    self._nodes.pop((removal.node_endpoint.network_id, removal.node_endpoint.node_id), None)

    def save(self) -> None:
        changes = [
            *(Change(network=network) for network in self._networks.values()),
            *(Change(service=service) for service in self._services.values()),
            *(Change(endpoint=endpoint) for endpoint in self._endpoints.values()),
            *(Change(node_endpoint=node) for node in self._nodes.values()),
        ]
        write_atomically(self._path, Assignments(full=True, changes=changes).SerializeToString())

    def desired(self) -> OverlayState:
        """A network is there once this node has an address on it."""
        here = {network_id: node for (network_id, id), node in self._nodes.items() if id == self._node_id}
        overlays = [_overlay(network, here[network.id]) for network in self._networks.values() if network.id in here]
        names = {service_id: self._names(service_id) for service_id in self._services}
        return OverlayState(
            overlays=tuple(overlays),
            endpoints=tuple(_endpoint(endpoint) for (id, _), endpoint in self._endpoints.items() if id in here),
            node_endpoints=tuple(
                RuntimeNodeEndpoint(node.network_id, node.address, node.node_addr)
                for (network_id, id), node in self._nodes.items()
                if network_id in here and id != self._node_id
            ),
            services=tuple(_route(service, names[service.service_id]) for service in self._services.values()),
        )

    def _names(self, service_id: str) -> tuple[str, ...]:
        """The service's name and the aliases its tasks have."""
        names = {self._services[service_id].service_name: 0}
        for endpoint in self._endpoints.values():
            if endpoint.service_id == service_id:
                names |= dict.fromkeys(endpoint.aliases, 0)
        return tuple(names)


def _overlay(network: Network, here: NodeEndpoint) -> Overlay:
    return Overlay(
        id=network.id,
        name=network.spec.name,
        subnet=network.subnet,
        vni=network.vni,
        gateway=here.address,
        node_addr=here.node_addr,
        internal=network.spec.internal,
        ingress=network.spec.ingress,
    )


def _endpoint(endpoint: NetworkEndpoint) -> Endpoint:
    return Endpoint(
        network_id=endpoint.network_id,
        address=endpoint.address,
        node_addr=endpoint.node_addr,
        service_id=endpoint.service_id,
        names=(endpoint.task_name,),
        serving=endpoint.serving,
    )


def _route(service: ServiceEndpoint, names: tuple[str, ...]) -> ServiceRoute:
    return ServiceRoute(
        service_id=service.service_id,
        names=names,
        vips={vip.network_id: vip.addr.partition("/")[0] for vip in service.virtual_ips},
        ports=tuple(
            IngressPort(port.protocol, port.published_port, port.target_port)
            for port in service.ports
            if port.publish_mode == PUBLISH_MODE_INGRESS
        ),
    )
