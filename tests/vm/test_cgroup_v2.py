"""What only cgroup v2 has: device programs, delegation, its own files. Needs a host with v2 alone: tests/vm/run."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from swarmd.runtime.cgroups import v2
from swarmd.runtime.devices import DEFAULT_RULES
from swarmd.runtime.errors import Conflict, Unsupported
from swarmd.runtime.model import DeviceLimit, DeviceRule, Limits
from tests.run import RUN

pytestmark = [pytest.mark.root, pytest.mark.vm]

MOUNT = Path("/sys/fs/cgroup")
KMSG = DeviceRule(kind="c", major=1, minor=11, access="r")
SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def hierarchy() -> Iterator[v2.Hierarchy]:
    name = f"swarmd-test-{RUN}"
    hierarchy = v2.Hierarchy(MOUNT, f"{name}/nested")
    yield hierarchy
    for id in hierarchy.list():
        hierarchy.load(id).kill()
        hierarchy.load(id).remove()
    (MOUNT / name / "nested").rmdir()
    (MOUNT / name).rmdir()


def run_in(directory: Path, program: str) -> "subprocess.Popen[bytes]":
    """Return once the process is inside, before it runs the program."""
    start = f"open({str(directory / 'cgroup.procs')!r}, 'w').write('0')\nprint(flush=True)\n"
    process = subprocess.Popen([sys.executable, "-c", start + program], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.read(1)
    process.stdout.close()
    return process


def until(what: str, seen: Callable[[], Any], wanted: Callable[[Any], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not wanted(last := seen()):
        assert time.monotonic() < deadline, f"{what}: last seen {last!r}"
        time.sleep(0.01)


def may(cgroup: v2.Cgroup, node: Path, flags: int) -> bool:
    """Whether a process of the group may open a node; any other error than EPERM fails the test."""
    program = f"import os\ntry: os.open({str(node)!r}, {flags})\nexcept PermissionError as e: raise SystemExit(e.errno)"
    code = run_in(cgroup.directory, program).wait(timeout=20)
    assert code in (0, 1)
    return code == 0


def read(cgroup: v2.Cgroup, *names: str) -> list[str]:
    return [(cgroup.directory / name).read_text().strip() for name in names]


def test_devices_are_refused_by_the_access_that_is_asked_for_and_rules_are_replaced(
    hierarchy: v2.Hierarchy, tmp_path: Path
) -> None:
    node = tmp_path / "kmsg"
    os.mknod(node, 0o600 | 0o020000, os.makedev(1, 11))
    cgroup = hierarchy.create("devices", Limits(), DEFAULT_RULES)
    reads: list[tuple[Sequence[DeviceRule], bool, bool]] = [
        (DEFAULT_RULES, False, False),
        ((*DEFAULT_RULES, KMSG), True, False),
        ((*DEFAULT_RULES, DeviceRule(kind="a", major=None, minor=None, access="rwm")), True, True),
        (DEFAULT_RULES, False, False),
    ]
    for rules, readable, writable in reads:
        cgroup.restrict_devices(rules)
        assert may(cgroup, Path("/dev/null"), os.O_RDWR)
        assert (may(cgroup, node, os.O_RDONLY), may(cgroup, node, os.O_WRONLY)) == (readable, writable)
        assert may(cgroup, node, os.O_RDWR) == (readable and writable)


def test_making_a_node_needs_a_rule_too(hierarchy: v2.Hierarchy, tmp_path: Path) -> None:
    cgroup = hierarchy.create("mknod", Limits(), [KMSG])
    program = f"import os\ntry: os.mknod({str(tmp_path / 'null')!r}, 0o20666, os.makedev(1, 3))\n"
    refused = run_in(cgroup.directory, program + "except PermissionError: raise SystemExit(7)")
    assert refused.wait(timeout=20) == 7


def test_a_group_inside_the_containers_has_its_rules(hierarchy: v2.Hierarchy, tmp_path: Path) -> None:
    node = tmp_path / "kmsg"
    os.mknod(node, 0o600 | 0o020000, os.makedev(1, 11))
    cgroup = hierarchy.create("outer", Limits(), DEFAULT_RULES)
    (cgroup.directory / "inner").mkdir()
    assert not may(v2.Cgroup("inner", cgroup.directory / "inner"), node, os.O_RDONLY)


def test_every_limit_reaches_its_file(hierarchy: v2.Hierarchy) -> None:
    limits = Limits(
        cpu_period=50_000,
        cpu_quota=25_000,
        cpu_shares=512,
        cpuset_cpus="0",
        cpuset_mems="0",
        memory=64 << 20,
        memory_reservation=32 << 20,
        memory_swap=96 << 20,
        pids=77,
        blkio_weight=500,
    )
    cgroup = hierarchy.create("limits", limits)
    assert read(cgroup, "cpu.max", "cpu.weight", "cpuset.cpus.effective", "cpuset.mems") == [
        "25000 50000",
        "20",
        "0",
        "0",
    ]
    assert read(cgroup, "memory.max", "memory.low", "memory.swap.max", "pids.max") == [
        *map(str, (64 << 20, 32 << 20, 32 << 20)),
        "77",
    ]
    assert read(cgroup, "io.weight") == [f"default {v2.io_weight(500)}"]
    cgroup.update(Limits(memory=64 << 20, memory_swap=-1))
    assert read(cgroup, "cpu.max", "cpu.weight", "cpuset.cpus", "memory.swap.max", "memory.low", "pids.max") == [
        *("max 100000", "100", "", "max", "0", "max")
    ]
    assert read(cgroup, "io.weight") == ["default 100"]


def test_block_devices_are_throttled(hierarchy: v2.Hierarchy, block_device: Path) -> None:
    rate = (DeviceLimit(path=str(block_device), value=1 << 20),)
    cgroup = hierarchy.create("io", Limits(blkio_read_bps=rate, blkio_write_iops=rate))
    assert f"rbps={1 << 20} wbps=max riops=max wiops={1 << 20}" in read(cgroup, "io.max")[0]
    cgroup.update(Limits(blkio_write_iops=rate))
    assert f"rbps=max wbps=max riops=max wiops={1 << 20}" in read(cgroup, "io.max")[0]
    cgroup.update(Limits())
    assert read(cgroup, "io.max") == [""]


@pytest.fixture
def block_device(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    subprocess.run(["modprobe", "loop"], check=True)
    command = ["losetup", "--find", "--show", str(tmp_path / "disk")]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield Path(device)
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.parametrize("limits", [Limits(swappiness=10), Limits(oom_kill_disable=True), Limits(realtime_runtime=950)])
def test_what_v2_lacks_is_refused_and_leaves_nothing(hierarchy: v2.Hierarchy, limits: Limits) -> None:
    with pytest.raises(Unsupported, match=r"lacking asks for .* which cgroup v2 does not have"):
        hierarchy.create("lacking", limits)
    assert list(hierarchy.list()) == []


def test_a_limit_below_what_is_in_use_is_refused_and_kills_nobody(hierarchy: v2.Hierarchy) -> None:
    cgroup = hierarchy.create("full", Limits(memory=128 << 20))
    program = run_in(cgroup.directory, f"held = b'x' * (64 << 20)\n{SLEEP}")
    until("memory", lambda: cgroup.stats().memory_usage, lambda used: used > 64 << 20)
    with pytest.raises(Conflict, match=r"full uses .* more than the new limit"):
        cgroup.update(Limits(memory=32 << 20))
    assert (cgroup.stats().memory_limit, cgroup.oom_kills(), program.poll()) == (128 << 20, 0, None)
    assert read(cgroup, "memory.high") == ["max"]
    cgroup.kill()
    assert program.wait(timeout=10) == -signal.SIGKILL


def test_shares_divide_a_busy_processor(hierarchy: v2.Hierarchy) -> None:
    groups = [
        hierarchy.create(id, Limits(cpuset_cpus="0", cpu_shares=shares)) for id, shares in (("a", 256), ("b", 8192))
    ]
    programs = [run_in(group.directory, "while True: pass") for group in groups]
    start = [group.stats().cpu_usage for group in groups]  # the first has run alone for a while

    def gained() -> list[int]:
        return [group.stats().cpu_usage - before for group, before in zip(groups, start, strict=True)]

    until("processor time", lambda: gained()[1], lambda used: used > 10**9, 50)
    few, many = gained()
    assert few < many / 2
    for group, program in zip(groups, programs, strict=True):
        group.kill()
        program.wait(timeout=10)


@pytest.mark.parametrize("namespace", [False, True])
def test_a_service_that_runs_in_a_group_above_moves_out_of_the_way(namespace: bool) -> None:
    """Seen from the host or, where another container runtime runs swarmd, from a namespace whose root is that group."""
    (MOUNT / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    parent = MOUNT / f"swarmd-test-service-{RUN}"
    parent.mkdir()
    service = run_in(parent, SLEEP)
    hierarchy = v2.Hierarchy(parent, "containers") if namespace else v2.Hierarchy(MOUNT, parent.name)
    try:
        cgroup = hierarchy.create("inside", Limits(memory=64 << 20, pids=9))
        assert cgroup.stats().memory_limit == 64 << 20
        assert list(hierarchy.list()) == ["inside"]
        assert str(service.pid) in (parent / ".processes/cgroup.procs").read_text().split()
        hierarchy.create("again", Limits(cpu_shares=2)).remove()
        cgroup.remove()
    finally:
        service.kill()
        service.wait(timeout=10)
        for group in sorted(parent.glob("*/")):
            group.rmdir()
        parent.rmdir()


def test_kernels_without_cgroup_kill_freeze_first(hierarchy: v2.Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup = hierarchy.create("old", Limits(pids=30))
    bomb = "import os\nfor _ in range(200):\n  try: os.fork()\n  except OSError: pass\n"
    program = run_in(cgroup.directory, bomb + SLEEP)
    until("forks", lambda: len(cgroup.pids()), lambda n: n == 30)
    write = v2.files.write

    def refusing(file: Path, value: str | int) -> None:
        if file.name == "cgroup.kill":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        write(file, value)

    monkeypatch.setattr(v2.files, "write", refusing)
    cgroup.kill()
    assert program.wait(timeout=10) == -signal.SIGKILL
    cgroup.remove()
