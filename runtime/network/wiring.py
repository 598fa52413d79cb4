"""Puts networks and sandboxes into the kernel: the synchronous work that runs on the network thread.

Everything here is idempotent or undone by `unwire`, and touches only interfaces and the table with our prefix.
"""

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.model import PortMapping
from swarmd.runtime.network import overlay, ruleset
from swarmd.runtime.network.ipam import mac_of
from swarmd.runtime.network.netlink import Netlink
from swarmd.runtime.network.netns import Kernel, drop
from swarmd.runtime.network.nft import Nft
from swarmd.runtime.network.ruleset import Balanced, BridgeRule, PortRule
from swarmd.runtime.network.values import Attachment, Overlay, Record

VXLAN_OVERHEAD = 50
SYSCTL = Path("/proc/sys/net/ipv4")


class Wiring:
    def __init__(self, kernel: Kernel, prefix: str) -> None:
        self.kernel = kernel
        self.table = f"swarmd-{prefix.removeprefix('sd')}"
        self._prefix = prefix

    def open(self) -> None:
        self._netlink = Netlink()
        self._nft = Nft()
        (SYSCTL / "ip_forward").write_text("1")

    def close(self) -> None:
        self._nft.close()
        self._netlink.close()

    # ------------------------------------------------------------ bridges and overlays

    def ensure_bridge(self, name: str, gateway: str, prefix: str, mtu: int = 1500) -> None:
        """Make the bridge, or adopt it as it is: containers may be on it."""
        link = self._netlink.links().get(name)
        if link is None:
            self._netlink.add_bridge(name, mac_of(gateway), mtu)
            link = self._netlink.links()[name]
        self._netlink.add_address(link.index, f"{gateway}/{prefix}")
        self._netlink.set_up(link.index)
        # A connection to a published port at 127.0.0.1 leaves by the bridge; chain `guard` keeps the way back closed.
        (SYSCTL / f"conf/{name}/route_localnet").write_text("1")

    def remove_link(self, name: str) -> None:
        if name in self._netlink.links():
            self._netlink.delete_link(name)

    def ensure_overlay(self, bridge: str, vxlan: str, net: Overlay, remote: Mapping[str, str]) -> int:
        """Return the overlay's MTU: that of the interface with the node's address, less VXLAN's headers."""
        links = self._netlink.links()
        by_index = {link.index: link for link in links.values()}
        under = [by_index[i].mtu for i, a in self._netlink.addresses() if str(a.ip) == net.node_addr and i in by_index]
        mtu = min(min(under, default=1500), 1500) - VXLAN_OVERHEAD
        self.ensure_bridge(bridge, net.gateway, net.subnet.partition("/")[2], mtu)
        if vxlan not in links:
            master = self._netlink.links()[bridge].index
            self._netlink.add_vxlan(vxlan, vni=net.vni, local=net.node_addr, port=net.port, master=master, mtu=mtu)
        overlay.mend(self._netlink, self._netlink.links()[vxlan].index, dict(remote))
        return mtu

    def our_links(self) -> set[str]:
        return {name for name in self._netlink.links() if name.startswith(self._prefix)}

    def taken_subnets(self) -> list[str]:
        return [str(interface.network) for _, interface in self._netlink.addresses()]

    # ------------------------------------------------------------ sandboxes

    def wire(self, record: Record, path: Path, local: Sequence[str], netns: str = "") -> None:
        fd = self.kernel.take(path, netns)
        try:
            for attachment in record.attachments:
                self._wire_one(attachment, fd)
            if record.attachments:
                with self.kernel.inside(fd), Netlink() as inner:
                    configure(inner, record, record.attachments)
        finally:
            os.close(fd)
        text = ruleset.ports("add", self.table, port_rules(record))
        text += ruleset.elements("add", self.table, "local_tasks", local)
        if text:
            self._nft.run(text)

    def connect(self, before: Record, after: Record, path: Path) -> None:
        """Add to a sandbox in use what it did not have before."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            new = [attachment for attachment in after.attachments if attachment not in before.attachments]
            for attachment in new:
                self._wire_one(attachment, fd)
            with self.kernel.inside(fd), Netlink() as inner:
                configure(inner, after, new)
        finally:
            os.close(fd)
        self._move_ports(before, after)

    def disconnect(self, before: Record, after: Record, path: Path) -> None:
        """Take from a sandbox in use what it is no longer to have; again without harm."""
        gone = [attachment for attachment in before.attachments if attachment not in after.attachments]
        for attachment in gone:
            self.remove_link(attachment.host_interface)  # the end inside goes with it, and its routes
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self.kernel.inside(fd), Netlink() as inner:
                for attachment in gone:
                    with contextlib.suppress(OSError):  # the first with a gateway has none
                        inner.delete_source_rule(attachment.ip, 100 + attachment.number)
                configure(inner, after, ())
        finally:
            os.close(fd)
        self._move_ports(before, after)

    def _move_ports(self, before: Record, after: Record) -> None:
        if (old := port_rules(before)) != (new := port_rules(after)):
            for rule in old:
                with contextlib.suppress(RuntimeFault):  # moved before
                    self._nft.run(ruleset.ports("delete", self.table, [rule]))
            if new:
                self._nft.run(ruleset.ports("add", self.table, new))

    def _wire_one(self, attachment: Attachment, fd: int) -> None:
        self._netlink.add_veth(
            attachment.host_interface,
            master=socket.if_nametoindex(attachment.bridge),
            peer=attachment.interface,
            peer_mac=attachment.mac,
            peer_netns=fd,
            mtu=attachment.mtu,
        )
        self._netlink.set_hairpin(socket.if_nametoindex(attachment.host_interface))

    def unwire(self, record: Record, path: Path, local: Sequence[str]) -> None:
        for text in (
            *(ruleset.ports("delete", self.table, [rule]) for rule in port_rules(record)),
            *(ruleset.elements("delete", self.table, "local_tasks", [ip]) for ip in local),
        ):
            with contextlib.suppress(RuntimeFault):  # half wired, or released before
                self._nft.run(text)
        drop(path)

    def program(
        self,
        bridges: Sequence[BridgeRule],
        records: Sequence[Record],
        local: Sequence[str],
        balanced: Mapping[str, Balanced],
    ) -> None:
        """Write the whole table in one transaction; connections that exist keep their translation."""
        text = ruleset.table(self.table)
        text += "".join(ruleset.bridge("add", self.table, rule) for rule in bridges)
        text += ruleset.outward(self.table, [rule.subnet for rule in bridges if not rule.internal])
        text += ruleset.ports("add", self.table, [rule for record in records for rule in port_rules(record)])
        text += ruleset.elements("add", self.table, "local_tasks", local)
        text += ruleset.ingress(self.table, {}, balanced)
        self._nft.run(text)

    def change_ingress(self, old: Mapping[str, Balanced], new: Mapping[str, Balanced]) -> None:
        if text := ruleset.ingress(self.table, old, new):
            self._nft.run(text)

    def programmed(self) -> bool:
        return f"table ip {self.table}\n" in self._nft.run("list tables\n")

    def set_virtual_addresses(self, path: Path, text: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self.kernel.inside(fd), Nft() as inner:
                inner.run(text)
        finally:
            os.close(fd)


def configure(inner: Netlink, record: Record, new: Sequence[Attachment]) -> None:
    """Addresses and routes inside; answers from an address that is not the default route's leave by its own network."""
    links = inner.links()
    default = next((a for a in record.attachments if a.gateway), None)
    for attachment in new:
        index = links[attachment.interface].index
        inner.set_up(index)
        inner.add_address(index, attachment.address)
        if attachment.gateway and attachment is not default:
            inner.add_default_route(attachment.gateway, index, table=100 + attachment.number)
            inner.add_source_rule(attachment.ip, 100 + attachment.number)
    if default:
        inner.add_default_route(default.gateway, links[default.interface].index)


def port_rules(record: Record) -> list[PortRule]:
    if not record.attachments:
        return []
    target = next((a for a in record.attachments if a.gateway), record.attachments[0]).ip
    return [PortRule(p.protocol, host_ip_of(p), p.host_port, target, p.container_port) for p in record.ports]


def host_ip_of(mapping: PortMapping) -> str:
    return "" if mapping.host_ip == "0.0.0.0" else mapping.host_ip
