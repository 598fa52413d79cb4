"""Limits and kills of real processes in this host's hierarchy."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.runtime.cgroups import Cgroup, Hierarchy, detect
from swarmd.runtime.devices import DEFAULT_RULES
from swarmd.runtime.errors import Conflict, NotFound
from swarmd.runtime.model import Limits
from tests.run import RUN

pytestmark = pytest.mark.root

FORK_BOMB = "import os\nfor _ in range(200):\n  try: os.fork()\n  except OSError: pass\nimport time; time.sleep(60)"
HOG = "b = bytearray()\nwhile True: b += bytes(1 << 20)"


@pytest.fixture
def parent() -> Iterator[str]:
    name = f"swarmd-test-{RUN}/nested"
    yield name
    mounts = [
        Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines() if "cgroup" in line
    ]
    for directory in [mount / part for mount in mounts for part in (name, name.partition("/")[0])]:
        if directory.is_dir():
            directory.rmdir()


@pytest.fixture
def hierarchy(parent: str) -> Iterator[Hierarchy]:
    hierarchy = detect(parent)
    yield hierarchy
    for id in hierarchy.list():
        cgroup = hierarchy.load(id)
        cgroup.kill()
        cgroup.remove()


def run_in(cgroup: Cgroup, program: str) -> "subprocess.Popen[bytes]":
    """Return once the process is inside, before it runs the program."""
    enter = "".join(f"open({file!r}, 'w').write('0')\n" for file in cgroup.procs_files())
    read, write = os.pipe()
    inside = f"import os; os.write({write}, b'.'); os.close({write})\n"
    command = [sys.executable, "-c", enter + inside + program]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, pass_fds=[write])
    os.close(write)
    assert os.read(read, 1) == b"."
    os.close(read)
    return process


def until(what: str, seen: Callable[[], Any], wanted: Callable[[Any], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not wanted(last := seen()):
        assert time.monotonic() < deadline, f"{what}: last seen {last!r}"
        time.sleep(0.01)


def test_processes_enter_are_limited_and_are_killed_with_everything_they_fork(hierarchy: Hierarchy) -> None:
    cgroup = hierarchy.create("bomb", Limits(pids=20, nano_cpus=500_000_000, memory=256 << 20))
    program = run_in(cgroup, FORK_BOMB)
    until("forks", lambda: len(cgroup.pids()), lambda n: n == 20)
    stats = cgroup.stats()
    assert (stats.pids, stats.pids_limit, stats.memory_limit) == (20, 20, 256 << 20)
    cgroup.kill()
    assert program.wait(timeout=10) == -9
    cgroup.remove()
    with pytest.raises(NotFound):
        hierarchy.load("bomb")


def test_memory_over_the_limit_is_an_oom_kill(hierarchy: Hierarchy) -> None:
    cgroup = hierarchy.create("hog", Limits(memory=32 << 20))
    assert cgroup.oom_kills() == 0
    assert run_in(cgroup, HOG).wait(timeout=30) == -9
    until("oom kills", cgroup.oom_kills, lambda n: n == 1)
    cgroup.remove()


def test_cpu_quota_throttles(hierarchy: Hierarchy) -> None:
    cgroup = hierarchy.create("busy", Limits(nano_cpus=50_000_000))
    program = run_in(cgroup, "while True: pass")
    until("throttled periods", lambda: cgroup.stats().cpu_throttled_periods, lambda n: n >= 3)
    cgroup.kill()
    program.wait(timeout=10)


def test_limits_change_while_running(hierarchy: Hierarchy) -> None:
    cgroup = hierarchy.create("live", Limits(memory=64 << 20))
    program = run_in(cgroup, "import time; time.sleep(60)")
    for megabytes in (512, 48, 128):
        cgroup.update(Limits(memory=megabytes << 20, pids=megabytes))
        assert cgroup.stats().memory_limit == megabytes << 20
        assert cgroup.stats().pids_limit == megabytes
    cgroup.update(Limits())
    assert (cgroup.stats().memory_limit, cgroup.stats().pids_limit) == (0, 0)
    cgroup.kill()
    program.wait(timeout=10)


def test_a_name_is_taken_once_and_found_again(hierarchy: Hierarchy) -> None:
    hierarchy.create("once", Limits())
    with pytest.raises(Conflict):
        hierarchy.create("once", Limits())
    assert list(hierarchy.list()) == ["once"]
    assert hierarchy.load("once").pids() == []


def test_a_disk_can_only_be_opened_when_all_devices_are_allowed(hierarchy: Hierarchy, tmp_path: Path) -> None:
    node = tmp_path / "kmsg"
    os.mknod(node, 0o600 | 0o020000, os.makedev(1, 11))
    for id, rules, wanted in (("plain", DEFAULT_RULES, 1), ("privileged", None, 0)):
        cgroup = hierarchy.create(id, Limits(), rules)
        program = f"open('/dev/null', 'w')\ntry: open({str(node)!r})\nexcept PermissionError: raise SystemExit(1)"
        assert run_in(cgroup, program).wait(timeout=10) == wanted


def test_remove_waits_no_longer_than_told(hierarchy: Hierarchy) -> None:
    cgroup = hierarchy.create("kept", Limits())
    program = run_in(cgroup, "import time; time.sleep(60)")
    until("pids", cgroup.pids, lambda pids: pids == [program.pid])
    with pytest.raises(TimeoutError, match=str(program.pid)):
        cgroup.remove(timeout=0.05)
    cgroup.kill()
    program.wait(timeout=10)
