"""The program that decides on devices, run by a small interpreter of the instructions that it uses."""

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.runtime.cgroups.devices import device_program
from swarmd.runtime.devices import DEFAULT_RULES
from swarmd.runtime.model import DeviceRule

KINDS = {"b": 1, "c": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}
WORD = (1 << 64) - 1


def interpreted(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """What the kernel would answer (see the kernel's Documentation/bpf/standardization/instruction-set.rst)."""
    context = struct.pack("=III", sum(ACCESS[letter] for letter in access) << 16 | KINDS[kind], major, minor)
    instructions = list(struct.iter_unpack("=BBhi", program))
    registers: dict[int, int] = {}
    place = 0
    while True:
        code, both, offset, value = instructions[place]
        target, source = both & 15, both >> 4
        place += 1
        if code == 0x61:
            assert source == 1
            registers[target] = struct.unpack_from("=I", context, offset)[0]
        elif code == 0xB7:
            registers[target] = value & WORD
        elif code == 0xBF:
            registers[target] = registers[source]
        elif code == 0x57:
            registers[target] &= value & WORD
        elif code == 0x77:
            registers[target] >>= value
        elif code == 0x05:
            place += offset
        elif code == 0x55:
            place += offset if registers[target] != value & WORD else 0
        elif code == 0x45:
            place += offset if registers[target] & value & WORD else 0
        elif code == 0x95:
            return bool(registers[0])
        else:
            raise AssertionError(f"instruction {code:#x} at {place - 1}")


def decided(rules: Sequence[DeviceRule], kind: str, major: int, minor: int, access: str) -> bool:
    """Letter by letter: the last rule that names it, no if none does."""

    def names(rule: DeviceRule, letter: str) -> bool:
        numbers = rule.major in (None, major) and rule.minor in (None, minor)
        return numbers and rule.kind in ("a", kind) and letter in rule.access

    return all(next((rule.allow for rule in reversed(rules) if names(rule, letter)), False) for letter in access)


small = st.integers(0, 2)
letters = st.sets(st.sampled_from("rwm"), min_size=1).map("".join)
a_rule = st.builds(
    DeviceRule,
    kind=st.sampled_from("abc"),
    major=st.none() | small,
    minor=st.none() | small,
    access=letters,
    allow=st.booleans(),
)


@given(st.lists(a_rule, max_size=12), st.sampled_from("bc"), small, small, letters)
def test_the_program_decides_as_the_rules_say(
    rules: list[DeviceRule], kind: str, major: int, minor: int, access: str
) -> None:
    assert interpreted(device_program(rules), kind, major, minor, access) == decided(rules, kind, major, minor, access)


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "allowed"),
    [
        ("c", 1, 3, "rw", True),  # null
        ("c", 136, 99, "rwm", True),  # pts
        ("c", 1, 11, "r", False),  # kmsg
        ("c", 1, 11, "m", True),
        ("b", 8, 0, "r", False),
        ("b", 1, 3, "r", False),
    ],
)
def test_what_containers_may_use(kind: str, major: int, minor: int, access: str, allowed: bool) -> None:
    assert interpreted(device_program(DEFAULT_RULES), kind, major, minor, access) == allowed
