"""Pools of addresses, subnets, network ids and ports.

Each gives the next free one after the last it gave: what was returned comes round again only after all the others,
so that nobody still on the way to an old owner reaches a new one.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from swarmd.proto.errors import Exhausted

FIRST_VNI, LAST_VNI = 4096, (1 << 24) - 1
FIRST_PORT, LAST_PORT = 30000, 32767

_Subnet = ipaddress.IPv4Network


class Numbers:
    """Whole numbers from first to last, each with at most one owner."""

    def __init__(self, what: str, first: int, last: int) -> None:
        """what: names them when all are in use, as in "network web: all 4094 addresses"."""
        self._what = what
        self._first, self._size = first, last - first + 1
        self._next = 0
        self._owners: dict[int, str] = {}

    def take(self, owner: str) -> int:
        """Raise Exhausted if all are in use."""
        for step in range(self._size):
            place = (self._next + step) % self._size
            if self._first + place not in self._owners:
                self._next = place + 1
                self._owners[self._first + place] = owner
                return self._first + place
        raise Exhausted(f"{self._what} in use")

    def claim(self, number: int, owner: str) -> str:
        """Take this one, which may be outside the range, if it is free; return who has it now."""
        return self._owners.setdefault(number, owner)

    def free(self, number: int, owner: str) -> None:
        if self._owners.get(number) == owner:
            del self._owners[number]

    def resume_after(self, number: int) -> None:
        """Go on as if this was the last one given."""
        self._next = max(self._next, number - self._first + 1)


class Addresses:
    """The addresses of one subnet but its first and last, as CIDR text."""

    def __init__(self, network_name: str, subnet: _Subnet, reserved: Iterable[str] = ()) -> None:
        count = subnet.num_addresses - 2
        first = int(subnet.network_address) + 1
        self._prefix = subnet.prefixlen
        self._numbers = Numbers(f"network {network_name}: all {count} addresses", first, first + count - 1)
        for address in reserved:
            self._numbers.claim(int(ipaddress.IPv4Address(address)), "reserved")

    def take(self, owner: str) -> str:
        return f"{ipaddress.IPv4Address(self._numbers.take(owner))}/{self._prefix}"

    def claim(self, cidr: str, owner: str) -> bool:
        """Record an address given earlier; False if another owner has it."""
        number = _number(cidr)
        self._numbers.resume_after(number)
        return self._numbers.claim(number, owner) == owner

    def free(self, cidr: str, owner: str) -> None:
        self._numbers.free(_number(cidr), owner)


def next_subnet(pools: Sequence[str], size: int, used: Sequence[_Subnet]) -> _Subnet:
    """The first subnet of 2^(32 - size) addresses after those in use; Exhausted if the pools have none left."""
    newest = max(used, default=None, key=lambda subnet: int(subnet.broadcast_address))
    free = (each for pool in pools for each in _beyond(pool, size, newest) if not _overlapping(each, used))
    first = next(free, None)
    if first is None:
        again = (each for pool in pools for each in _beyond(pool, size, None) if not _overlapping(each, used))
        first = next(again, None)
    if first is None:
        raise Exhausted(f"no subnet of size /{size} is left in {', '.join(pools)}: {len(used)} networks have theirs")
    return first


def _beyond(pool: str, size: int, newest: _Subnet | None) -> Iterable[_Subnet]:
    whole = ipaddress.IPv4Network(pool)
    step = 1 << (32 - size)
    start = int(whole.network_address)
    if newest is not None and newest.subnet_of(whole):
        start += (int(newest.broadcast_address) - start) // step * step + step
    return (ipaddress.IPv4Network((base, size)) for base in range(start, int(whole.broadcast_address) + 1, step))


def _overlapping(subnet: _Subnet, used: Iterable[_Subnet]) -> bool:
    return any(subnet.overlaps(other) for other in used)


def _number(cidr: str) -> int:
    return int(ipaddress.IPv4Address(cidr.partition("/")[0]))
