"""Derives each overlay's forwarding and ARP entries, balanced ports and service addresses from the cluster's state.

Pure, except `mend`, which compares one VXLAN device with what it should hold and changes only what differs.
"""

import socket

from swarmd.runtime.network.ipam import mac_of
from swarmd.runtime.network.netlink import Neighbour, Netlink
from swarmd.runtime.network.ruleset import Balanced
from swarmd.runtime.network.values import Endpoint, NodeEndpoint, Overlay, OverlayState


def remote_addresses(state: OverlayState, overlay: Overlay) -> dict[str, str]:
    """Map each address of the overlay that lives on another node to that node's VTEP."""
    everyone: list[Endpoint | NodeEndpoint] = [*state.endpoints, *state.node_endpoints]
    return {e.address: e.node_addr for e in everyone if e.network_id == overlay.id and e.node_addr != overlay.node_addr}


def serving(state: OverlayState, service_id: str, network_id: str) -> tuple[str, ...]:
    return tuple(
        sorted(
            e.address
            for e in state.endpoints
            if e.serving and e.service_id == service_id and e.network_id == network_id
        )
    )


def balanced_ports(state: OverlayState) -> dict[str, Balanced]:
    ingress = next((o.id for o in state.overlays if o.ingress), "")
    ports = [
        Balanced(port.protocol, port.published, port.target, serving(state, service.service_id, ingress))
        for service in state.services
        for port in service.ports
    ]
    return {port.chain: port for port in ports}


def service_addresses(state: OverlayState, networks: set[str]) -> dict[str, tuple[str, ...]]:
    """Map each service address on these networks to the tasks that serve it."""
    return {
        vip: serving(state, service.service_id, network)
        for service in state.services
        for network, vip in service.vips.items()
        if network in networks
    }


def names(state: OverlayState, network_id: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for endpoint in state.endpoints:
        if endpoint.network_id == network_id:
            for name in endpoint.names:
                found.setdefault(name.lower(), []).append(endpoint.address)
    for service in state.services:
        tasks = list(serving(state, service.service_id, network_id))
        vip = service.vips.get(network_id)
        for name in service.names:
            found[f"tasks.{name.lower()}"] = tasks
            found[name.lower()] = [vip] if vip else tasks
    return found


def mend(netlink: Netlink, index: int, remote: dict[str, str]) -> None:
    """Make the device's forwarding and ARP tables exactly these; the rest of the kernel's state is left alone."""
    arp = {Neighbour(index, ip, mac_of(ip)) for ip in remote}
    forwarding = {Neighbour(index, vtep, mac_of(ip)) for ip, vtep in remote.items()}
    for family, wanted in ((socket.AF_BRIDGE, forwarding), (socket.AF_INET, arp)):
        present = netlink.neighbours(family, index)
        for entry in present - wanted:
            netlink.delete_neighbour(family, entry)
        for entry in wanted - present:
            netlink.set_neighbour(family, entry)
