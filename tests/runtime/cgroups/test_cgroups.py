"""What is written to which file, in both versions, on directories that stand for the kernel's."""

import shutil
from pathlib import Path

import pytest

from swarmd.runtime.cgroups import detect, files, v1, v2
from swarmd.runtime.devices import DEFAULT_RULES
from swarmd.runtime.errors import Conflict, NotFound, Unsupported
from swarmd.runtime.model import DeviceLimit, Limits

V1_FILES = {
    "cpu": ("cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"),
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"),
    "pids": ("pids.max",),
    "devices": ("devices.allow", "devices.deny"),
    "freezer": ("freezer.state",),
}
V2_FILES = ("cpu.max", "cpu.weight", "memory.max", "memory.low", "memory.swap.max", "pids.max", "cgroup.kill")
_MOST = "9223372036854771712"
LIMITS = Limits(nano_cpus=1_500_000_000, memory=64 << 20, memory_reservation=32 << 20, pids=99, cpu_shares=512)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fills a directory with the files of a cgroup when it is made, as cgroupfs does."""
    mkdir = Path.mkdir

    def filling(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        mkdir(self, mode, parents, exist_ok)
        controller = self.relative_to(tmp_path).parts[0]
        for name in ("cgroup.procs", "cgroup.subtree_control", *V1_FILES.get(controller, V2_FILES)):
            unlimited = {"memory.limit_in_bytes": _MOST, "memory.memsw.limit_in_bytes": _MOST, "pids.max": "max"}
            (self / name).write_text(unlimited.get(name, ""))

    monkeypatch.setattr(Path, "mkdir", filling)
    monkeypatch.setattr(Path, "rmdir", lambda self: shutil.rmtree(self))
    for name in (*V1_FILES, "unified"):
        (tmp_path / name).mkdir()
    (tmp_path / "unified/cgroup.controllers").write_text("cpu io memory pids")
    return tmp_path


def contents(directory: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in directory.iterdir() if file.is_file() and file.read_text()}


def test_v1_spreads_the_limits_over_its_controllers(kernel: Path) -> None:
    hierarchy = v1.Hierarchy({name: kernel / name for name in V1_FILES}, "host1/swarmd")
    cgroup = hierarchy.create("abc", LIMITS, DEFAULT_RULES)
    held = {name: contents(kernel / name / "host1/swarmd/abc") for name in V1_FILES}
    assert held["cpu"] == {"cpu.shares": "512", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"}
    assert held["memory"] == {
        "memory.limit_in_bytes": str(64 << 20),
        "memory.memsw.limit_in_bytes": str(128 << 20),
        "memory.soft_limit_in_bytes": str(32 << 20),
    }
    assert held["pids"] == {"pids.max": "99"}
    assert held["devices"]["devices.deny"] == "a"
    assert sorted(cgroup.procs_files()) == sorted(str(kernel / n / "host1/swarmd/abc/tasks") for n in V1_FILES)
    assert list(hierarchy.list()) == ["abc"]
    with pytest.raises(Conflict):
        hierarchy.create("abc", LIMITS)


def test_v1_reads_what_the_kernel_reports(kernel: Path) -> None:
    cgroup = v1.Hierarchy({name: kernel / name for name in V1_FILES}, "swarmd").create("abc", Limits())
    memory, pids = kernel / "memory/swarmd/abc", kernel / "pids/swarmd/abc"
    (memory / "memory.usage_in_bytes").write_text("4096\n")
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (memory / "memory.stat").write_text("cache 1\ntotal_inactive_file 1024\n")
    (memory / "memory.failcnt").write_text("6\n")
    (memory / "memory.max_usage_in_bytes").write_text("8192\n")
    (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (pids / "pids.current").write_text("2\n")
    (kernel / "cpu/swarmd/abc/cpu.stat").write_text("nr_periods 9\nnr_throttled 4\nthrottled_time 77\n")
    stats = cgroup.stats()
    assert (stats.memory_usage, stats.memory_limit, stats.memory_peak, stats.memory_failures) == (4096, 0, 8192, 6)
    assert stats.memory_stat == {"cache": 1, "total_inactive_file": 1024}
    assert (stats.pids, stats.pids_limit, stats.oom_kills) == (2, 0, 3)
    assert (stats.cpu_periods, stats.cpu_throttled_periods, stats.cpu_throttled) == (9, 4, 77)


def moved(cgroup: v1.Cgroup | v2.Cgroup) -> dict[str, list[tuple[int, int, str, int]]]:
    return {what: [(e.major, e.minor, e.kind, e.value) for e in found] for what, found in cgroup.stats().blkio.items()}


def test_v1_counts_what_block_devices_did_by_the_scheduler_where_it_has_counted(kernel: Path) -> None:
    (kernel / "blkio").mkdir()
    mounts = {name: kernel / name for name in (*V1_FILES, "blkio")}
    cgroup, blkio = v1.Hierarchy(mounts, "swarmd").create("abc", Limits()), kernel / "blkio/swarmd/abc"
    for name, text in {
        "throttle.io_service_bytes": "8:0 Read 4096\n8:0 Write 1\n8:0 Sync 2\n8:0 Discard 3\n8:0 Total 6\nTotal 4102\n",
        "throttle.io_serviced": "8:0 Read 7\nTotal 7\n",
        "bfq.io_service_bytes": "Total 0\n",
        "bfq.io_serviced": "8:16 Read 9\nTotal 9\n",
        "time": "8:0 12\n",
        "sectors": "8:0 8\n",
    }.items():
        (blkio / f"blkio.{name}_recursive").write_text(text)
    kinds = [("read", 4096), ("write", 1), ("sync", 2), ("discard", 3), ("total", 6)]
    assert moved(cgroup) == {
        "io_service_bytes": [(8, 0, kind, value) for kind, value in kinds],
        "io_serviced": [(8, 16, "read", 9)],
        "time": [(8, 0, "", 12)],
        "sectors": [(8, 0, "", 8)],
        **{key: [] for key in ("io_queued", "io_service_time", "io_wait_time", "io_merged")},
    }


def test_a_limit_of_a_device_that_is_dropped_is_taken_back(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v1, "device_number", lambda path: {"/dev/a": (8, 0), "/dev/b": (8, 16)}[path])
    monkeypatch.setattr(v2, "device_number", lambda path: {"/dev/a": (8, 0), "/dev/b": (8, 16)}[path])
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(files, "write", lambda file, value: written.append((file.name, str(value))))
    only_a = Limits(blkio_read_bps=(DeviceLimit(path="/dev/a", value=5),))
    unified, blkio = kernel / "unified/abc", kernel / "blkio/abc"
    unified.mkdir()
    blkio.mkdir(parents=True)
    (unified / "io.max").write_text("8:0 rbps=1 wbps=2 riops=max wiops=max\n8:16 rbps=3 wbps=max riops=max wiops=4\n")
    (unified / "io.weight").write_text("default 100\n8:16 300\n")
    v2.Cgroup("abc", unified).update(only_a)
    assert [value for name, value in written if name.startswith("io.")] == [
        *("default 100", "8:16 default"),
        *("8:0 rbps=5 wbps=max riops=max wiops=max", "8:16 rbps=max wbps=max riops=max wiops=max"),
    ]
    written.clear()
    (blkio / "blkio.throttle.read_bps_device").write_text("8:0 1\n8:16 3\n")
    (blkio / "blkio.throttle.write_iops_device").write_text("8:16 4\n")
    v1.Cgroup("abc", {"blkio": blkio}).update(only_a)
    assert sorted(written) == [
        *(("blkio.throttle.read_bps_device", value) for value in ("8:0 5", "8:16 0")),
        ("blkio.throttle.write_iops_device", "8:16 0"),
    ]


def test_v1_a_limit_without_its_controller_is_refused_and_leaves_nothing(kernel: Path) -> None:
    hierarchy = v1.Hierarchy({"freezer": kernel / "freezer"}, "swarmd")
    with pytest.raises(Unsupported, match="'memory'"):
        hierarchy.create("abc", Limits(memory=1 << 20))
    assert list(hierarchy.list()) == []
    with pytest.raises(Unsupported, match="freezer"):
        v1.Hierarchy({"memory": kernel / "memory"}, "swarmd")


def test_v2_puts_all_limits_in_one_place_and_enables_controllers_on_the_way(kernel: Path) -> None:
    hierarchy = v2.Hierarchy(kernel / "unified", "host1/swarmd")
    cgroup = hierarchy.create("abc", LIMITS)
    assert contents(kernel / "unified/host1/swarmd/abc") == {
        "cpu.max": "150000 100000",
        "cpu.weight": str(v2.weight(512)),
        "memory.max": str(64 << 20),
        "memory.low": str(32 << 20),
        "memory.swap.max": str(64 << 20),
        "pids.max": "99",
    }
    for group in ("unified", "unified/host1", "unified/host1/swarmd"):
        assert (kernel / group / "cgroup.subtree_control").read_text() == "+cpu +io +memory +pids"
    cgroup.kill()
    assert (kernel / "unified/host1/swarmd/abc/cgroup.kill").read_text() == "1"
    cgroup.update(Limits())
    assert contents(kernel / "unified/host1/swarmd/abc")["memory.max"] == "max"
    assert hierarchy.load("abc").procs_files() == cgroup.procs_files()
    with pytest.raises(NotFound):
        hierarchy.load("other")


def test_v2_reads_what_the_kernel_reports(kernel: Path) -> None:
    cgroup = v2.Hierarchy(kernel / "unified", "swarmd").create("abc", Limits(pids=5))
    directory = kernel / "unified/swarmd/abc"
    (directory / "memory.current").write_text("4096\n")
    (directory / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    (directory / "cpu.stat").write_text("usage_usec 12\nuser_usec 8\nsystem_usec 4\n")
    (directory / "memory.stat").write_text("anon 1\ninactive_file 2\n")
    (directory / "io.stat").write_text("8:0 rbytes=9 wbytes=8 rios=7 wios=6 dbytes=5 dios=4\n7:0 \n")
    assert moved(cgroup) == {
        "io_service_bytes": [(8, 0, "read", 9), (8, 0, "write", 8), (8, 0, "discard", 5)],
        "io_serviced": [(8, 0, "read", 7), (8, 0, "write", 6), (8, 0, "discard", 4)],
    }
    stats = cgroup.stats()
    assert (stats.memory_stat, stats.memory_failures) == ({"anon": 1, "inactive_file": 2}, None)
    assert (stats.memory_usage, stats.oom_kills, stats.pids_limit) == (4096, 1, 5)
    assert (stats.cpu_usage, stats.cpu_user, stats.cpu_system) == (12_000, 8_000, 4_000)


@pytest.mark.parametrize(("shares", "weight"), [(0, 100), (2, 1), (1024, 39), (262_144, 10_000), (1, 1)])
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert v2.weight(shares) == weight


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        (["cgroup /m/memory cgroup rw,memory", "cgroup /m/freezer cgroup rw,freezer"], v1.Hierarchy),
        (
            ["cgroup /m/a cgroup rw,freezer", "cgroup /m/b cgroup rw,memory,pids", "cgroup2 /m/u cgroup2 rw"],
            v1.Hierarchy,
        ),
        (["cgroup2 /m cgroup2 rw,nsdelegate"], v2.Hierarchy),
        (["cgroup /m/systemd cgroup rw,name=systemd", "cgroup2 /m cgroup2 rw"], v2.Hierarchy),
    ],
)
def test_the_version_is_found_from_what_is_mounted(tmp_path: Path, mounts: list[str], kind: type) -> None:
    lines = []
    for number, mount in enumerate(mounts):
        fstype, place, source, options = mount.split()
        lines.append(f"{number} 1 0:{number} / {place} rw,relatime - {fstype} {source} {options}\n")
    (tmp_path / "mountinfo").write_text("".join(lines))
    assert isinstance(detect("swarmd", tmp_path / "mountinfo"), kind)


def test_a_host_without_cgroups_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("1 1 0:1 / / rw - ext4 /dev/sda rw\n")
    with pytest.raises(Unsupported, match="no cgroup hierarchy"):
        detect("swarmd", tmp_path / "mountinfo")


def test_v1_what_a_crash_left_of_a_group_is_found_and_removed(kernel: Path) -> None:
    hierarchy = v1.Hierarchy({name: kernel / name for name in V1_FILES}, "swarmd")
    hierarchy.create("abc", LIMITS)
    shutil.rmtree(kernel / "freezer/swarmd/abc")
    assert list(hierarchy.list()) == ["abc"]
    left = hierarchy.load("abc")
    left.kill()
    left.remove()
    assert list(hierarchy.list()) == []
    with pytest.raises(NotFound):
        hierarchy.load("abc")
