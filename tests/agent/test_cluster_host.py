"""Which address a node takes, and what it says when that is unclear."""

import pytest

from swarmd.agent import host
from swarmd.proto.errors import Invalid


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    addresses = {"eth0": "10.0.0.1"}
    monkeypatch.setattr(host, "interface_addresses", lambda: addresses)
    monkeypatch.setattr(host, "is_here", lambda address: address in addresses.values())
    return addresses


@pytest.mark.parametrize(
    ("listen", "advertise"),
    [
        ("", ""),
        ("0.0.0.0:2377", ""),
        ("10.0.0.1", ""),
        ("0.0.0.0", "10.0.0.1:2377"),
        ("", "eth0"),
        ("eth0", "10.0.0.1"),
    ],
)
def test_the_address_that_is_meant(interfaces: dict[str, str], listen: str, advertise: str) -> None:
    assert host.choose_address(listen, advertise) == "10.0.0.1"


def test_several_addresses_are_listed(interfaces: dict[str, str]) -> None:
    interfaces["eth1"] = "10.1.0.1"
    with pytest.raises(Invalid, match=r"10\.0\.0\.1 on eth0, 10\.1\.0\.1 on eth1.*--advertise-addr"):
        host.choose_address("", "")


def test_no_address(interfaces: dict[str, str]) -> None:
    interfaces.clear()
    with pytest.raises(Invalid, match="no address but loopback"):
        host.choose_address("", "")


@pytest.mark.parametrize(
    ("listen", "advertise", "sentence"),
    [
        ("10.0.0.1:99999", "", "no valid port"),
        ("10.0.0.1:4000", "", "always 2377"),
        ("eth9", "", "neither an IP address nor an interface"),
        ("10.0.0.1", "10.0.0.2", "differ"),
        ("", "0.0.0.0", "can't be reached"),
        ("", "::1", "not an IPv4 address"),
        ("", "9.9.9.9", r"9\.9\.9\.9 is none of this host's: it has 10\.0\.0\.1 on eth0"),
    ],
)
def test_refused(interfaces: dict[str, str], listen: str, advertise: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        host.choose_address(listen, advertise)
