"""Compiles seccomp profiles, in Docker's JSON form, to the classic BPF programs the kernel runs on every system call.

The program searches the call's number in a balanced tree of ranges with one outcome each, so a call costs about ten
instructions, not one per rule.  Rules of one call are tried in the profile's order: the first that matches decides.
Calls through another architecture's entry (32-bit on x86) kill the process: their numbers mean other calls.  Calls
newer than the table get ENOSYS, so that programs use their older way, as they would on an older kernel.

The facts are in seccomp-default.json (Docker's default profile) and seccomp-syscalls.json (numbers of calls).
"""

import errno
import os
import platform
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

import msgspec

from swarmd.runtime.errors import Invalid, Unsupported

_AUDIT_ARCH = {"amd64": 0xC000003E, "arm64": 0xC00000B7}
_OCI_ARCH = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}
_ARCH_BY_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}
_X32 = 0x40000000  # x32 calls come in as amd64 with this bit

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_KILL = _ACTIONS["SCMP_ACT_KILL_PROCESS"]
_NO_SUCH_CALL = _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS
_PROFILE_KEYS = {"defaultAction", "defaultErrnoRet", "architectures", "archMap", "syscalls"}
_RULE_KEYS = {"names", "action", "errnoRet", "args", "includes", "excludes", "comment"}

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]; low half first on both architectures.
_NR, _ARCH, _ARGS = 0, 4, 16

# Instruction classes of linux/filter.h.
_LOAD, _AND, _RETURN, _JUMP = 0x20, 0x54, 0x06, 0x05
_JEQ, _JGT, _JGE = 0x15, 0x25, 0x35
_FARTHEST = 255
_LONGEST = 4096  # BPF_MAXINSNS

_PASS, _FAIL = -1, -2  # targets of jumps within a condition, replaced by distances when it is put together


_Errno = Annotated[int, msgspec.Meta(ge=0, le=4095)] | None
_Word = Annotated[int, msgspec.Meta(ge=0)]


class _Argument(TypedDict):
    index: Annotated[int, msgspec.Meta(ge=0, le=5)]
    value: _Word
    valueTwo: NotRequired[_Word]
    op: str


class _When(TypedDict, total=False):
    caps: list[str]
    arches: list[str]
    minKernel: str


class _Entry(TypedDict):
    names: list[str]
    action: str
    errnoRet: NotRequired[_Errno]
    args: NotRequired[list[_Argument] | None]
    includes: NotRequired[_When | None]
    excludes: NotRequired[_When | None]


class _Map(TypedDict):
    architecture: str
    subArchitectures: NotRequired[list[str] | None]


class _Profile(TypedDict):
    """The form of a profile, which `_parse` holds every one to."""

    defaultAction: str
    defaultErrnoRet: NotRequired[_Errno]
    archMap: NotRequired[list[_Map] | None]
    syscalls: NotRequired[list[_Entry] | None]


class Instruction(NamedTuple):
    code: int
    yes: int
    no: int
    k: int


class Condition(NamedTuple):
    argument: int
    value: int
    value_two: int
    op: str


class Rule(NamedTuple):
    action: int
    conditions: tuple[Condition, ...]


@cache
def default_profile() -> str:
    """Docker's default profile, as JSON."""
    return _data("seccomp-default.json").decode()


def native_arch() -> str:
    """This machine's, as profiles call it; Unsupported where there is no table of its calls."""
    machine = platform.machine()
    if machine not in _ARCH_BY_MACHINE:
        raise Unsupported(f"seccomp profiles can't be compiled for {machine}: run the container unconfined")
    return _ARCH_BY_MACHINE[machine]


def compile_profile(profile: str, caps: Iterable[str], arch: str = "", kernel: str = "") -> bytes:
    """The program for a container that has these capabilities (CAP_...).

    profile: as JSON text; Invalid says what in it can't be understood.  arch: amd64 or arm64, by default
    this machine's; kernel: the release that minKernel is compared with, by default the running one.
    """
    return _compiled(profile, frozenset(caps), arch or native_arch(), kernel or os.uname().release)


@lru_cache(maxsize=64)
def oci_profile(text: str, caps: frozenset[str]) -> Mapping[str, Any]:
    """The same profile as `linux.seccomp` of the OCI specification, which has no conditions on capabilities."""
    profile, arch, kernel = _parse(text), native_arch(), os.uname().release
    rules = [entry for entry in profile.get("syscalls") or () if _applies(entry, caps, arch, kernel)]
    found = {key: profile[key] for key in ("defaultAction", "defaultErrnoRet", "flags") if profile.get(key) is not None}
    maps = {entry["architecture"]: entry.get("subArchitectures") or [] for entry in profile.get("archMap") or ()}
    native = _OCI_ARCH[arch]
    return found | {
        "architectures": [native, *maps.get(native, [])],
        "syscalls": [
            {key: entry[key] for key in ("names", "action", "errnoRet", "args") if entry.get(key) is not None}
            for entry in rules
        ],
    }


@lru_cache(maxsize=64)
def _compiled(text: str, caps: frozenset[str], arch: str, kernel: str) -> bytes:
    profile = _parse(text)
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"), None)
    rules = _rules_by_number(profile, caps, arch, kernel)
    tree = _tree(_ranges(rules, default, max(_syscalls(arch).values())), default)
    program = [
        Instruction(_LOAD, 0, 0, _ARCH),
        Instruction(_JEQ, 1, 0, _AUDIT_ARCH[arch]),
        Instruction(_RETURN, 0, 0, _KILL),
        Instruction(_LOAD, 0, 0, _NR),
        *tree,
    ]
    if len(program) > _LONGEST:
        raise Invalid(f"the seccomp profile takes {len(program)} instructions, and the kernel at most {_LONGEST}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


# ---------------------------------------------------------------- profiles


def _parse(text: str) -> dict[str, Any]:
    try:
        profile = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Invalid(f"the seccomp profile is not JSON: {error}") from None
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise Invalid("the seccomp profile has no defaultAction")
    _only(_PROFILE_KEYS, profile, "profile")
    try:
        msgspec.convert(profile, _Profile)
    except msgspec.ValidationError as error:
        raise Invalid(f"the seccomp profile is malformed: {error}") from None
    return profile


def _rules_by_number(profile: dict[str, Any], caps: frozenset[str], arch: str, kernel: str) -> dict[int, list[Rule]]:
    numbers = _syscalls(arch)
    rules: dict[int, list[Rule]] = {}
    for entry in profile.get("syscalls") or ():
        _only(_RULE_KEYS, entry, "rule")
        if not _applies(entry, caps, arch, kernel):
            continue
        action = _action(entry["action"], entry.get("errnoRet"), profile.get("defaultErrnoRet"))
        made = [Rule(action, conditions) for conditions in _alternatives(entry.get("args") or ())]
        for name in entry["names"]:
            if name in numbers:
                rules.setdefault(numbers[name], []).extend(made)
    return rules


def _applies(entry: dict[str, Any], caps: frozenset[str], arch: str, kernel: str) -> bool:
    """All that `includes` lists must be so, and nothing that `excludes` lists."""
    tests: dict[str, Callable[[Any], bool]] = {
        "caps": lambda wanted: caps.issuperset(wanted),
        "arches": lambda wanted: arch in wanted,
        "minKernel": lambda wanted: _version(kernel) >= _version(wanted),
    }
    either: dict[str, Callable[[Any], bool]] = {**tests, "caps": lambda wanted: not caps.isdisjoint(wanted)}
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    _only(tests.keys(), includes, "rule's includes")
    _only(tests.keys(), excludes, "rule's excludes")
    return all(tests[key](value) for key, value in includes.items()) and not any(
        either[key](value) for key, value in excludes.items()
    )


def _alternatives(args: Sequence[dict[str, Any]]) -> list[tuple[Condition, ...]]:
    """All conditions of a rule must hold, but when two are on one argument, any one, as in runc."""
    conditions = [Condition(arg["index"], arg["value"], arg.get("valueTwo", 0), arg["op"]) for arg in args]
    if unknown := {condition.op for condition in conditions} - _COMPARISONS.keys():
        raise Invalid(f"the seccomp profile has the unknown comparison {min(unknown)}")
    if any(max(condition.value, condition.value_two) >> 64 for condition in conditions):
        raise Invalid("the seccomp profile compares an argument with more than 64 bits")
    if len({condition.argument for condition in conditions}) < len(conditions):
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]


def _action(name: str, errno_ret: int | None, default_errno: int | None) -> int:
    if name not in _ACTIONS:
        raise Invalid(f"the seccomp profile has the action {name}; known are {', '.join(_ACTIONS)}")
    if name not in _WITH_ERRNO:
        return _ACTIONS[name]
    given = next((value for value in (errno_ret, default_errno) if value is not None), errno.EPERM)
    return _ACTIONS[name] | given


def _only(known: Iterable[str], held: dict[str, Any], what: str) -> None:
    if unknown := sorted(set(held) - set(known)):
        raise Invalid(f"the seccomp {what} has a {unknown[0]!r}, which is not supported")


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", release)[:2])


# ---------------------------------------------------------------- programs


def _ranges(rules: Mapping[int, Sequence[Rule]], default: int, newest: int) -> list[tuple[int, tuple[Rule, ...]]]:
    """(first number, rules) of each run of numbers treated alike, from 0 up; no rules: the default action."""
    outcomes = ((number, tuple(rules.get(number, ()))) for number in range(newest + 1))
    runs = [(next(run)[0], outcome) for outcome, run in groupby(outcomes, key=lambda pair: pair[1])]
    return [*runs, (newest + 1, (Rule(_NO_SUCH_CALL, ()),)), (_X32, (Rule(default, ()),))]


def _tree(ranges: Sequence[tuple[int, tuple[Rule, ...]]], default: int) -> list[Instruction]:
    """Binary search: numbers from the middle on jump over the code for those before."""
    if len(ranges) == 1:
        return _decide(ranges[0][1], default)
    middle = len(ranges) // 2
    first = ranges[middle][0]
    below, above = _tree(ranges[:middle], default), _tree(ranges[middle:], default)
    if len(below) <= _FARTHEST:
        return [Instruction(_JGE, len(below), 0, first), *below, *above]
    return [Instruction(_JGE, 0, 1, first), Instruction(_JUMP, 0, 0, len(below)), *below, *above]


def _decide(rules: Iterable[Rule], default: int) -> list[Instruction]:
    program: list[Instruction] = []
    for rule in rules:
        program += _rule(rule)
        if not rule.conditions:
            return program
    return [*program, Instruction(_RETURN, 0, 0, default)]


def _rule(rule: Rule) -> list[Instruction]:
    """Each condition goes on to the next when it holds, and else beyond the whole rule."""
    body: list[Instruction] = []
    for condition in rule.conditions:
        block = list(_COMPARISONS[condition.op](condition))
        body += [_aimed(each, _PASS, len(block) - place - 1) for place, each in enumerate(block)]
    aimed = [_aimed(each, _FAIL, len(body) - place) for place, each in enumerate(body)]
    return [*aimed, Instruction(_RETURN, 0, 0, rule.action)]


def _aimed(instruction: Instruction, label: int, distance: int) -> Instruction:
    code, yes, no, k = instruction
    return Instruction(code, distance if yes == label else yes, distance if no == label else no, k)


def _halves(value: int) -> tuple[int, int]:
    return value >> 32 & 0xFFFFFFFF, value & 0xFFFFFFFF


def _equal(c: Condition) -> Iterator[Instruction]:
    yield from _masked(Condition(c.argument, (1 << 64) - 1, c.value, c.op))


def _masked(c: Condition) -> Iterator[Instruction]:
    """value is the mask, value_two what must be left."""
    offsets = (_ARGS + 8 * c.argument + 4, _ARGS + 8 * c.argument)
    for offset, mask, wanted in zip(offsets, _halves(c.value), _halves(c.value_two), strict=True):
        yield Instruction(_LOAD, 0, 0, offset)
        if mask != 0xFFFFFFFF:
            yield Instruction(_AND, 0, 0, mask)
        yield Instruction(_JEQ, 0, _FAIL, wanted)


def _different(c: Condition) -> Iterator[Instruction]:
    high, low = _halves(c.value)
    yield Instruction(_LOAD, 0, 0, _ARGS + 8 * c.argument + 4)
    yield Instruction(_JEQ, 0, _PASS, high)
    yield Instruction(_LOAD, 0, 0, _ARGS + 8 * c.argument)
    yield Instruction(_JEQ, _FAIL, 0, low)


def _ordered(c: Condition, above: int, below: int, last: int) -> Iterator[Instruction]:
    """High halves that differ decide; equal ones leave it to the low halves, compared with `last`."""
    high, low = _halves(c.value)
    yield Instruction(_LOAD, 0, 0, _ARGS + 8 * c.argument + 4)
    yield Instruction(_JGT, above, 0, high)
    yield Instruction(_JEQ, 0, below, high)
    yield Instruction(_LOAD, 0, 0, _ARGS + 8 * c.argument)
    yield Instruction(last, above, below, low)


_COMPARISONS: dict[str, Callable[[Condition], Iterator[Instruction]]] = {
    "SCMP_CMP_EQ": _equal,
    "SCMP_CMP_NE": _different,
    "SCMP_CMP_LT": lambda c: _ordered(c, _FAIL, _PASS, _JGE),
    "SCMP_CMP_LE": lambda c: _ordered(c, _FAIL, _PASS, _JGT),
    "SCMP_CMP_GE": lambda c: _ordered(c, _PASS, _FAIL, _JGE),
    "SCMP_CMP_GT": lambda c: _ordered(c, _PASS, _FAIL, _JGT),
    "SCMP_CMP_MASKED_EQ": _masked,
}


# ---------------------------------------------------------------- facts


def _syscalls(arch: str) -> dict[str, int]:
    if arch not in _AUDIT_ARCH:
        raise Unsupported(f"seccomp profiles can't be compiled for {arch}: only for {', '.join(_AUDIT_ARCH)}")
    return _numbers()[arch]


@cache
def _numbers() -> dict[str, dict[str, int]]:
    return msgspec.json.decode(_data("seccomp-syscalls.json"), type=dict[str, dict[str, int]])


def _data(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()
