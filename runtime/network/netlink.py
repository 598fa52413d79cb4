"""Speaks rtnetlink: links, addresses, routes, rules, neighbours and forwarding entries of the namespace it opened in.

Hand-written, because attaching a container is on the hot path and a message is a few dozen bytes.  A socket belongs to
the network namespace of the thread that opened it, for good.  Every call waits for the kernel's acknowledgement and
raises OSError naming the object.  See rtnetlink(7); constants are those of linux/rtnetlink.h and linux/if_link.h.
"""

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

NLM_REQUEST, NLM_ACK, NLM_EXCL, NLM_CREATE, NLM_REPLACE, NLM_APPEND, NLM_DUMP = 1, 4, 0x200, 0x400, 0x100, 0x800, 0x300
NEWLINK, DELLINK, GETLINK, NEWADDR, NEWROUTE, NEWNEIGH, DELNEIGH, GETNEIGH, NEWRULE = 16, 17, 18, 20, 24, 28, 29, 30, 32
DELRULE = 33
GETADDR = 22
IFF_UP = 1
SETLINK, LINK_PORT, PORT_HAIRPIN = 19, 12, 4
LINK_ADDRESS, LINK_NAME, LINK_MTU, LINK_MASTER, LINK_INFO, LINK_NETNS_FD = 1, 3, 4, 10, 18, 28
INFO_KIND, INFO_DATA, VETH_PEER = 1, 2, 1
VXLAN_ID, VXLAN_LEARNING, VXLAN_PORT, VXLAN_PROXY, VXLAN_LOCAL = 1, 7, 15, 11, 4
NEIGH_DST, NEIGH_LLADDR = 1, 2
NUD_PERMANENT, NUD_NOARP, NTF_SELF = 0x80, 0x40, 2
NESTED = 0x8000


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    mac: str
    mtu: int
    master: int
    up: bool


class Neighbour(NamedTuple):
    """An entry of the ARP table (ip, mac) or, with family AF_BRIDGE, of a VXLAN's forwarding table (mac, VTEP)."""

    link: int
    ip: str
    mac: str


def attribute(kind: int, payload: bytes) -> bytes:
    length = len(payload) + 4
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ip_bytes(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break  # less than its own header: nothing after it can be found
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def info(kind: str, data: bytes = b"") -> bytes:
    return attribute(LINK_INFO | NESTED, text(INFO_KIND, kind) + (attribute(INFO_DATA | NESTED, data) if data else b""))


class Netlink:
    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------ links

    def links(self) -> dict[str, Link]:
        return {link.name: link for link in map(self._link, self._dump(GETLINK, bytes(16)))}

    @staticmethod
    def _link(body: bytes) -> Link:
        index, flags = struct.unpack_from("=iI", body, 4)
        found = attributes(body[16:])
        return Link(
            index,
            found[LINK_NAME].rstrip(b"\0").decode(),
            found.get(LINK_ADDRESS, b"").hex(":"),
            struct.unpack("=I", found[LINK_MTU])[0],
            struct.unpack("=I", found[LINK_MASTER])[0] if LINK_MASTER in found else 0,
            bool(flags & IFF_UP),
        )

    def add_bridge(self, name: str, mac: str, mtu: int = 1500) -> None:
        self._new_link(name, attribute(LINK_ADDRESS, mac_bytes(mac)) + number(LINK_MTU, mtu) + info("bridge"))

    def add_veth(self, name: str, *, master: int, peer: str, peer_mac: str, peer_netns: int, mtu: int) -> None:
        """Make a pair whose far end is born in the target namespace: moving it there later costs 16 ms."""
        far = bytes(16) + text(LINK_NAME, peer) + attribute(LINK_ADDRESS, mac_bytes(peer_mac))
        far += number(LINK_NETNS_FD, peer_netns) + number(LINK_MTU, mtu)
        body = number(LINK_MASTER, master) + number(LINK_MTU, mtu) + info("veth", attribute(VETH_PEER, far))
        self._new_link(name, body)

    def add_vxlan(self, name: str, *, vni: int, local: str, port: int, master: int, mtu: int) -> None:
        """No learning: only the entries that we write; proxy: the kernel answers ARP from our neighbour entries."""
        data = number(VXLAN_ID, vni) + attribute(VXLAN_LOCAL, ip_bytes(local))
        data += attribute(VXLAN_PORT, struct.pack("!H", port))
        data += attribute(VXLAN_LEARNING, b"\0") + attribute(VXLAN_PROXY, b"\1")
        self._new_link(name, number(LINK_MASTER, master) + number(LINK_MTU, mtu) + info("vxlan", data))

    def _new_link(self, name: str, body: bytes) -> None:
        head = struct.pack("=BxHiII", 0, 0, 0, IFF_UP, IFF_UP)
        self._request(
            NEWLINK, NLM_CREATE | NLM_EXCL, head + text(LINK_NAME, name) + body, f"cannot create interface {name}"
        )

    def set_hairpin(self, index: int) -> None:
        """Let a bridge port send back where it came from: a container may reach itself by its published port."""
        head = struct.pack("=BxHiII", socket.AF_BRIDGE, 0, index, 0, 0)
        body = attribute(LINK_PORT | NESTED, attribute(PORT_HAIRPIN, b"\1"))
        self._request(SETLINK, 0, head + body, f"cannot change bridge port {index}")

    def set_up(self, index: int) -> None:
        head = struct.pack("=BxHiII", 0, 0, index, IFF_UP, IFF_UP)
        self._request(NEWLINK, 0, head, f"cannot set interface {index} up")

    def delete_link(self, name: str) -> None:
        head = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        self._request(DELLINK, 0, head + text(LINK_NAME, name), f"cannot delete interface {name}")

    # ------------------------------------------------------------ addresses and routes

    def addresses(self) -> Iterator[tuple[int, ipaddress.IPv4Interface]]:
        for body in self._dump(GETADDR, struct.pack("=BBBBi", socket.AF_INET, 0, 0, 0, 0)):
            _, prefix, _, _, index = struct.unpack_from("=BBBBi", body)
            found = attributes(body[8:])
            packed = found.get(2) or found[1]
            yield index, ipaddress.IPv4Interface((packed, prefix))

    def add_address(self, index: int, cidr: str) -> None:
        interface = ipaddress.IPv4Interface(cidr)
        head = struct.pack("=BBBBi", socket.AF_INET, interface.network.prefixlen, 0, 0, index)
        packed = interface.ip.packed
        self._request(
            NEWADDR, NLM_CREATE | NLM_REPLACE, head + attribute(2, packed) + attribute(1, packed), f"cannot set {cidr}"
        )

    def add_default_route(self, gateway: str, index: int, table: int = 254) -> None:
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, table, 4, 0, 1, 0)
        body = attribute(5, ip_bytes(gateway)) + number(4, index)
        self._request(NEWROUTE, NLM_CREATE | NLM_REPLACE, head + body, f"cannot route by way of {gateway}")

    def add_source_rule(self, source: str, table: int) -> None:
        """Answers from this address leave by its own network, whatever the default route is."""
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 32, 0, table, 0, 0, 1, 0)
        self._request(NEWRULE, NLM_CREATE, head + attribute(2, ip_bytes(source)), f"cannot add a rule for {source}")

    def delete_source_rule(self, source: str, table: int) -> None:
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 32, 0, table, 0, 0, 1, 0)
        self._request(DELRULE, 0, head + attribute(2, ip_bytes(source)), f"cannot remove the rule for {source}")

    # ------------------------------------------------------------ neighbours

    def neighbours(self, family: int, index: int) -> set[Neighbour]:
        found = set()
        for body in self._dump(GETNEIGH, struct.pack("=BxxxiHBB", family, 0, 0, 0, 0)):
            _, link, state, _, _ = struct.unpack_from("=BxxxiHBB", body)
            values = attributes(body[12:])
            if link == index and state & NUD_PERMANENT and len(values.get(NEIGH_DST, b"")) == 4:
                ip = str(ipaddress.IPv4Address(values[NEIGH_DST]))
                found.add(Neighbour(link, ip, values.get(NEIGH_LLADDR, b"").hex(":")))
        return found

    def set_neighbour(self, family: int, entry: Neighbour) -> None:
        state = NUD_PERMANENT | (NUD_NOARP if family == socket.AF_BRIDGE else 0)
        self._neighbour(NEWNEIGH, NLM_CREATE | NLM_REPLACE, family, entry, state)

    def delete_neighbour(self, family: int, entry: Neighbour) -> None:
        self._neighbour(DELNEIGH, 0, family, entry, 0)

    def _neighbour(self, kind: int, flags: int, family: int, entry: Neighbour, state: int) -> None:
        head = struct.pack("=BxxxiHBB", family, entry.link, state, NTF_SELF if family == socket.AF_BRIDGE else 0, 0)
        body = attribute(NEIGH_DST, ip_bytes(entry.ip)) + attribute(NEIGH_LLADDR, mac_bytes(entry.mac))
        self._request(kind, flags, head + body, f"cannot set neighbour {entry.ip} ({entry.mac})")

    # ------------------------------------------------------------ wire

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, NLM_REQUEST | flags, self._sequence, 0) + body)

    def _replies(self) -> Iterator[tuple[int, bytes]]:
        while True:
            data = self._socket.recv(1 << 17)
            while data:
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
                if sequence == self._sequence:
                    yield kind, data[16:length]
                data = data[(length + 3) & ~3 :]

    def _request(self, kind: int, flags: int, body: bytes, failure: str) -> None:
        self._send(kind, flags | NLM_ACK, body)
        for answer, payload in self._replies():
            if answer == 2:
                code = -struct.unpack_from("=i", payload)[0]
                if code:
                    raise OSError(code, f"{failure}: {os.strerror(code).lower()}")
                return

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        self._send(kind, NLM_DUMP, body)
        found = []
        for answer, payload in self._replies():
            if answer == 3:
                break
            if answer == 2:
                code = -struct.unpack_from("=i", payload)[0]
                raise OSError(code, f"cannot list: {os.strerror(code).lower()}")
            found.append(payload)
        return found
