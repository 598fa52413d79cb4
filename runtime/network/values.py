"""Networks, sandboxes, and the cluster's overlays as one node needs them.

Written to the state directory as JSON.  `OverlayState` is always the whole desired state, never a change to it.
"""

from typing import NamedTuple

from msgspec import field

from swarmd.runtime.model import Link, NetworkState, PortMapping, Struct


class NetworkInfo(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    driver: str = "bridge"  # bridge, overlay
    subnet: str
    gateway: str
    internal: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    bridge: str = ""


class Attachment(Struct, frozen=True, kw_only=True):
    """One interface of a container."""

    network_id: str
    network: str
    address: str  # CIDR
    gateway: str
    bridge: str
    mtu: int = 1500
    host_interface: str
    mac: str
    aliases: tuple[str, ...] = ()
    number: int = 0  # of its interface inside, ethN, and of its own routing table; none of one container has another's

    @property
    def interface(self) -> str:
        return f"eth{self.number}"

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]


class Record(Struct, frozen=True):
    """Everything a container holds of the network; written before it is acquired."""

    container_id: str
    name: str
    attachments: tuple[Attachment, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    links: tuple[Link, ...] = ()


class Sandbox(NamedTuple):
    """netns_path is "" for a container on the host's network."""

    netns_path: str
    networks: tuple[NetworkState, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    nameservers: tuple[str, ...] = ()
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()  # lines of /etc/hosts: address, names


class Overlay(Struct, frozen=True):
    id: str
    name: str
    subnet: str
    vni: int
    gateway: str  # this node's address on it, no prefix
    node_addr: str  # this node's VTEP
    port: int = 4789
    internal: bool = False
    ingress: bool = False


class Endpoint(Struct, frozen=True):
    """A task on an overlay; names are those DNS answers with this address; serving: it takes traffic of its service."""

    network_id: str
    address: str
    node_addr: str
    service_id: str = ""
    names: tuple[str, ...] = ()
    serving: bool = False


class NodeEndpoint(Struct, frozen=True):
    network_id: str
    address: str
    node_addr: str


class IngressPort(Struct, frozen=True):
    protocol: str
    published: int
    target: int


class ServiceRoute(Struct, frozen=True):
    """names answer the service's address on a network (vips), or its serving tasks if it has none; ports: ingress."""

    service_id: str
    names: tuple[str, ...]
    vips: dict[str, str] = field(default_factory=dict)
    ports: tuple[IngressPort, ...] = ()


class OverlayState(Struct, frozen=True):
    overlays: tuple[Overlay, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    node_endpoints: tuple[NodeEndpoint, ...] = ()
    services: tuple[ServiceRoute, ...] = ()
