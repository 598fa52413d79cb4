"""cgroup v1: one directory per controller, each in a hierarchy of its own.

Controllers that are mounted are used, the others only missed when a limit needs them.  Mounts may carry several
controllers (cpu,cpuacct) or be separate; both come out as a directory per controller.
"""

import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from swarmd.runtime.cgroups import files
from swarmd.runtime.cgroups.interface import PERIOD_US, Stats, child, memory_and_swap, quota_us
from swarmd.runtime.errors import Conflict, NotFound, Unsupported
from swarmd.runtime.model import DeviceRule, Limits

CONTROLLERS = ("freezer", "cpu", "cpuacct", "memory", "pids", "devices")
_UNLIMITED = 1 << 62  # the kernel reports "no limit" as the largest multiple of a page
_DEFAULT_SHARES = 1024


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
                directory.parent.mkdir(parents=True, exist_ok=True)
                try:
                    directory.mkdir()
                except FileExistsError:
                    raise Conflict(f"cgroup {directory} is there already") from None
                undo.callback(directory.rmdir)
            cgroup.update(limits)
            if rules is not None:
                cgroup.restrict_devices(rules)
            undo.pop_all()
        return cgroup

    def load(self, id: str) -> "Cgroup":
        cgroup = self._cgroup(id)
        if not cgroup.directories["freezer"].is_dir():
            raise NotFound(f"container {id} has no cgroup {cgroup.directories['freezer']}")
        return cgroup

    def list(self) -> Iterator[str]:
        """Also those of which a crash in the middle of create or remove left only a part."""
        parents = [mount / self._parent.strip("/") for mount in self._mounts.values()]
        return iter(sorted({e.name for parent in parents if parent.is_dir() for e in parent.iterdir() if e.is_dir()}))

    def _cgroup(self, id: str) -> "Cgroup":
        path = child(self._parent, id)
        return Cgroup(id, {name: mount / path for name, mount in self._mounts.items()})


class Cgroup:
    def __init__(self, id: str, directories: dict[str, Path]) -> None:
        self.id = id
        self.directories = directories

    def procs_files(self) -> list[str]:
        # `tasks`: a single thread that moves itself need not wait for the kernel's lock on all forks of the host, which
        # takes about 10 ms; and those that enter here have a single thread.
        return [str(directory / "tasks") for directory in dict.fromkeys(self.directories.values())]

    def pids(self) -> list[int]:
        return files.pids(self.directories["freezer"])

    def update(self, limits: Limits) -> None:
        self._set("cpu", "cpu.shares", limits.cpu_shares or _DEFAULT_SHARES, asked=bool(limits.cpu_shares))
        if cpu := self._directory("cpu", "CPU", asked=bool(limits.nano_cpus)):
            quota = quota_us(limits.nano_cpus) if limits.nano_cpus else -1
            files.write(cpu / "cpu.cfs_period_us", PERIOD_US)
            files.write(cpu / "cpu.cfs_quota_us", quota)
        self._set("pids", "pids.max", limits.pids if limits.pids > 0 else "max", asked=limits.pids > 0)
        if memory := self._directory("memory", "memory", asked=bool(limits.memory or limits.memory_reservation)):
            self._limit_memory(memory, limits)

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

    def restrict_devices(self, rules: Sequence[DeviceRule]) -> None:
        if devices := self.directories.get("devices"):
            files.write(devices / "devices.deny", "a")
            for rule in rules:
                numbers = (("*" if number is None else number) for number in (rule.major, rule.minor))
                text = f"{rule.kind} {':'.join(map(str, numbers))} {rule.access}"
                files.write(devices / ("devices.allow" if rule.allow else "devices.deny"), text)

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
        cpu, cpuacct, memory, pids = (self.directories.get(c, absent) for c in ("cpu", "cpuacct", "memory", "pids"))
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
            memory_inactive_file=files.table(memory / "memory.stat").get("total_inactive_file", 0),
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
