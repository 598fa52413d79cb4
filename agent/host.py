"""What this host is: its addresses, and the description of it that managers get."""

import fcntl
import ipaddress
import os
import platform
import socket
import struct
from importlib.metadata import version
from pathlib import Path

from swarmd.proto.errors import Invalid
from swarmd.proto.objects_pb2 import EngineDescription, NodeDescription, Platform, Resources

AGENT_PORT = 2381
JOIN_PORT = 2377
CLUSTER_PORT = 2378
_SIOCGIFADDR = 0x8915  # netdevice(7)
_SIOCGIFFLAGS = 0x8913
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8


def describe(hostname: str, address: str) -> NodeDescription:
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    return NodeDescription(
        hostname=hostname,
        platform=Platform(architecture=platform.machine(), os="linux"),
        resources=Resources(nano_cpus=len(os.sched_getaffinity(0)) * 1_000_000_000, memory_bytes=page * pages),
        engine=EngineDescription(engine_version=version("swarmd")),
        addr=address,
        agent_port=AGENT_PORT,
    )


def choose_address(listen: str, advertise: str) -> str:
    """The one address that this node listens on and is reached by; Invalid, listing the choices, if that is unclear.

    Each may be empty, an address or an interface, with or without the join port; `listen` may be 0.0.0.0.
    """
    chosen = _resolved(advertise, "advertise address") if advertise else ""
    bound = _resolved(listen, "listen address") if listen else "0.0.0.0"
    if not ipaddress.ip_address(bound).is_unspecified:
        if chosen and chosen != bound:
            raise Invalid(f"listen address {bound} and advertise address {chosen} differ: a node has one address")
        return _own(bound)
    return _own(chosen) if chosen else _only_address()


def _own(address: str) -> str:
    """The address, if it is this host's; a node listens on the one it is reached by."""
    if not is_here(address):
        known = ", ".join(f"{known} on {name}" for name, known in sorted(interface_addresses().items()))
        raise Invalid(f"address {address} is none of this host's: it has {known or 'only loopback'}")
    return address


def is_here(address: str) -> bool:
    """Whether this host can listen on that address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _resolved(text: str, what: str) -> str:
    host, port = split_port(text)
    if port not in (None, JOIN_PORT):
        raise Invalid(f"{what} {text} has port {port}: the join port is always {JOIN_PORT}")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        found = interface_addresses().get(host)
        if found is None:
            raise Invalid(f"{what} {text!r} is neither an IP address nor an interface that has one") from None
        return found
    if address.version != 4:
        raise Invalid(f"{what} {text} is not an IPv4 address")
    if what.startswith("advertise") and address.is_unspecified:
        raise Invalid(f"{what} {text} can't be reached: name an address of this host")
    return str(address)


def split_port(text: str) -> tuple[str, int | None]:
    """host and port of `host`, `host:port`, `[v6]:port`."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return text.strip("[]"), None
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise Invalid(f"address {text!r} has no valid port: 1 to 65535")
    return host.strip("[]"), int(port)


def _only_address() -> str:
    found = {name: address for name, address in interface_addresses().items() if not _is_bridge(name)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise Invalid("this host has no address but loopback: say which to use with --advertise-addr")
    choices = ", ".join(f"{address} on {name}" for name, address in sorted(found.items()))
    raise Invalid(f"this host has {len(found)} addresses ({choices}): say which to use with --advertise-addr")


def interface_addresses() -> dict[str, str]:
    """First IPv4 address of each interface that is up and not loopback."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("16s240x", name.encode())
            try:
                (flags,) = struct.unpack_from("H", fcntl.ioctl(probe, _SIOCGIFFLAGS, request), 16)
                if flags & _IFF_UP and not flags & _IFF_LOOPBACK:
                    found[name] = socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24])
            except OSError:
                continue  # it has no address
    return found


def _is_bridge(name: str) -> bool:
    return Path("/sys/class/net", name, "bridge").exists()
