"""cgroup v2: one directory per container, all controllers in it.

Device access is not restricted here: v2 has no devices controller, only eBPF programs, which this runtime does not
load.  A container then relies on its capabilities (no CAP_SYS_ADMIN, /dev of its own) alone.
"""

import contextlib
import errno
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from swarmd.runtime.cgroups import files
from swarmd.runtime.cgroups.interface import PERIOD_US, Stats, child, memory_and_swap, quota_us
from swarmd.runtime.errors import Conflict, NotFound, Unsupported
from swarmd.runtime.model import DeviceRule, Limits

CONTROLLERS = ("cpu", "memory", "pids")
_DEFAULT_WEIGHT = 100
_MICROSECOND = 1_000


class Hierarchy:
    def __init__(self, mount: Path, parent: str) -> None:
        self._mount = mount
        self._parent = parent

    def create(self, id: str, limits: Limits, rules: Sequence[DeviceRule] | None = None) -> "Cgroup":
        directory = self._mount / child(self._parent, id)
        self._delegate(directory.parent)
        try:
            directory.mkdir()
        except FileExistsError:
            raise Conflict(f"cgroup {directory} is there already") from None
        try:
            cgroup = Cgroup(id, directory)
            cgroup.update(limits)
        except BaseException:
            directory.rmdir()
            raise
        return cgroup

    def load(self, id: str) -> "Cgroup":
        directory = self._mount / child(self._parent, id)
        if not directory.is_dir():
            raise NotFound(f"container {id} has no cgroup {directory}")
        return Cgroup(id, directory)

    def list(self) -> Iterator[str]:
        parent = self._mount / self._parent.strip("/")
        names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
        return iter(names)

    def _delegate(self, parent: Path) -> None:
        """Enable the controllers from the mount down to the parent, whose children then have them."""
        available = (self._mount / "cgroup.controllers").read_text().split()
        wanted = " ".join(f"+{name}" for name in CONTROLLERS if name in available)
        parent.mkdir(parents=True, exist_ok=True)
        for group in reversed([parent, *parent.parents[: len(parent.relative_to(self._mount).parts)]]):
            enabled = (group / "cgroup.subtree_control").read_text().split()
            if any(name.removeprefix("+") not in enabled for name in wanted.split()):
                files.write(group / "cgroup.subtree_control", wanted)


class Cgroup:
    def __init__(self, id: str, directory: Path) -> None:
        self.id = id
        self.directory = directory

    def procs_files(self) -> list[str]:
        return [str(self.directory / "cgroup.procs")]

    def pids(self) -> list[int]:
        return files.pids(self.directory)

    def update(self, limits: Limits) -> None:
        quota = str(quota_us(limits.nano_cpus)) if limits.nano_cpus else "max"
        both = memory_and_swap(limits)
        settings: tuple[tuple[str, int | str, bool], ...] = (
            ("cpu.max", f"{quota} {PERIOD_US}", bool(limits.nano_cpus)),
            ("cpu.weight", weight(limits.cpu_shares), bool(limits.cpu_shares)),
            ("memory.low", limits.memory_reservation, bool(limits.memory_reservation)),
            ("memory.max", limits.memory or "max", bool(limits.memory)),
            ("memory.swap.max", "max" if both == -1 else both - limits.memory, limits.memory_swap > 0),
            ("pids.max", limits.pids if limits.pids > 0 else "max", limits.pids > 0),
        )
        for file, value, asked in settings:
            self._set(file, value, asked)

    def _set(self, file: str, value: int | str, asked: bool) -> None:
        try:
            files.write(self.directory / file, value)
        except FileNotFoundError:
            if asked:
                raise Unsupported(f"this host's cgroup v2 has no {file}: its controller is not enabled") from None
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise Conflict(f"container {self.id} uses more than the new limit of {value} in {file}") from None

    def kill(self, timeout: float = 10.0) -> None:
        try:
            files.write(self.directory / "cgroup.kill", 1)
        except FileNotFoundError:
            if self.directory.is_dir():
                self._kill_frozen(timeout)

    def _kill_frozen(self, timeout: float) -> None:
        """For kernels before 5.14: a frozen group can't fork, and in v2 it dies without being thawed."""
        files.write(self.directory / "cgroup.freeze", 1)
        events = self.directory / "cgroup.events"
        frozen = files.wait_until(lambda: files.table(events).get("frozen") == 1, time.monotonic() + timeout)
        files.signal_all(self.directory)
        with contextlib.suppress(FileNotFoundError):
            files.write(self.directory / "cgroup.freeze", 0)
        if not frozen:
            raise TimeoutError(f"cgroup {self.directory} could not be frozen in {timeout:g} s")

    def oom_kills(self) -> int:
        return files.table(self.directory / "memory.events").get("oom_kill", 0)

    def stats(self) -> Stats:
        cpu = files.table(self.directory / "cpu.stat")
        return Stats(
            cpu_usage=cpu.get("usage_usec", 0) * _MICROSECOND,
            cpu_user=cpu.get("user_usec", 0) * _MICROSECOND,
            cpu_system=cpu.get("system_usec", 0) * _MICROSECOND,
            cpu_periods=cpu.get("nr_periods", 0),
            cpu_throttled_periods=cpu.get("nr_throttled", 0),
            cpu_throttled=cpu.get("throttled_usec", 0) * _MICROSECOND,
            memory_usage=files.number(self.directory / "memory.current"),
            memory_inactive_file=files.table(self.directory / "memory.stat").get("inactive_file", 0),
            memory_limit=files.number(self.directory / "memory.max"),
            pids=files.number(self.directory / "pids.current"),
            pids_limit=files.number(self.directory / "pids.max"),
            oom_kills=self.oom_kills(),
        )

    def remove(self, timeout: float = 10.0) -> None:
        files.remove(self.directory, time.monotonic() + timeout)


def weight(shares: int) -> int:
    """CPU shares (2 to 262144, usually 1024) on the scale of v2 (1 to 10000, usually 100)."""
    if not shares:
        return _DEFAULT_WEIGHT
    return 1 + (min(max(shares, 2), 262_144) - 2) * 9_999 // 262_142
