"""Who has which address and port.

Read from the store once, when this manager becomes the leader.  After that nobody else writes these fields, so what
was given here is known here, and commits only say what has come free.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable

from swarmd.manager.allocator.pools import FIRST_PORT, FIRST_VNI, LAST_PORT, LAST_VNI, Addresses, Numbers
from swarmd.manager.store.interface import AnyObject, View
from swarmd.proto.errors import AlreadyExists, FailedPrecondition
from swarmd.proto.objects_pb2 import PUBLISH_MODE_INGRESS, Network, Node, PortConfig, Service, Task
from swarmd.proto.task_states import ENDED


class Ledger:
    def __init__(self) -> None:
        self._addresses: dict[str, Addresses] = {}  # by network
        self._held: defaultdict[str, dict[str, str]] = defaultdict(dict)  # owner -> network -> CIDR
        self._why_closed: dict[str, str] = {}
        self._subnets: dict[str, ipaddress.IPv4Network] = {}
        self._vnis = Numbers("all network ids (VNI) are", FIRST_VNI, LAST_VNI)
        self._ports: dict[str, Numbers] = {}  # by protocol
        self._published: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)  # by service

    @classmethod
    def of(cls, view: View) -> "Ledger":
        ledger = cls()
        for network in view.find(Network):
            if network.subnet:
                ledger.open_network(network, ipaddress.IPv4Network(network.subnet), network.vni)
        for service in view.find(Service):
            for vip in service.endpoint.virtual_ips:
                ledger._claim(service.id, vip.network_id, vip.addr)
            for port in filter(is_ingress, service.endpoint.ports):
                ledger.publish(service.id, port)
        holders: list[Task | Node] = [task for task in view.find(Task) if task.status.state not in ENDED]
        holders += view.find(Node)
        for holder in holders:
            for attachment in holder.networks:
                for address in attachment.addresses:
                    ledger._claim(holder.id, attachment.network_id, address)
        return ledger

    # ------------------------------------------------------------ networks

    @property
    def subnets(self) -> list[ipaddress.IPv4Network]:
        return list(self._subnets.values())

    def open_network(self, network: Network, subnet: ipaddress.IPv4Network, vni: int = 0) -> int:
        """Start giving out its addresses; return its VNI, a new one if none is given."""
        if vni:
            self._vnis.claim(vni, network.id)
            self._vnis.resume_after(vni)
        reserved = [config.gateway for config in network.spec.ipam if config.gateway]
        self._subnets[network.id] = subnet
        self._addresses[network.id] = Addresses(network.spec.name, subnet, reserved)
        return vni or self._vnis.take(network.id)

    def close_network(self, network: Network) -> None:
        self._subnets.pop(network.id, None)
        self._why_closed.pop(network.id, None)
        self._addresses.pop(network.id, None)
        self._vnis.free(network.vni, network.id)

    def explain(self, network_id: str, why: str) -> None:
        """Say why a network has no subnet, for those who ask for its addresses."""
        self._why_closed[network_id] = why

    def is_open(self, network_id: str) -> bool:
        return network_id in self._addresses

    # ------------------------------------------------------------ addresses

    def address(self, owner: str, network: Network) -> str:
        """The owner's address on the network, as CIDR: the one it has or a new one; Exhausted if all are in use."""
        held = self._held[owner]
        if network.id not in held:
            if network.id not in self._addresses:
                why = self._why_closed.get(network.id) or "it has no subnet yet"
                raise FailedPrecondition(f"network {network.spec.name}: {why}")
            held[network.id] = self._addresses[network.id].take(owner)
        return held[network.id]

    def keep_only(self, owner: str, network_ids: Iterable[str]) -> bool:
        """Give back the owner's addresses on other networks; whether there were any."""
        kept = set(network_ids)
        returned = [network_id for network_id in self._held.get(owner, ()) if network_id not in kept]
        for network_id in returned:
            address = self._held[owner].pop(network_id)
            if network_id in self._addresses:
                self._addresses[network_id].free(address, owner)
        if not self._held.get(owner):
            self._held.pop(owner, None)
        return bool(returned)

    def _claim(self, owner: str, network_id: str, address: str) -> None:
        if network_id in self._addresses and self._addresses[network_id].claim(address, owner):
            self._held[owner][network_id] = address

    # ------------------------------------------------------------ ports

    def publish(self, service_id: str, port: PortConfig) -> int:
        """Take the published port of an ingress port, any of the dynamic range if it asks for none.

        Raises AlreadyExists naming the service's id that has it; Exhausted.
        """
        protocol = port.protocol or "tcp"
        ports = self._ports.setdefault(protocol, Numbers(f"published ports: all of {protocol}", FIRST_PORT, LAST_PORT))
        number = port.published_port or ports.take(service_id)
        owner = ports.claim(number, service_id)
        if owner != service_id:
            raise AlreadyExists(owner)
        self._published[service_id].add((protocol, number))
        return number

    def unpublish(self, service_id: str, kept: Iterable[tuple[str, int]] = ()) -> bool:
        returned = self._published.get(service_id, set()) - set(kept)
        for protocol, number in returned:
            self._ports[protocol].free(number, service_id)
        if returned:
            self._published[service_id] -= returned
        return bool(returned)

    def release(self, obj: AnyObject) -> bool:
        """Take back all that a deleted or ended object had; whether it had anything."""
        ports = self.unpublish(obj.id) if isinstance(obj, Service) else False
        self._published.pop(obj.id, None)
        if isinstance(obj, Network):
            self.close_network(obj)
            return True
        return self.keep_only(obj.id, ()) or ports


def is_ingress(port: PortConfig) -> bool:
    return port.publish_mode == PUBLISH_MODE_INGRESS
