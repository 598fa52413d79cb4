"""kill -9 of each of our processes: the daemon, the spawner, the shim."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from swarmd.runtime import cgroups, restart
from swarmd.runtime.engine import Engine
from swarmd.runtime.model import ContainerConfig, HealthState, Limits, Phase
from swarmd.runtime.records import Run
from swarmd.runtime.stages import files
from tests.host.engine_host import add_image, engine_in, leftovers, remove_parents, until
from tests.run import RUN

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
PARENT = f"st-survival-{RUN}"


@pytest.fixture
async def root(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path
    async with engine_in(tmp_path, PARENT) as engine:
        for state in engine.list():
            await engine.remove(state.id, force=True)
    await until("nothing is left", lambda: not leftovers(tmp_path, PARENT))
    remove_parents(PARENT)
    shutil.rmtree(tmp_path)


@contextmanager
def killed_daemon(root: Path, command: str) -> Iterator[int]:
    """Run a daemon with one container, kill it with -9, and give the pid of the container's program."""
    arguments = [sys.executable, "-m", "tests.host.engine_daemon", str(root), PARENT, command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        daemon.kill()
        daemon.wait()
        yield pid


def _sleeping() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "100"])


def shim_of(root: Path, id: str) -> int:
    return msgspec.json.decode((root / "data/containers" / id / "run.json").read_bytes(), type=Run).shim


async def lines(engine: Engine, id: str) -> list[bytes]:
    return [entry.data async for entry in engine.logs(id, follow=True)]


async def test_a_container_does_not_notice_that_its_daemon_was_killed(root: Path) -> None:
    go = "/go"
    script = f"i=0; while ! test -e {go}; do echo $i; i=$((i+1)); sleep 0.01; done; echo last; exit 42"
    with killed_daemon(root, script) as pid:
        async with engine_in(root, PARENT) as engine:
            state = engine.inspect("survivor")
            assert (state.phase, state.pid) == (Phase.RUNNING, pid)
            await until("healthy", lambda: engine.inspect("survivor").health is HealthState.HEALTHY)
            await engine.exec("survivor", ["touch", go])
            assert (await engine.wait("survivor")).code == 42
            found = await lines(engine, "survivor")
            assert found == [*(b"%d\n" % i for i in range(len(found) - 1)), b"last\n"]


async def test_an_exit_while_no_daemon_runs_is_known_to_the_next(root: Path) -> None:
    with killed_daemon(root, "sleep 0.3; echo bye; exit 7") as pid:
        await until("its end", lambda: not Path(f"/proc/{pid}").exists())
        async with engine_in(root, PARENT) as engine:
            assert (await engine.wait("survivor")).code == 7
            assert engine.inspect("survivor").phase is Phase.EXITED
            assert await lines(engine, "survivor") == [b"bye\n"]


async def test_a_killed_spawner_is_replaced(root: Path) -> None:
    async with engine_in(root, PARENT) as engine:
        await add_image(engine.images)
        config = ContainerConfig(image="busybox", command=("sleep", "100"), network_mode="none")
        first = await engine.create(config)
        await engine.start(first)
        spawner = engine.spawner_pid
        os.kill(spawner, signal.SIGKILL)
        second = await engine.create(config)
        await engine.start(second)
        assert engine.spawner_pid != spawner
        assert engine.inspect(first).phase is Phase.RUNNING
        assert (await engine.exec(first, ["echo", "ok"])).stdout == b"ok\n"


async def test_a_killed_shim_takes_its_program_with_it_and_says_so(root: Path) -> None:
    async with engine_in(root, PARENT) as engine:
        await add_image(engine.images)
        config = ContainerConfig(image="busybox", command=("sleep", "100"), network_mode="none")
        id = await engine.create(config)
        await engine.start(id)
        pid = engine.inspect(id).pid
        os.kill(shim_of(root, id), signal.SIGKILL)
        ended = await engine.wait(id)
        assert ended.code == 137
        assert "shim was killed" in ended.error
        assert engine.inspect(id).phase is Phase.DEAD
        await until("the program's end", lambda: not Path(f"/proc/{pid}").exists())
        await engine.start(id)
        assert engine.inspect(id).phase is Phase.RUNNING


@pytest.mark.parametrize("policy", ["no", "on-failure", "unless-stopped", "always"])
async def test_after_a_restart_of_the_host_policies_are_followed_at_once(
    root: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_in(root, PARENT) as engine:
        await add_image(engine.images)
        config = ContainerConfig(
            image="busybox", command=("sleep", "100"), stop_signal="KILL", network_mode="none", restart=policy
        )
        ran, stopped = await engine.create(config, "ran"), await engine.create(config, "stopped")
        await engine.start(stopped)
        await engine.stop(stopped)
        await engine.start(ran)
    pid = engine.inspect(ran).pid
    os.kill(shim_of(root, ran), signal.SIGKILL)
    await until("the program's end", lambda: not files.start_time(pid))
    _forget(root, ran)
    monkeypatch.setattr(files, "boot_id", lambda: "the next boot")
    monkeypatch.setattr(restart, "FIRST_PAUSE", 1000.0)  # whoever waits for it is late
    async with engine_in(root, PARENT) as engine:
        if policy == "no":
            assert engine.inspect(ran).phase is Phase.EXITED
            ended = engine.inspect(ran).exit
            assert ended is not None and ended.code == 137 and "host went down" in ended.error
        else:
            await until("it runs again", lambda: engine.inspect(ran).phase is Phase.RUNNING)
            assert engine.inspect(ran).restart_count == 0
        if policy == "always":
            await until("even what was stopped runs", lambda: engine.inspect(stopped).phase is Phase.RUNNING)
        else:
            assert engine.inspect(stopped).phase is Phase.EXITED


def _forget(root: Path, id: str) -> None:
    """A host that went down has no groups and no run directory, and no record that was not synced."""
    hierarchy = cgroups.detect(PARENT)
    for group in hierarchy.list():
        hierarchy.load(group).kill()
        hierarchy.load(group).remove()
    shutil.rmtree(root / "run", ignore_errors=True)
    (root / "data/containers" / id / "run.json").unlink()


async def test_a_record_that_is_damaged_does_not_take_the_others_with_it(root: Path) -> None:
    async with engine_in(root, PARENT) as engine:
        await add_image(engine.images)
        config = ContainerConfig(image="busybox", command=("true",), network_mode="none")
        await engine.create(config, "good")
        bad = await engine.create(config, "bad")
    record = root / "data/containers" / bad / "state.json"
    whole = record.read_bytes()
    record.write_bytes(whole[:10])
    async with engine_in(root, PARENT) as engine:
        assert [state.name for state in engine.list()] == ["good"]
    record.write_bytes(whole)


async def test_what_was_half_made_blocks_nothing(root: Path) -> None:
    for name in (".new-aa", ".gone-bb"):
        (root / "data/containers" / name / "upper").mkdir(parents=True)
    cgroups.detect(PARENT).create("cc", Limits())
    async with engine_in(root, PARENT) as engine:
        assert not engine.list()
        assert not list((root / "data/containers").iterdir())
        assert not leftovers(root, PARENT)


async def test_a_daemon_killed_in_the_middle_of_a_start_leaves_one_that_can_be_started(root: Path) -> None:
    async with engine_in(root, PARENT) as engine:
        await add_image(engine.images)
        config = ContainerConfig(image="busybox", command=("sleep", "100"), network_mode="none")
        id = await engine.create(config, "web")
    with _sleeping() as shim:
        record = {"boot": files.boot_id(), "shim": shim.pid, "shim_start": files.start_time(shim.pid)}
        (root / "data/containers" / id / "run.json").write_text(json.dumps(record))
        cgroups.detect(PARENT).create(id, Limits())
        async with engine_in(root, PARENT) as engine:
            ended = engine.inspect("web").exit
            assert ended is not None and "before the program ran" in ended.error
            assert shim.wait(10) == -signal.SIGKILL
            await engine.start("web")
            assert engine.inspect("web").phase is Phase.RUNNING


async def test_a_pid_that_now_is_another_process_is_not_adopted(root: Path) -> None:
    async with engine_in(root, PARENT) as engine:
        await add_image(engine.images)
        id = await engine.create(ContainerConfig(image="busybox", command=("true",), network_mode="none"))
    me = os.getpid()
    record = {"boot": files.boot_id(), "shim": me, "shim_start": 1, "pid": me, "pid_start": 1, "started": 1}
    (root / "data/containers" / id / "run.json").write_text(json.dumps(record))
    async with engine_in(root, PARENT) as engine:
        assert (await engine.wait(id)).error
        assert engine.inspect(id).phase is Phase.DEAD


async def test_nothing_of_ours_keeps_the_daemons_output_open(root: Path) -> None:
    with killed_daemon(root, "sleep 100") as pid:
        mine = Path(f"/proc/{pid}/fd/1").readlink().name
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert {str(Path(f"/proc/{parent}/fd/{n}").readlink()) for n in range(3)} == {"/dev/null"}
        assert mine.startswith("pipe:")
