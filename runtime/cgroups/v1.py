"""cgroup v1: one directory per controller, each in a hierarchy of its own.

Controllers that are mounted are used, the others only missed when a limit needs them.  Mounts may carry several
controllers (cpu,cpuacct) or be separate; both come out as a directory per controller.
"""

import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from swarmd.runtime.cgroups import files
from swarmd.runtime.cgroups.interface import BLKIO, PERIOD_US, Stats, Transferred, child, memory_and_swap, quota_us
from swarmd.runtime.errors import Conflict, Invalid, NotFound, Unsupported
from swarmd.runtime.model import DeviceLimit, DeviceRule, Limits
from swarmd.runtime.resources import device_number
from swarmd.runtime.stages.files import read_bytes

CONTROLLERS = ("freezer", "cpu", "cpuacct", "memory", "pids", "devices", "blkio", "cpuset")
_RATES = (
    ("read_bps", "blkio_read_bps"),
    ("write_bps", "blkio_write_bps"),
    ("read_iops", "blkio_read_iops"),
    ("write_iops", "blkio_write_iops"),
)
_UNLIMITED = 1 << 62  # the kernel reports "no limit" as the largest multiple of a page
_DEFAULT_SHARES = 1024
_NO_LIMITS = Limits()


class Hierarchy:
    def __init__(self, mounts: Mapping[str, Path], parent: str) -> None:
        """mounts: where each controller is mounted."""
        if "freezer" not in mounts:
            raise Unsupported("cgroup v1 without the freezer controller can't kill a container whole: mount it")
        self._mounts = {name: mounts[name] for name in CONTROLLERS if name in mounts}
        self._parent = parent

    def create(self, id: str, limits: Limits, rules: Sequence[DeviceRule] | None = None) -> "Cgroup":
        cgroup = self._cgroup(id)
        with ExitStack() as undo:
            for directory in dict.fromkeys(cgroup.directories.values()):
                try:
                    _make(directory)
                except FileExistsError:
                    raise Conflict(f"cgroup {directory} is there already") from None
                undo.callback(directory.rmdir)
            if limits == _NO_LIMITS:  # as the kernel makes it, but for the cpuset: that starts empty
                cgroup.limit_cpuset(limits)
            else:
                cgroup.update(limits)
            if rules is not None:
                cgroup.restrict_devices(rules)
            undo.pop_all()
        return cgroup

    def load(self, id: str) -> "Cgroup":
        cgroup = self._cgroup(id)
        # Any of them: a crash in the middle of making or removing it leaves a part.
        if not any(directory.is_dir() for directory in cgroup.directories.values()):
            raise NotFound(f"container {id} has no cgroup {cgroup.directories['freezer']}")
        return cgroup

    def list(self) -> Iterator[str]:
        """Also those of which a crash in the middle of create or remove left only a part."""
        parents = [mount / self._parent.strip("/") for mount in self._mounts.values()]
        return iter(sorted({e.name for parent in parents if parent.is_dir() for e in parent.iterdir() if e.is_dir()}))

    def _cgroup(self, id: str) -> "Cgroup":
        path = child(self._parent, id)
        return Cgroup(id, {name: mount / path for name, mount in self._mounts.items()})


def _make(directory: Path) -> None:
    try:
        directory.mkdir()
    except FileNotFoundError:  # the first of this parent
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()


def _device_text(rule: DeviceRule) -> str:
    major, minor = ("*" if number is None else number for number in (rule.major, rule.minor))
    return f"{rule.kind} {major}:{minor} {rule.access}"


class Cgroup:
    def __init__(self, id: str, directories: dict[str, Path]) -> None:
        self.id = id
        self.directories = directories

    def procs_files(self) -> list[str]:
        # `tasks`: a single thread that moves itself need not wait for the kernel's lock on all forks of the host, which
        # takes about 10 ms; and those that enter here have a single thread.
        return [f"{directory}/tasks" for directory in dict.fromkeys(self.directories.values())]

    def pids(self) -> list[int]:
        return files.pids(self.directories["freezer"])

    def update(self, limits: Limits) -> None:
        self._set("cpu", "cpu.shares", limits.cpu_shares or _DEFAULT_SHARES, asked=bool(limits.cpu_shares))
        if cpu := self._directory("cpu", "CPU", asked=bool(limits.nano_cpus or limits.cpu_quota or limits.cpu_period)):
            quota = limits.cpu_quota or (quota_us(limits.nano_cpus) if limits.nano_cpus else -1)
            files.write(cpu / "cpu.cfs_quota_us", -1)  # a period must fit the quota of the moment
            files.write(cpu / "cpu.cfs_period_us", limits.cpu_period or PERIOD_US)
            files.write(cpu / "cpu.cfs_quota_us", quota)
            self._limit_realtime(cpu, limits)
        self.limit_cpuset(limits)
        self._set("pids", "pids.max", limits.pids if limits.pids > 0 else "max", asked=limits.pids > 0)
        if memory := self._directory("memory", "memory", asked=bool(limits.memory or limits.memory_reservation)):
            self._limit_memory(memory, limits)
        self._limit_block_devices(limits)

    def _limit_realtime(self, cpu: Path, limits: Limits) -> None:
        asked = {"cpu.rt_period_us": limits.realtime_period, "cpu.rt_runtime_us": limits.realtime_runtime}
        for name, value in asked.items():
            if not value:
                continue
            if not (cpu / name).exists():
                raise Unsupported(f"this host's kernel gives groups no real-time processor time: {name} is missing")
            try:
                files.write(cpu / name, value)
            except OSError as error:
                said = error.strerror
                raise Unsupported(f"this host gives its containers no such real-time processor time: {said}") from None

    def limit_cpuset(self, limits: Limits) -> None:
        asked = bool(limits.cpuset_cpus or limits.cpuset_mems)
        cpuset = self._directory("cpuset", "the set of CPUs", asked)
        if cpuset is None:
            return
        above = _filled_cpuset(cpuset.parent)
        # A group takes no process before it has processors and memory nodes.
        for name, value in (("cpuset.cpus", limits.cpuset_cpus), ("cpuset.mems", limits.cpuset_mems)):
            try:
                files.write(f"{cpuset}/{name}", value or above[name])
            except OSError as error:
                if not value:
                    raise
                raise Invalid(f"{name.partition('.')[2]} {value!r} are not on this host: {error.strerror}") from None

    def _limit_block_devices(self, limits: Limits) -> None:
        weights = bool(limits.blkio_weight or limits.blkio_weight_device)
        rates = any(getattr(limits, field) for _, field in _RATES)
        blkio = self._directory("blkio", "the traffic of block devices", asked=weights or rates)
        if blkio is None:
            return
        if weights:
            self._weigh(blkio, limits)
        for name, field in _RATES:
            file = blkio / f"blkio.throttle.{name}_device"
            wanted = {f"{major}:{minor}": value for major, minor, value in _numbered(getattr(limits, field))}
            dropped = dict.fromkeys(files.rows(file).keys() - wanted.keys(), 0)
            for number, rate in (dropped | wanted).items():
                files.write(file, f"{number} {rate}")

    def _weigh(self, blkio: Path, limits: Limits) -> None:
        prefix = next((p for p in ("blkio.bfq.weight", "blkio.weight") if (blkio / p).exists()), "")
        if not prefix:
            raise Unsupported("this host's kernel does not weigh block device traffic: it needs the BFQ scheduler")
        if limits.blkio_weight:
            files.write(blkio / prefix, limits.blkio_weight)
        for limit in limits.blkio_weight_device:
            major, minor = device_number(limit.path)
            try:
                files.write(blkio / f"{prefix}_device", f"{major}:{minor} {limit.value}")
            except OSError as error:
                raise Unsupported(f"device {limit.path} takes no weight: only the BFQ scheduler weighs") from error

    def _limit_memory(self, memory: Path, limits: Limits) -> None:
        files.write(memory / "memory.soft_limit_in_bytes", limits.memory_reservation or -1)
        both = memory_and_swap(limits)
        steps = [("memory.limit_in_bytes", limits.memory or -1)]
        if (memory / "memory.memsw.limit_in_bytes").exists():
            # The kernel wants memory <= memory and swap after every single write.
            raising = both == -1 or both > files.number(memory / "memory.memsw.limit_in_bytes")
            steps.insert(0 if raising else 1, ("memory.memsw.limit_in_bytes", both))
        for file, value in steps:
            try:
                files.write(memory / file, value)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise Conflict(f"container {self.id} uses more memory than the new limit of {value} bytes") from None
        if limits.swappiness is not None:
            files.write(memory / "memory.swappiness", limits.swappiness)
        oom = memory / "memory.oom_control"
        if limits.oom_kill_disable or files.table(oom).get("oom_kill_disable"):
            files.write(oom, int(limits.oom_kill_disable))

    def restrict_devices(self, rules: Sequence[DeviceRule]) -> None:
        if devices := self.directories.get("devices"):
            files.write(f"{devices}/devices.deny", "a")
            for allow, some in groupby(rules, lambda rule: rule.allow):
                files.write(f"{devices}/devices.{'allow' if allow else 'deny'}", *map(_device_text, some))

    def freeze(self, timeout: float = 10.0) -> None:
        if not self._freeze(timeout):
            self.thaw()
            raise TimeoutError(f"cgroup {self.directories['freezer']} could not be frozen in {timeout:g} s")

    def thaw(self) -> None:
        files.write(self.directories["freezer"] / "freezer.state", "THAWED")

    def _freeze(self, timeout: float) -> bool:
        state = self.directories["freezer"] / "freezer.state"

        # Freezing starts over when a process was born in the middle, hence the second write on each look.
        def frozen() -> bool:
            files.write(state, "FROZEN")
            return state.read_text().strip() == "FROZEN"

        return files.wait_until(frozen, time.monotonic() + timeout)

    def kill(self, timeout: float = 10.0) -> None:
        try:
            self._kill(timeout)
        except OSError as error:
            # Its run has ended, and another removed it meanwhile: there is nothing left to kill.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def _kill(self, timeout: float) -> None:
        """A frozen group can't fork, so one pass of signals reaches everything; thawed, it dies."""
        freezer = self.directories["freezer"]
        if not (freezer / "freezer.state").exists():
            return
        try:
            done = self._freeze(timeout)
            files.signal_all(freezer)
        finally:
            self.thaw()
        if not done:
            raise TimeoutError(f"cgroup {freezer} could not be frozen in {timeout:g} s; its processes were signalled")

    def oom_kills(self) -> int:
        memory = self.directories.get("memory")
        return files.table(memory / "memory.oom_control").get("oom_kill", 0) if memory else 0

    def stats(self) -> Stats:
        absent = Path("/nonexistent")
        cpu, cpuacct, memory, pids, blkio = (
            self.directories.get(c, absent) for c in ("cpu", "cpuacct", "memory", "pids", "blkio")
        )
        throttling = files.table(cpu / "cpu.stat")
        limit = files.number(memory / "memory.limit_in_bytes")
        return Stats(
            cpu_usage=files.number(cpuacct / "cpuacct.usage"),
            cpu_user=files.number(cpuacct / "cpuacct.usage_user"),
            cpu_system=files.number(cpuacct / "cpuacct.usage_sys"),
            cpu_periods=throttling.get("nr_periods", 0),
            cpu_throttled_periods=throttling.get("nr_throttled", 0),
            cpu_throttled=throttling.get("throttled_time", 0),
            memory_usage=files.number(memory / "memory.usage_in_bytes"),
            memory_peak=files.number(memory / "memory.max_usage_in_bytes"),
            memory_failures=files.number(memory / "memory.failcnt"),
            memory_stat=files.table(memory / "memory.stat"),
            per_cpu=_numbers(cpuacct / "cpuacct.usage_percpu"),
            blkio={what: _transferred(blkio, what) for what in BLKIO},
            memory_limit=limit if limit < _UNLIMITED else 0,
            pids=files.number(pids / "pids.current"),
            pids_limit=files.number(pids / "pids.max"),
            oom_kills=self.oom_kills(),
        )

    def remove(self, timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        # The freezer goes last: while it is there, `load` finds what a crash in the middle left.
        for directory in reversed(self.directories.values()):
            files.remove(directory, deadline)

    def _set(self, controller: str, file: str, value: int | str, asked: bool) -> None:
        if directory := self._directory(controller, file, asked):
            files.write(directory / file, value)

    def _directory(self, controller: str, what: str, asked: bool) -> Path | None:
        if asked and controller not in self.directories:
            raise Unsupported(f"this host has no cgroup controller {controller!r}, so {what} can't be limited")
        return self.directories.get(controller)


def _filled_cpuset(directory: Path) -> dict[str, str]:
    """What a group has, after it was given, with those above it, what the one above it has: a new one has nothing."""
    held = {name: _held(f"{directory}/{name}") for name in ("cpuset.cpus", "cpuset.mems")}
    if all(held.values()):
        return held
    above = _filled_cpuset(directory.parent)
    for name, value in above.items():
        files.write(f"{directory}/{name}", value)
    return above


def _numbered(limits: Sequence[DeviceLimit]) -> list[tuple[int, int, int]]:
    """Major and minor number of each device, and its limit."""
    return [(*device_number(limit.path), limit.value) for limit in limits]


def _held(file: str) -> str:
    return read_bytes(file, 4096).decode().strip()


def _numbers(file: Path) -> tuple[int, ...]:
    try:
        return tuple(map(int, file.read_text().split()))
    except FileNotFoundError:
        return ()


def _transferred(blkio: Path, what: str) -> tuple[Transferred, ...]:
    """Lines of "8:0 Read 4096" or "8:0 4096"; the sum over all devices, which begins with "Total", is left out.

    A scheduler counts only the devices that it serves, the throttle all, but for bytes and operations alone.
    """
    for prefix in ("blkio.bfq", "blkio", "blkio.throttle"):
        try:
            lines = [line.split() for line in (blkio / f"{prefix}.{what}_recursive").read_text().splitlines()]
        except FileNotFoundError:
            continue
        found = []
        for number, *kind, value in lines:
            major, colon, minor = number.partition(":")
            if colon:
                one = Transferred(major=int(major), minor=int(minor), kind="".join(kind).lower(), value=int(value))
                found.append(one)
        if found:
            return tuple(found)
    return ()
