import os
import secrets
import socket
from collections.abc import Iterator

import pytest

from swarmd.runtime.errors import Invalid, PortInUse
from swarmd.runtime.model import PortMapping
from swarmd.runtime.network.ports import Ports


@pytest.fixture
def ports() -> Iterator[Ports]:
    held = Ports()
    yield held
    held.close()


def local(port: int = 0, protocol: str = "tcp", host_ip: str = "127.0.0.1") -> PortMapping:
    return PortMapping(container_port=80, host_port=port, protocol=protocol, host_ip=host_ip)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_has_one_owner_until_it_is_let_go(ports: Ports, protocol: str) -> None:
    bound = ports.hold(local(protocol=protocol), "container web")
    assert bound.host_port
    with pytest.raises(PortInUse, match=f"port {bound.host_port}/{protocol} is already published by container web"):
        ports.hold(bound, "container other")
    ports.let_go(bound)
    assert ports.hold(bound, "container other") == bound


def test_another_programs_port_is_refused(ports: Ports) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            PortInUse, match=f"127.0.0.1:{port}/tcp cannot be published: .* .process {os.getpid()}. has it"
        ):
            ports.hold(local(port), "container web")


def test_what_can_never_be_published_is_invalid(ports: Ports) -> None:
    with pytest.raises(Invalid, match="host address ::1 of port 80 is not an IPv4 address"):
        ports.hold(local(host_ip="::1"), "container web")
    with pytest.raises(Invalid, match="protocol sctp of port 80 is not tcp or udp"):
        ports.hold(local(protocol="sctp"), "container web")


def test_any_free_port_of_a_range_will_do(ports: Ports) -> None:
    address = f"127.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}.1"  # where nobody else takes the second
    first = ports.hold(local(host_ip=address), "container a").host_port
    wanted = PortMapping(container_port=80, host_port=first, host_port_end=first + 1, host_ip=address)
    second = ports.hold(wanted, "container b")
    assert (second.host_port, second.host_port_end) == (first + 1, 0)
    with pytest.raises(PortInUse, match=f"no port from {first} to {first + 1}/tcp is free"):
        ports.hold(wanted, "container c")
    ports.let_go(second)
    assert ports.hold(wanted, "container c").host_port == first + 1


def test_an_address_that_is_not_the_hosts_is_refused(ports: Ports) -> None:
    with pytest.raises(Invalid, match="this host has no address 192"):
        ports.hold(local(host_ip="192.0.2.1"), "container web")
