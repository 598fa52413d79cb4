"""What a cgroup does for the runtime, whichever version of the kernel's interface is behind it.

A container has one cgroup, named by its id below the daemon's parent.  Everything it runs was put there before its
first instruction, so killing or measuring the group misses nothing.  The directories in the kernel are the only
state: `load` after a restart finds what `create` made.  `v1.py` and `v2.py` implement this; `detect` chooses.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import field

from swarmd.runtime.model import DeviceRule, Limits, Struct

PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000

# What is counted of block devices, by its name in v1: bytes and operations, which v2 has too, and the scheduler's own.
BLKIO = (
    "io_service_bytes",
    "io_serviced",
    "io_queued",
    "io_service_time",
    "io_wait_time",
    "io_merged",
    "time",
    "sectors",
)


class Transferred(Struct, frozen=True):
    """What a group has done with a block device: bytes, operations, times; kind: read, write, discard ..., or none."""

    major: int
    minor: int
    kind: str
    value: int


class Stats(Struct, frozen=True):
    """Times in nanoseconds, sizes in bytes; a limit of 0 is no limit. What no controller measures is 0."""

    cpu_usage: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled: int = 0
    memory_usage: int = 0
    memory_limit: int = 0
    memory_peak: int = 0
    memory_failures: int | None = None  # how often the limit was hit; cgroup v1 only
    memory_stat: Mapping[str, int] = field(default_factory=dict)  # memory.stat as it is: the versions differ
    per_cpu: tuple[int, ...] = ()
    blkio: Mapping[str, tuple[Transferred, ...]] = field(default_factory=dict)  # by what is counted, see BLKIO
    pids: int = 0
    pids_limit: int = 0
    oom_kills: int = 0


class Cgroup(Protocol):
    id: str

    def procs_files(self) -> list[str]:
        """The files into which a process writes "0" to enter."""
        ...

    def pids(self) -> list[int]: ...

    def update(self, limits: Limits) -> None:
        """Make these the limits, of running processes too.

        Raises Unsupported when the host lacks the controller of a limit asked for, Conflict when the memory in use
        can't be brought under the new limit.
        """
        ...

    def freeze(self, timeout: float = 10.0) -> None:
        """Stop every process where it is; return once all are. Raises TimeoutError, and thaws, if they don't."""
        ...

    def thaw(self) -> None: ...

    def kill(self, timeout: float = 10.0) -> None:
        """SIGKILL every process at once, so that none can fork away; they may still be dying on return.

        Blocks for a moment; raises TimeoutError when processes are still being born after `timeout` seconds.
        """
        ...

    def oom_kills(self) -> int: ...

    def stats(self) -> Stats: ...

    def remove(self, timeout: float = 10.0) -> None:
        """Remove the group once its last process is gone; no error if it is not there.

        Blocks until then (call it in a thread); raises TimeoutError naming the processes still there.
        """
        ...


class Hierarchy(Protocol):
    def create(self, id: str, limits: Limits, rules: Sequence[DeviceRule] | None = None) -> Cgroup:
        """Make the group, empty and limited; Conflict if it is there.  A failure leaves nothing behind.

        rules: the devices that may be used, all others refused; None: all may.
        """
        ...

    def load(self, id: str) -> Cgroup:
        """NotFound if it is not there."""
        ...

    def list(self) -> Iterable[str]: ...


def quota_us(nano_cpus: int) -> int:
    """Microseconds of each period; the kernel takes no less than a millisecond."""
    return max(_LEAST_QUOTA_US, nano_cpus * PERIOD_US // 1_000_000_000)


def memory_and_swap(limits: Limits) -> int:
    """The limit of memory and swap together, -1 for none: by default as much swap as memory, as in Docker."""
    if limits.memory_swap:
        return limits.memory_swap
    return 2 * limits.memory or -1


def child(parent: str, id: str) -> str:
    """The path of a group below its hierarchy's mount."""
    if not id or "/" in id or id.startswith("."):
        raise ValueError(f"{id!r} can't name a cgroup")
    return str(Path(parent.strip("/")) / id)
