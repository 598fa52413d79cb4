"""Tasks as real containers: when one counts as running, what is said of one that ends, and that a restart adopts."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swarmd.agent.executor import KEPT, Executor
from swarmd.agent.task_runner import TaskRunner
from swarmd.proto.clock import SystemClock
from swarmd.proto.objects_pb2 import ContainerSpec, HealthConfig, NetworkAttachment, Task, TaskSpec, TaskStatus
from swarmd.proto.task_states import (
    ACCEPTED,
    ASSIGNED,
    COMPLETE,
    FAILED,
    PREPARING,
    READY,
    REJECTED,
    RUNNING,
    SHUTDOWN,
    STARTING,
)
from swarmd.runtime.errors import NotFound
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.model import Phase
from swarmd.runtime.registry import Credentials
from tests.host.engine_host import add_image, engine_in, leftovers, remove_parents, until
from tests.run import RUN

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
PARENT = f"st-executor-{RUN}"
MILLISECOND = 1_000_000
GRACE = 200 * MILLISECOND
UP = [ACCEPTED, PREPARING, READY, STARTING, RUNNING]


class Node:
    """An executor and the runners of its tasks; its containers outlive it."""

    def __init__(self, executor: Executor, group: asyncio.TaskGroup) -> None:
        self.executor = executor
        self._group = group
        self.running: list[asyncio.Task[None]] = []
        self.reported: dict[str, list[TaskStatus]] = {}

    def run(self, task: Task) -> TaskRunner:
        self.reported[task.id] = []
        runner = TaskRunner(task, self.executor.controller(task), self._keep, self._note, SystemClock())
        self.running.append(self._group.create_task(runner.run()))
        return runner

    async def _keep(self, task_id: str, status: TaskStatus) -> None:
        """Its disk is not looked at here."""

    def _note(self, task_id: str, status: TaskStatus) -> None:
        self.reported[task_id].append(status)

    def states(self, task_id: str) -> Sequence[int]:
        return [status.state for status in self.reported[task_id]]

    async def reach(self, task_id: str, state: int) -> TaskStatus:
        try:
            await until("the state", lambda: state in self.states(task_id))
        except AssertionError:
            pytest.fail(f"task {task_id} did not come to state {state}; last seen: {self.reported[task_id]}")
        return self.reported[task_id][self.states(task_id).index(state)]


@pytest.fixture
async def root(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path
    async with engine_in(tmp_path, PARENT) as engine:
        for state in engine.list():
            await engine.remove(state.id, force=True)
    await until("nothing is left", lambda: not leftovers(tmp_path, PARENT))
    remove_parents(PARENT)
    shutil.rmtree(tmp_path)


@dataclass(frozen=True)
class LocalImages:
    store: ImageStore

    async def get(self, ref: str, *, credentials: Credentials | None = None) -> Image:
        return self.store.get(ref)


@asynccontextmanager
async def node_in(root: Path) -> AsyncIterator[Node]:
    """Open it again on the same root to restart swarmd."""
    async with engine_in(root, PARENT) as engine:
        if not engine.images.list():
            await add_image(engine.images)
        executor = Executor(engine, "host1", LocalImages(engine.images))
        async with asyncio.TaskGroup() as group:
            node = Node(executor, group)
            node.running.append(group.create_task(executor.run()))
            yield node
            for each in node.running:
                each.cancel()


def a_task(script: str, task_id: str = "t1", slot: int = 1, **container: Any) -> Task:
    plain: dict[str, Any] = {"image": "busybox", "command": ["sh", "-c", script], "stop_grace_period": GRACE}
    spec = ContainerSpec(**(plain | container))
    return Task(
        id=task_id,
        service_id="s1",
        service_name="web",
        slot=slot,
        desired_state=RUNNING,
        status=TaskStatus(state=ASSIGNED),
        spec=TaskSpec(container=spec),
    )


def probe(line: str, retries: int = 2) -> HealthConfig:
    return HealthConfig(test=["CMD-SHELL", line], interval=50 * MILLISECOND, retries=retries)


async def test_a_task_with_a_health_check_runs_once_it_is_healthy(root: Path) -> None:
    async with node_in(root) as node:
        node.run(a_task("sleep 100", healthcheck=probe("test -e /ok", retries=1000)))
        name = "web.1.t1"
        await node.reach("t1", STARTING)
        await until("a failed probe", lambda: node.executor.engine.inspect(name).health_log)
        assert RUNNING not in node.states("t1")
        await node.executor.engine.exec(name, ["touch", "/ok"])
        status = await node.reach("t1", RUNNING)
        assert status.container.pid == node.executor.engine.inspect(name).pid
        assert node.states("t1") == UP


async def test_a_task_that_turns_unhealthy_is_stopped_and_says_what_the_probe_said(root: Path) -> None:
    script = "touch /ok; sleep 100"
    async with node_in(root) as node:
        node.run(a_task(script, healthcheck=probe("test -e /ok || { echo the file; echo is gone; exit 9; }")))
        await node.reach("t1", RUNNING)
        await node.executor.engine.exec("web.1.t1", ["rm", "/ok"])
        status = await node.reach("t1", FAILED)
        assert (status.unhealthy, status.err) == (True, "the health check failed: exit code 9, the file is gone")
        assert node.executor.engine.inspect("web.1.t1").phase is Phase.EXITED


async def test_a_task_that_never_turns_healthy_fails_without_having_run(root: Path) -> None:
    async with node_in(root) as node:
        node.run(a_task("sleep 100", healthcheck=probe("echo no; exit 1")))
        status = await node.reach("t1", FAILED)
        assert (status.unhealthy, status.err) == (True, "the health check failed: exit code 1, no")
        assert node.states("t1") == [*UP[:-1], FAILED]


async def test_a_killed_program_is_a_failed_task(root: Path) -> None:
    async with node_in(root) as node:
        node.run(a_task("sleep 100"))
        status = await node.reach("t1", RUNNING)
        os.kill(status.container.pid, signal.SIGKILL)
        status = await node.reach("t1", FAILED)
        assert (status.container.exit_code, status.unhealthy) == (137, False)
        assert status.err == "the program ended with exit code 137"


async def test_a_program_that_ends_well_is_complete(root: Path) -> None:
    async with node_in(root) as node:
        node.run(a_task("exit 0"))
        status = await node.reach("t1", COMPLETE)
        assert (status.container.exit_code, status.err) == (0, "")


async def test_a_task_is_shut_down_when_wanted_and_lets_its_program_finish(root: Path) -> None:
    script = "trap 'exit 0' TERM; touch /ok; while :; do sleep 0.02; done"
    task = a_task(script, stop_grace_period=20_000 * MILLISECOND, healthcheck=probe("test -e /ok", retries=1000))
    async with node_in(root) as node:
        runner = node.run(task)
        await node.reach("t1", RUNNING)
        task.desired_state = SHUTDOWN
        runner.update(task)
        status = await node.reach("t1", SHUTDOWN)
        assert status.container.exit_code == 0


@pytest.mark.parametrize(
    ("container", "sentence"),
    [
        ({"image": "nosuch"}, "No such image: nosuch: pull, load, import or build it first"),
        ({"capability_add": ["FLY"]}, "capability CAP_FLY"),
        ({"env": ["A={{.Nothing}}"]}, "unknown template {{.Nothing}}"),
    ],
)
async def test_a_task_that_can_never_run_here_is_rejected_with_a_sentence(
    root: Path, container: dict[str, Any], sentence: str
) -> None:
    async with node_in(root) as node:
        node.run(a_task("true", **container))
        status = await node.reach("t1", REJECTED)
        assert sentence in status.err
        with pytest.raises(NotFound):
            node.executor.engine.inspect("web.1.t1")


async def test_a_program_that_is_not_there_fails_the_task_with_the_step(root: Path) -> None:
    async with node_in(root) as node:
        node.run(a_task("", command=["/nosuch"]))
        status = await node.reach("t1", FAILED)
        assert "program: /nosuch: no such file or directory in the image" in status.err
        assert status.container.exit_code == 127


async def test_a_task_waits_for_its_network(root: Path) -> None:
    task = a_task("sleep 100")
    task.networks.append(NetworkAttachment(network_id="net1", addresses=["10.0.1.9/24"]))
    async with node_in(root) as node:
        node.run(task)
        await node.reach("t1", STARTING)
        await until("a container that is not started", lambda: node.executor.containers())
        assert node.executor.containers()["t1"].phase is Phase.CREATED
        assert node.states("t1") == UP[:-1]


async def test_a_restarted_node_adopts_its_tasks(root: Path) -> None:
    task = a_task("sleep 100", healthcheck=probe("true"))
    async with node_in(root) as node:
        node.run(task)
        before = await node.reach("t1", RUNNING)
    async with node_in(root) as node:
        node.run(task)
        after = await node.reach("t1", RUNNING)
        assert after.container == before.container
        assert set(node.executor.containers()) == {"t1"}
        os.kill(after.container.pid, signal.SIGKILL)
        assert (await node.reach("t1", FAILED)).container.exit_code == 137


async def test_an_end_while_the_node_was_away_is_reported_by_the_next(root: Path) -> None:
    task = a_task("sleep 100")
    async with node_in(root) as node:
        node.run(task)
        container = (await node.reach("t1", RUNNING)).container
    os.kill(container.pid, signal.SIGKILL)
    record = root / "data/containers" / container.container_id / "exit.json"
    await until("the record of its end", record.exists)
    async with node_in(root) as node:
        node.run(task)
        assert (await node.reach("t1", FAILED)).container.exit_code == 137


async def test_the_newest_ended_containers_of_a_slot_are_kept_for_their_logs(root: Path) -> None:
    async with node_in(root) as node:
        for n in range(KEPT + 2):
            node.run(a_task("true", f"old{n}"))
            await node.reach(f"old{n}", COMPLETE)
        node.run(a_task("true", "other", slot=2))
        await node.reach("other", COMPLETE)
        unwanted = a_task("true", "prepared")
        unwanted.desired_state = READY
        node.run(unwanted)
        await node.reach("prepared", READY)
        for task_id in ("wanted", "unwanted"):
            node.run(a_task("sleep 100", task_id))
            await node.reach(task_id, RUNNING)
        await node.executor.prune({"wanted", "old0"})
        kept = {f"old{n}" for n in range(KEPT + 2)} - {"old1"}
        assert set(node.executor.containers()) == kept | {"other", "wanted", "unwanted"}
