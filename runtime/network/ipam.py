"""Gives addresses of one subnet.

Nothing is stored here: the addresses in use are those of the sandboxes on disk, and a sandbox is written before its
address is used.  So a crash can neither leak an address nor give one twice.
"""

import ipaddress
from collections.abc import Iterable

from swarmd.runtime.errors import Conflict, Exhausted, Invalid


class Pool:
    def __init__(self, network: str, subnet: str, reserved: Iterable[str]) -> None:
        self._network = network
        self._subnet = ipaddress.IPv4Network(subnet)
        self._used = {int(ipaddress.IPv4Address(address)) for address in reserved}
        self._first = int(self._subnet.network_address) + 1
        self._size = max(self._subnet.num_addresses - 2, 0)
        self._next = 0

    def take(self, wanted: str = "") -> str:
        """Return an address, the one given longest ago if possible, so that stale caches elsewhere mislead nobody."""
        if wanted:
            return self._claim(wanted)
        for step in range(self._size):
            candidate = self._first + (self._next + step) % self._size
            if candidate not in self._used:
                self._used.add(candidate)
                self._next = (candidate - self._first + 1) % self._size
                return str(ipaddress.IPv4Address(candidate))
        raise Exhausted(
            f"network {self._network} is full: all {self._size} addresses of {self._subnet} are in use; "
            "remove containers or use a network with a larger subnet"
        )

    def _claim(self, wanted: str) -> str:
        address = ipaddress.IPv4Address(wanted)
        if address not in self._subnet:
            raise Invalid(f"address {wanted} is not in subnet {self._subnet} of network {self._network}")
        if int(address) in self._used:
            raise Conflict(f"address {wanted} of network {self._network} is already in use")
        self._used.add(int(address))
        return wanted

    def give_back(self, address: str) -> None:
        self._used.discard(int(ipaddress.IPv4Address(address)))

    def contains(self, address: str) -> bool:
        return ipaddress.IPv4Address(address) in self._subnet


def mac_of(address: str) -> str:
    """Every endpoint's MAC follows from its address, so that no node needs to be told it."""
    return "02:42:" + ipaddress.IPv4Address(address).packed.hex(":")
