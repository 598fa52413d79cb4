import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.runtime.errors import Conflict, Exhausted, Invalid
from swarmd.runtime.network.ipam import Pool, mac_of


@given(st.lists(st.one_of(st.just("take"), st.integers(0, 20)), max_size=80))
def test_no_address_is_given_twice_and_none_leaks(steps: list[str | int]) -> None:
    pool, held = Pool("n", "10.1.0.0/28", ["10.1.0.1"]), list[str]()
    for step in steps:
        if step == "take":
            if len(held) == 13:
                with pytest.raises(Exhausted, match="network n is full: all 14 addresses"):
                    pool.take()
                continue
            address = pool.take()
            assert address not in held and address != "10.1.0.1"
            assert ipaddress.ip_address(address) in ipaddress.ip_network("10.1.0.0/28").hosts()
            held.append(address)
        elif held:
            pool.give_back(held.pop(int(step) % len(held)))


def test_a_freed_address_is_the_last_to_be_given_again() -> None:
    pool = Pool("n", "10.1.0.0/29", ["10.1.0.1"])
    first = pool.take()
    pool.give_back(first)
    assert [pool.take() for _ in range(5)][-1] == first


def test_a_wanted_address_must_be_free_and_inside() -> None:
    pool = Pool("n", "10.1.0.0/24", ["10.1.0.1"])
    assert pool.take("10.1.0.9") == "10.1.0.9"
    with pytest.raises(Conflict, match=r"address 10\.1\.0\.9 of network n is already in use"):
        pool.take("10.1.0.9")
    with pytest.raises(Invalid, match="is not in subnet"):
        pool.take("10.2.0.9")


def test_the_mac_follows_from_the_address() -> None:
    assert mac_of("10.0.1.255") == "02:42:0a:00:01:ff"
