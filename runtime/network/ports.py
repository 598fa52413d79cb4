"""Holds the host's ports that lead to containers.

A published port is kept by a listening socket of ours that never sees a connection (nftables redirects before it), so
that a port taken by any other program is found honestly, and no other program can take one of ours.
"""

import contextlib
import errno
import ipaddress
import socket

import msgspec

from swarmd.runtime.errors import Invalid, PortInUse
from swarmd.runtime.model import PortMapping
from swarmd.runtime.network.listeners import listener

Key = tuple[str, str, int]


def key_of(mapping: PortMapping) -> Key:
    return mapping.protocol, "" if mapping.host_ip == "0.0.0.0" else mapping.host_ip, mapping.host_port


class Ports:
    def __init__(self) -> None:
        self._held: dict[Key, tuple[socket.socket, str]] = {}

    def hold(self, mapping: PortMapping, owner: str) -> PortMapping:
        """Return the mapping as bound; raise PortInUse naming the port and who has it."""
        first, last = mapping.host_port, max(mapping.host_port, mapping.host_port_end)
        for port in range(first, last):
            with contextlib.suppress(PortInUse):
                return self._hold(msgspec.structs.replace(mapping, host_port=port), owner)
        try:
            return self._hold(msgspec.structs.replace(mapping, host_port=last), owner)
        except PortInUse as error:
            if first == last:
                raise
            raise PortInUse(f"no port from {first} to {last}/{mapping.protocol} is free on this host") from error

    def _hold(self, mapping: PortMapping, owner: str) -> PortMapping:
        if mapping.protocol not in ("tcp", "udp"):
            raise Invalid(f"protocol {mapping.protocol} of port {mapping.container_port} is not tcp or udp")
        kind = socket.SOCK_STREAM if mapping.protocol == "tcp" else socket.SOCK_DGRAM
        protocol, host_ip, port = key_of(mapping)
        try:
            ipaddress.IPv4Address(host_ip or "0.0.0.0")
        except ValueError as error:
            raise Invalid(f"host address {host_ip} of port {mapping.container_port} is not an IPv4 address") from error
        self._refuse_ours(protocol, host_ip, port)
        holder = socket.socket(socket.AF_INET, kind)
        try:
            if protocol == "tcp":
                # As any server would: connections of an earlier owner that linger in TIME_WAIT are no conflict.
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((host_ip, port))
            if protocol == "tcp":
                holder.listen(1)
        except OSError as error:
            holder.close()
            where = f"{host_ip or '0.0.0.0'}:{port}/{protocol}"
            if error.errno == errno.EADDRNOTAVAIL:
                raise Invalid(f"port {where} cannot be published: this host has no address {host_ip}") from None
            why = f"{who} has it" if (who := listener(protocol, port)) else str(error.strerror).lower()
            raise PortInUse(f"port {where} cannot be published: {why} on this host") from error
        bound = holder.getsockname()[1]
        self._held[protocol, host_ip, bound] = holder, owner
        return PortMapping(container_port=mapping.container_port, host_port=bound, protocol=protocol, host_ip=host_ip)

    def _refuse_ours(self, protocol: str, host_ip: str, port: int) -> None:
        for (held_protocol, held_ip, held_port), (_, owner) in self._held.items():
            same_address = not host_ip or not held_ip or host_ip == held_ip
            if (held_protocol, held_port) == (protocol, port) and same_address:
                raise PortInUse(f"port {port}/{protocol} is already published by {owner}")

    def let_go(self, mapping: PortMapping) -> None:
        if held := self._held.pop(key_of(mapping), None):
            held[0].close()

    def close(self) -> None:
        for holder, _ in self._held.values():
            holder.close()
        self._held.clear()
