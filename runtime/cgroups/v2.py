"""cgroup v2: one directory per container, all controllers in it.

Each group from the mount down to the parent hands its controllers on to those below, which the kernel allows only to
groups without processes of their own (but the true root): `_delegate` moves such processes into a group beside the
containers.  Devices are no controller here but an eBPF program: `devices.py`.
"""

import contextlib
import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from swarmd.runtime.cgroups import devices, files
from swarmd.runtime.cgroups.interface import PERIOD_US, Stats, Transferred, child, memory_and_swap, quota_us
from swarmd.runtime.errors import Conflict, NotFound, Unsupported
from swarmd.runtime.model import DeviceRule, Limits
from swarmd.runtime.resources import device_number

CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_PROCESSES = ".processes"  # where a group's own processes go; no container's name starts with a dot
_MOVING = 5.0  # s: how long to run after processes that fork while they are moved
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
            if rules is not None:
                cgroup.restrict_devices(rules)
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
        entries = parent.iterdir() if parent.is_dir() else []
        return iter(sorted(entry.name for entry in entries if entry.is_dir() and entry.name != _PROCESSES))

    def _delegate(self, parent: Path) -> None:
        """Enable the controllers from the mount down to the parent, whose children then have them."""
        available = (self._mount / "cgroup.controllers").read_text().split()
        wanted = [name for name in CONTROLLERS if name in available]
        parent.mkdir(parents=True, exist_ok=True)
        for group in reversed([parent, *parent.parents[: len(parent.relative_to(self._mount).parts)]]):
            enabled = (group / "cgroup.subtree_control").read_text().split()
            if missing := " ".join(f"+{name}" for name in wanted if name not in enabled):
                _hand_on(group, missing)


def _hand_on(group: Path, controllers: str) -> None:
    """Enable controllers for the groups below, after moving out of the way what runs in this one."""
    deadline = time.monotonic() + _MOVING
    while True:
        try:
            return files.write(group / "cgroup.subtree_control", controllers)
        except OSError as error:
            # EBUSY: the group has processes. They move one by one, and may fork meanwhile; hence again.
            if error.errno != errno.EBUSY:
                raise
            if time.monotonic() > deadline:
                raise Conflict(
                    f"cgroup {group} can't limit containers, as it has processes that can't be moved into "
                    f"{_PROCESSES}: choose another --cgroup-parent"
                ) from None
        _move_processes(group, group / _PROCESSES)


def _move_processes(group: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):  # it has ended, or can't be moved: seen from what is left
            files.write(target / "cgroup.procs", pid)


class Cgroup:
    def __init__(self, id: str, directory: Path) -> None:
        self.id = id
        self.directory = directory

    def procs_files(self) -> list[str]:
        return [str(self.directory / "cgroup.procs")]

    def pids(self) -> list[int]:
        return files.pids(self.directory)

    def update(self, limits: Limits) -> None:
        self._refuse_what_v2_lacks(limits)
        both = memory_and_swap(limits)
        self._make_room(limits.memory)
        settings: tuple[tuple[str, int | str, bool], ...] = (
            ("cpu.max", _cpu_max(limits), bool(limits.nano_cpus or limits.cpu_quota > 0)),
            ("cpu.weight", weight(limits.cpu_shares), bool(limits.cpu_shares)),
            # A write of nothing does not reach the kernel: a line end means "as the parent".
            ("cpuset.cpus", limits.cpuset_cpus or "\n", bool(limits.cpuset_cpus)),
            ("cpuset.mems", limits.cpuset_mems or "\n", bool(limits.cpuset_mems)),
            ("memory.low", limits.memory_reservation, bool(limits.memory_reservation)),
            ("memory.max", limits.memory or "max", bool(limits.memory)),
            ("memory.swap.max", "max" if both == -1 else both - limits.memory, limits.memory_swap > 0),
            ("pids.max", limits.pids if limits.pids > 0 else "max", limits.pids > 0),
        )
        for file, value, asked in settings:
            self._set(file, value, asked)
        self._limit_block_devices(limits)

    def _refuse_what_v2_lacks(self, limits: Limits) -> None:
        asked = {
            "real-time processor time": limits.realtime_period or limits.realtime_runtime,
            "swappiness": limits.swappiness is not None,
            "a disabled OOM killer": limits.oom_kill_disable,
        }
        if lacking := [what for what, wanted in asked.items() if wanted]:
            raise Unsupported(f"container {self.id} asks for {' and '.join(lacking)}, which cgroup v2 does not have")

    def _make_room(self, limit: int) -> None:
        """Have the kernel reclaim what is above a lower limit: put to memory.max, it would kill processes instead."""
        current = self.directory / "memory.current"
        if not limit or files.number(current) <= limit:
            return
        high = self.directory / "memory.high"
        files.write(high, limit)
        try:
            if (used := files.number(current)) > limit:
                raise Conflict(f"container {self.id} uses {used} bytes of memory, more than the new limit of {limit}")
        finally:
            files.write(high, "max")

    def _limit_block_devices(self, limits: Limits) -> None:
        bfq = (self.directory / "io.bfq.weight").exists()
        file, scaled = ("io.bfq.weight", int) if bfq else ("io.weight", io_weight)
        normal = scaled(limits.blkio_weight) if limits.blkio_weight else _DEFAULT_WEIGHT
        self._set(file, f"default {normal}", bool(limits.blkio_weight))
        weights = {_number(device.path): str(scaled(device.value)) for device in limits.blkio_weight_device}
        dropped = dict.fromkeys(files.rows(self.directory / file).keys() - weights.keys() - {"default"}, "default")
        for number, value in (dropped | weights).items():
            try:
                self._set(file, f"{number} {value}", True)
            except OSError as error:
                raise Unsupported(f"device {number} takes no weight: only BFQ and io.cost weigh") from error
        rates = {
            "rbps": limits.blkio_read_bps,
            "wbps": limits.blkio_write_bps,
            "riops": limits.blkio_read_iops,
            "wiops": limits.blkio_write_iops,
        }
        # A device's limits are written whole, so that one that is no longer asked for goes.
        wanted = {number: dict.fromkeys(rates, "max") for number in files.rows(self.directory / "io.max")}
        for key, throttled in rates.items():
            for device in throttled:
                wanted.setdefault(_number(device.path), dict.fromkeys(rates, "max"))[key] = str(device.value)
        for number, pairs in wanted.items():
            self._set("io.max", " ".join([number, *(f"{key}={value}" for key, value in pairs.items())]), True)

    def _set(self, file: str, value: int | str, asked: bool) -> None:
        try:
            files.write(self.directory / file, value)
        except FileNotFoundError:
            if asked:
                raise Unsupported(f"this host's cgroup v2 has no {file}: its controller is not enabled") from None

    def restrict_devices(self, rules: Sequence[DeviceRule]) -> None:
        devices.restrict(self.directory, rules)

    def freeze(self, timeout: float = 10.0) -> None:
        if not self._freeze(timeout):
            self.thaw()
            raise TimeoutError(f"cgroup {self.directory} could not be frozen in {timeout:g} s")

    def thaw(self) -> None:
        files.write(self.directory / "cgroup.freeze", 0)

    def _freeze(self, timeout: float) -> bool:
        files.write(self.directory / "cgroup.freeze", 1)
        events = self.directory / "cgroup.events"
        return files.wait_until(lambda: files.table(events).get("frozen") == 1, time.monotonic() + timeout)

    def kill(self, timeout: float = 10.0) -> None:
        try:
            files.write(self.directory / "cgroup.kill", 1)
        except OSError as error:
            if error.errno == errno.ENOENT and self.directory.is_dir():
                self._kill_frozen(timeout)
            elif error.errno not in (errno.ENOENT, errno.ENODEV):  # these: removed meanwhile
                raise

    def _kill_frozen(self, timeout: float) -> None:
        """For kernels before 5.14: a frozen group can't fork, and in v2 it dies without being thawed."""
        frozen = self._freeze(timeout)
        files.signal_all(self.directory)
        with contextlib.suppress(FileNotFoundError):
            self.thaw()
        if not frozen:
            raise TimeoutError(f"cgroup {self.directory} could not be frozen in {timeout:g} s")

    def oom_kills(self) -> int:
        return files.table(self.directory / "memory.events").get("oom_kill", 0)

    def stats(self) -> Stats:
        cpu, moved = files.table(self.directory / "cpu.stat"), files.rows(self.directory / "io.stat")
        return Stats(
            cpu_usage=cpu.get("usage_usec", 0) * _MICROSECOND,
            cpu_user=cpu.get("user_usec", 0) * _MICROSECOND,
            cpu_system=cpu.get("system_usec", 0) * _MICROSECOND,
            cpu_periods=cpu.get("nr_periods", 0),
            cpu_throttled_periods=cpu.get("nr_throttled", 0),
            cpu_throttled=cpu.get("throttled_usec", 0) * _MICROSECOND,
            memory_usage=files.number(self.directory / "memory.current"),
            memory_peak=files.number(self.directory / "memory.peak"),
            memory_stat=files.table(self.directory / "memory.stat"),
            blkio={
                "io_service_bytes": _transferred(moved, {"rbytes": "read", "wbytes": "write", "dbytes": "discard"}),
                "io_serviced": _transferred(moved, {"rios": "read", "wios": "write", "dios": "discard"}),
            },
            memory_limit=files.number(self.directory / "memory.max"),
            pids=files.number(self.directory / "pids.current"),
            pids_limit=files.number(self.directory / "pids.max"),
            oom_kills=self.oom_kills(),
        )

    def remove(self, timeout: float = 10.0) -> None:
        files.remove(self.directory, time.monotonic() + timeout)


def _transferred(rows: Mapping[str, Sequence[str]], kinds: dict[str, str]) -> tuple[Transferred, ...]:
    """Of rows "8:0 rbytes=4096 wbytes=0 rios=1 ..."."""
    found = []
    for number, pairs in rows.items():
        major, _, minor = number.partition(":")
        for key, value in (pair.split("=", 1) for pair in pairs if "=" in pair):
            if key in kinds:
                entry = Transferred(major=int(major), minor=int(minor), kind=kinds[key], value=int(value))
                found.append(entry)
    return tuple(found)


def _cpu_max(limits: Limits) -> str:
    quota = limits.cpu_quota or (quota_us(limits.nano_cpus) if limits.nano_cpus else 0)
    return f"{quota if quota > 0 else 'max'} {limits.cpu_period or PERIOD_US}"


def _number(path: str) -> str:
    return ":".join(map(str, device_number(path)))


def weight(shares: int) -> int:
    """CPU shares (2 to 262144, usually 1024) on the scale of v2 (1 to 10000, usually 100)."""
    if not shares:
        return _DEFAULT_WEIGHT
    return 1 + (min(max(shares, 2), 262_144) - 2) * 9_999 // 262_142


def io_weight(weight: int) -> int:
    """A block device weight of v1 and BFQ (10 to 1000) on the scale of io.weight (1 to 10000)."""
    return 1 + (weight - 10) * 9_999 // 990
