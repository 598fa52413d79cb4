"""Programs are judged by running them: on a small BPF machine here, and by the kernel on a forked child."""

import ctypes
import errno
import json
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.runtime.errors import Invalid, Unsupported
from swarmd.runtime.seccomp import compile_profile, default_profile, native_arch
from swarmd.runtime.stages import syscalls

AMD64, ARM64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
READ, PERSONALITY, CLONE, CLONE3, SOCKET, MOUNT, REBOOT, KEYCTL = 0, 135, 56, 435, 41, 165, 169, 250
KERNEL = "6.1.0"


def run(program: bytes, nr: int, *args: int, arch: int = AMD64) -> int:
    """The kernel's classic BPF machine, as far as these programs use it; jumps only go forward, so it ends."""
    data = struct.pack("=iIQ6Q", nr if nr < 1 << 31 else nr - (1 << 32), arch, 0, *(*args, 0, 0, 0, 0, 0, 0)[:6])
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, counter = 0, 0
    while True:
        operation, yes, no, k = code[counter]
        counter += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x06:
            return int(k)
        elif operation == 0x05:
            counter += k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[operation]
            counter += yes if holds else no


def text(profile: dict[str, Any] | str) -> str:
    return profile if isinstance(profile, str) else json.dumps(profile)


def default(*caps: str, arch: str = "amd64", kernel: str = KERNEL) -> bytes:
    return compile_profile(default_profile(), set(caps), arch, kernel)


def test_the_default_profile_allows_the_ordinary_and_refuses_the_rest() -> None:
    program = default("CAP_CHOWN")
    assert run(program, READ) == ALLOW
    for nr in (MOUNT, REBOOT, KEYCTL):
        assert run(program, nr) == ERRNO | errno.EPERM


def test_calls_newer_than_the_table_do_not_exist_and_x32_is_refused() -> None:
    assert run(default(), 5_000) == ERRNO | errno.ENOSYS
    assert run(default(), 0x40000000 | READ) == ERRNO | errno.EPERM
    assert run(default(), 0xFFFFFFFF) == ERRNO | errno.EPERM


def test_another_architecture_is_killed() -> None:
    assert run(default(), READ, arch=I386) == KILL
    assert run(default(arch="arm64"), 63, arch=ARM64) == ALLOW
    assert run(default(arch="arm64"), 63, arch=AMD64) == KILL


def test_arguments_decide() -> None:
    program = default()
    assert run(program, PERSONALITY, 0) == ALLOW
    assert run(program, PERSONALITY, 0xFFFFFFFF) == ALLOW
    assert run(program, PERSONALITY, 1) == ERRNO | errno.EPERM
    assert run(program, PERSONALITY, 1 << 32) == ERRNO | errno.EPERM
    assert run(program, SOCKET, 2) == ALLOW
    assert run(program, SOCKET, 40) == ERRNO | errno.EPERM  # vsock
    assert run(program, SOCKET, 41) == ALLOW


def test_capabilities_open_what_needs_them() -> None:
    new_user_namespace = 0x10000000
    plain, admin = default(), default("CAP_SYS_ADMIN")
    assert run(plain, CLONE, 17) == ALLOW
    assert run(plain, CLONE, new_user_namespace) == ERRNO | errno.EPERM
    assert run(plain, CLONE3) == ERRNO | errno.ENOSYS
    assert [run(admin, nr, new_user_namespace) for nr in (CLONE, CLONE3, MOUNT)] == [ALLOW] * 3
    assert run(default("CAP_SYS_BOOT"), REBOOT) == ALLOW


def test_a_rule_may_ask_for_a_kernel() -> None:
    ptrace = 101
    assert run(default(kernel="4.7.9"), ptrace) == ERRNO | errno.EPERM
    assert run(default(kernel="4.19.0-rc1"), ptrace) == ALLOW


def test_every_call_comes_out_as_the_profile_says() -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(["read"], action="SCMP_ACT_LOG")]}
    program = compile_profile(text(profile), set(), "amd64", KERNEL)
    assert [nr for nr in range(450) if run(program, nr) != ALLOW] == [READ]


def test_a_call_costs_few_instructions() -> None:
    program = default()
    assert len(program) // 8 < 400
    assert default() is program


WORD = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63]))
HOLDS: dict[str, Callable[[int, int, int], bool]] = {
    "SCMP_CMP_EQ": lambda a, v, w: a == v,
    "SCMP_CMP_NE": lambda a, v, w: a != v,
    "SCMP_CMP_LT": lambda a, v, w: a < v,
    "SCMP_CMP_LE": lambda a, v, w: a <= v,
    "SCMP_CMP_GT": lambda a, v, w: a > v,
    "SCMP_CMP_GE": lambda a, v, w: a >= v,
    "SCMP_CMP_MASKED_EQ": lambda a, v, w: a & v == w,
}


def rule(names: list[str], action: str = "SCMP_ACT_ALLOW", **fields: Any) -> dict[str, Any]:
    return {"names": names, "action": action, **fields}


@given(op=st.sampled_from(sorted(HOLDS)), argument=WORD, value=WORD, value_two=WORD, index=st.integers(0, 5))
def test_comparisons_are_of_64_bits(op: str, argument: int, value: int, value_two: int, index: int) -> None:
    args = [{"index": index, "value": value, "valueTwo": value_two, "op": op}]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(["read"], args=args)]}
    words = [argument if place == index else 7 for place in range(6)]
    allowed = run(compile_profile(text(profile), set(), "amd64", KERNEL), READ, *words) == ALLOW
    assert allowed == HOLDS[op](argument, value, value_two)


def test_conditions_of_a_rule_must_all_hold_and_those_on_one_argument_any() -> None:
    both = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]
    either = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]
    for args, wanted in ((both, {(1, 2)}), (either, {(1, 0), (1, 2), (2, 0), (2, 2)})):
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(["read"], args=args)]}
        program = compile_profile(text(profile), set(), "amd64", KERNEL)
        allowed = {(a, b) for a in range(3) for b in (0, 2) if run(program, READ, a, b) == ALLOW}
        assert allowed == wanted


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ("{", "not JSON"),
        ("{}", "no defaultAction"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}, "listenerPath"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(["read"], includes={"moon": "full"})]}, "moon"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [rule(["read"], args=[{"index": 0, "value": 1, "op": "SCMP_CMP_SIMILAR"}])],
            },
            "SCMP_CMP_SIMILAR",
        ),
    ],
)
def test_what_a_profile_has_wrong_is_named(profile: dict[str, Any] | str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        compile_profile(text(profile), set(), "amd64", KERNEL)


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(Unsupported, match="riscv64"):
        compile_profile(default_profile(), set(), "riscv64", KERNEL)


def in_child(program: bytes, body: Callable[[], int]) -> int:
    """The exit code of a forked child that ran body under the program."""
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.install_seccomp(program)
            os._exit(body())
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def errno_of(nr: int, *args: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(nr), *map(ctypes.c_long, args)) == -1 else 0


@pytest.mark.skipif(native_arch() != "amd64", reason="numbers are those of amd64")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_kernel_runs_it_as_the_machine_here_does() -> None:
    program = compile_profile(default_profile(), set())
    assert in_child(program, lambda: errno_of(KEYCTL)) == errno.EPERM
    assert in_child(program, lambda: errno_of(CLONE3, 0, 0)) == errno.ENOSYS
    assert in_child(program, lambda: errno_of(PERSONALITY, 1)) == errno.EPERM
    assert in_child(program, lambda: errno_of(PERSONALITY, 0xFFFFFFFF)) == 0
    assert in_child(program, lambda: len(os.listdir("/proc/self")) > 0) == 1  # noqa: PTH208
