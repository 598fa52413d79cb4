"""Which device nodes the processes of a cgroup v2 may make, read and write: an eBPF program attached to the group.

The kernel asks the program at each mknod and open.  `device_program` is the pure part: rules to instructions.  Each
access that is asked for is decided by the last rule which names it; what no rule names is refused.  Programs of groups
above are asked too, and each can only refuse.  See bpf(2), and Documentation/admin-guide/cgroup-v2.rst, "Device
controller".
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from swarmd.runtime.errors import Unsupported
from swarmd.runtime.model import DeviceRule

_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

# Registers, and operations: the class, size, mode or source bits are put together in the names' order.
_RESULT, _CONTEXT, _KIND, _WANTED, _MAJOR, _MINOR = range(6)
_LOAD_WORD, _MOVE, _AND, _SHIFT_RIGHT, _EXIT = 0x61, 0xB7, 0x57, 0x77, 0x95
_COPY, _GOTO, _IF_NOT, _IF_ANY_BIT = 0xBF, 0x05, 0x55, 0x45

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_LOAD, _ATTACH, _DETACH, _FD_BY_ID, _QUERY = 5, 8, 9, 13, 16
_CGROUP_DEVICE_PROGRAM, _CGROUP_DEVICE = 15, 6
_ALLOW_MULTI = 2
_MOST_PROGRAMS = 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def device_program(rules: Sequence[DeviceRule]) -> bytes:
    """The instructions, as bpf(2) takes them."""
    start = [
        _instruction(_LOAD_WORD, _KIND, source=_CONTEXT),  # the kind, and in the upper half the accesses
        _instruction(_LOAD_WORD, _MAJOR, source=_CONTEXT, offset=4),
        _instruction(_LOAD_WORD, _MINOR, source=_CONTEXT, offset=8),
        _instruction(_COPY, _WANTED, source=_KIND),
        _instruction(_SHIFT_RIGHT, _WANTED, value=16),
        _instruction(_AND, _KIND, value=0xFFFF),
    ]
    # From the last rule on: those before it only decide the accesses that are then still undecided.
    return b"".join([*start, *(_block(rule) for rule in reversed(rules)), *_answer(0)])


def _block(rule: DeviceRule) -> bytes:
    """Answer if this rule decides, or fall through to the next block."""
    named = sum(_ACCESS[letter] for letter in set(rule.access))
    if rule.allow:
        decide = [_instruction(_AND, _WANTED, value=~named), _instruction(_IF_NOT, _WANTED, offset=2), *_answer(1)]
    else:
        decide = [_instruction(_IF_ANY_BIT, _WANTED, offset=1, value=named), _instruction(_GOTO, offset=2), *_answer(0)]
    wanted = ((_KIND, _KINDS.get(rule.kind)), (_MAJOR, rule.major), (_MINOR, rule.minor))
    conditions = [(register, value) for register, value in wanted if value is not None]
    length = len(conditions) + len(decide)
    skips = [
        _instruction(_IF_NOT, register, offset=length - place, value=value)
        for place, (register, value) in enumerate(conditions, 1)
    ]
    return b"".join([*skips, *decide])


def _answer(allowed: int) -> list[bytes]:
    return [_instruction(_MOVE, _RESULT, value=allowed), _instruction(_EXIT)]


def _instruction(code: int, target: int = 0, *, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, target | source << 4, offset, value)


def restrict(directory: Path, rules: Sequence[DeviceRule]) -> None:
    """Make these the rules of the group, in place of those that it had.

    The new program is attached before the old ones go, and in between both are asked: nothing that either refuses is
    allowed for a moment.  The kernel drops programs with their group.
    """
    with _closed(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as group:
        with _closed(_load(device_program(rules), directory)) as program:
            old = _attached(group, directory)
            _bpf(_ATTACH, struct.pack("=IIII", group, program, _CGROUP_DEVICE, _ALLOW_MULTI), directory)
        for id in old:
            with _closed(_bpf(_FD_BY_ID, struct.pack("=III", id, 0, 0), directory)) as program:
                _bpf(_DETACH, struct.pack("=III", group, program, _CGROUP_DEVICE), directory)


def _load(program: bytes, directory: Path) -> int:
    code, license = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQIIQII16s",
        *(_CGROUP_DEVICE_PROGRAM, len(program) // 8, ctypes.addressof(code), ctypes.addressof(license)),
        *(0, 0, 0, 0, 0, b"swarmd_devices"),
    )
    return _bpf(_LOAD, attributes, directory)


def _attached(group: int, directory: Path) -> list[int]:
    """The ids of the group's own programs."""
    ids = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    attributes = struct.pack("=IIIIQIxxxx", group, _CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _MOST_PROGRAMS)
    answer = ctypes.create_string_buffer(attributes, len(attributes))
    _call(_QUERY, answer, directory)
    count: int = struct.unpack_from("=I", answer.raw, 24)[0]
    return list(ids[:count])


def _bpf(command: int, attributes: bytes, directory: Path) -> int:
    return _call(command, ctypes.create_string_buffer(attributes, len(attributes)), directory)


def _call(command: int, attributes: "ctypes.Array[ctypes.c_char]", directory: Path) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise Unsupported(f"the devices of cgroup {directory} can't be restricted on a {platform.machine()} machine")
    result: int = _libc.syscall(
        ctypes.c_long(number), ctypes.c_long(command), attributes, ctypes.c_long(len(attributes))
    )
    if result >= 0:
        return result
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
        raise Unsupported(
            f"this host refuses the eBPF program that restricts the devices of cgroup {directory} "
            f"({os.strerror(code).lower()}): it needs CONFIG_CGROUP_BPF, and CAP_SYS_ADMIN here; only a privileged "
            "container can do without"
        )
    raise OSError(code, os.strerror(code), str(directory))


@contextmanager
def _closed(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
