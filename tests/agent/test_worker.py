"""A worker with containers that are fakes: what managers say becomes what is done, in which order, and what is kept."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from swarmd.agent.assignments import Assignments
from swarmd.agent.controller import FakeController, Observed, Stage
from swarmd.agent.executor import Executor
from swarmd.agent.reporter import Reporter
from swarmd.agent.task_config import TASK_ID
from swarmd.agent.worker import Worker
from swarmd.proto import objects_pb2 as objects
from swarmd.proto.clock import SystemClock
from swarmd.proto.dispatcher_pb2 import Assignments as Told
from swarmd.proto.dispatcher_pb2 import Change, NodeEndpoint, Removal
from swarmd.proto.task_states import ASSIGNED, READY, RUNNING, SHUTDOWN
from swarmd.runtime.errors import Exhausted
from swarmd.runtime.model import ContainerConfig, ContainerState, Phase
from swarmd.runtime.network.values import OverlayState
from tests.host.engine_host import until


class HastyClock(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 100)


class Networks:
    """Keeps what was asked for; `faults` are raised first."""

    def __init__(self, journal: list[str]) -> None:
        self.faults: list[Exception] = []
        self.on_fault: Callable[[], None] = lambda: None
        self.applied: list[OverlayState] = []
        self._journal = journal

    async def apply(self, desired: OverlayState) -> None:
        if self.faults:
            self.on_fault()
            raise self.faults.pop()
        self.applied.append(desired)
        self._journal.extend(f"network {overlay.name}" for overlay in desired.overlays)


class Machine:
    """Stands in for the Executor; outlives its workers as containers do. `journal`: what was done, in order."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.networks = Networks(self.journal)
        self.engine = SimpleNamespace(networks=self.networks)
        self.controllers: dict[str, FakeController] = {}
        self.strays: dict[str, ContainerState] = {}
        self.stopped: list[str] = []
        self.faults: list[Exception] = []  # of stops
        self.pruned: list[set[str]] = []

    async def run(self) -> None:
        await asyncio.Event().wait()

    def controller(self, task: objects.Task) -> FakeController:
        return self.controllers.setdefault(task.id, FakeController(verbs=self.journal))

    def containers(self) -> dict[str, ContainerState]:
        running = {id for id, fake in self.controllers.items() if fake.observe().stage is Stage.HEALTHY}
        return {id: container(id) for id in running} | self.strays

    async def stop(self, states: Sequence[ContainerState]) -> None:
        if self.faults:
            raise ExceptionGroup("of a scope", [self.faults.pop()])
        self.stopped.extend(state.config.labels[TASK_ID] for state in states)

    async def prune(self, wanted: Collection[str]) -> None:
        self.pruned.append(set(wanted))


class Node:
    """A worker under way, and what a manager hears of it."""

    def __init__(self, worker: Worker, reporter: Reporter) -> None:
        self._worker = worker
        self._reporter = reporter
        self.states: dict[str, int] = {}
        self.applied: list[int] = []

    async def told(self, *changes: Change, gone: Sequence[Removal] = (), full: bool = False) -> None:
        """Return once it is acted on."""
        revision = len(self.applied) + 1
        told = Told(full=full, revision=revision, changes=changes, removals=gone)
        self._worker.tell(told, self.applied.append)
        await until("word that it is acted on", lambda: revision in self.applied)

    async def hear(self) -> None:
        while True:
            batch = await self._reporter.next()
            self.states |= {update.task_id: update.status.state for update in batch.updates}
            self._reporter.acknowledge(batch.batch)

    async def reach(self, task_id: str, state: int) -> None:
        try:
            await until("the state", lambda: self.states.get(task_id) == state)
        except AssertionError:
            pytest.fail(f"task {task_id} did not come to state {state}; last seen: {self.states}")


@asynccontextmanager
async def node(machine: Machine, directory: Path) -> AsyncIterator[Node]:
    reporter = Reporter()
    worker = Worker(cast("Executor", machine), directory, "n1", reporter, HastyClock())
    made = Node(worker, reporter)
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(worker.run()), group.create_task(made.hear())]
        yield made
        for each in both:
            each.cancel()


def container(task_id: str) -> ContainerState:
    config = ContainerConfig(image="i", labels={TASK_ID: task_id})
    return ContainerState(id=f"c-{task_id}", name=task_id, config=config, image_id="i", phase=Phase.RUNNING, created=1)


def task(task_id: str, desired: objects.TaskState.ValueType = RUNNING) -> Change:
    status = objects.TaskStatus(state=ASSIGNED)
    return Change(task=objects.Task(id=task_id, desired_state=desired, status=status))


def overlay() -> list[Change]:
    """A network, and this node's address on it."""
    network = objects.Network(id="net1", subnet="10.0.1.0/24", vni=4096, spec=objects.NetworkSpec(name="back"))
    here = NodeEndpoint(node_id="n1", network_id="net1", address="10.0.1.2", node_addr="192.0.2.1")
    return [Change(network=network), Change(node_endpoint=here)]


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def test_an_assigned_task_runs_and_is_shut_down_when_wanted(machine: Machine, tmp_path: Path) -> None:
    async with node(machine, tmp_path) as here:
        await here.told(task("a"), full=True)
        await here.reach("a", RUNNING)
        await here.told(task("a", SHUTDOWN))
        await here.reach("a", SHUTDOWN)
    assert machine.journal == ["prepare", "start", "shutdown"]


async def test_a_ready_task_starts_once_it_is_wanted(machine: Machine, tmp_path: Path) -> None:
    async with node(machine, tmp_path) as here:
        await here.told(task("a", READY))
        await here.reach("a", READY)
        assert machine.journal == ["prepare"]
        await here.told(task("a", RUNNING))
        await here.reach("a", RUNNING)


async def test_a_full_list_ends_what_it_does_not_name(machine: Machine, tmp_path: Path) -> None:
    machine.strays["stray"] = container("stray")
    async with node(machine, tmp_path) as here:
        await here.told(task("a"), task("b"))
        await here.reach("a", RUNNING)
        await here.reach("b", RUNNING)
        assert machine.stopped == [], "what a manager has not said yet ends nothing"
        await here.told(task("b"), full=True)
        await here.reach("a", SHUTDOWN)
        await until("the stray's end", lambda: machine.stopped == ["stray"])
        assert machine.controllers["b"].observe().stage is Stage.HEALTHY
        assert [kept.id for kept in Assignments(tmp_path / "assignments").load()] == ["b"]
        await until("what only b needs is kept", lambda: machine.pruned and machine.pruned[-1] == {"b"})


async def test_a_container_that_can_t_be_stopped_at_once_is_tried_again(machine: Machine, tmp_path: Path) -> None:
    machine.strays["stray"] = container("stray")
    machine.faults = [Exhausted("no process is left"), OSError("input/output error")]
    async with node(machine, tmp_path) as here:
        await here.told(task("b"), full=True)
        await until("the stray's end", lambda: machine.stopped == ["stray"])
        await here.reach("b", RUNNING)


async def test_a_removed_task_is_stopped_and_its_container_let_go(machine: Machine, tmp_path: Path) -> None:
    async with node(machine, tmp_path) as here:
        await here.told(task("a"))
        await here.reach("a", RUNNING)
        await here.told(gone=[Removal(task_id="a")])
        await here.reach("a", SHUTDOWN)
        await until("nothing is kept", lambda: machine.pruned and machine.pruned[-1] == set())


async def test_a_worker_that_ends_leaves_tasks_running_and_the_next_adopts_them(
    machine: Machine, tmp_path: Path
) -> None:
    async with node(machine, tmp_path) as here:
        await here.told(task("a"), *overlay(), full=True)
        await here.reach("a", RUNNING)
    before = list(machine.journal)
    async with node(machine, tmp_path) as here:
        await here.reach("a", RUNNING)
        assert "network back" in machine.journal[len(before) :], "from disk: no manager has said anything"
        await here.told(task("a"), *overlay(), full=True)
        assert set(machine.journal[len(before) :]) == {"network back"}, "networks again, and no verb"
        await machine.controllers["a"].become(Observed(Stage.ENDED, "c1", exit_code=1))
        await here.reach("a", objects.TASK_STATE_FAILED)


@pytest.mark.parametrize(("exit_code", "state"), [(0, objects.TASK_STATE_COMPLETE), (1, objects.TASK_STATE_FAILED)])
async def test_a_task_that_ended_stays_so_over_a_restart_also_without_its_container(
    machine: Machine, tmp_path: Path, exit_code: int, state: int
) -> None:
    async with node(machine, tmp_path) as here:
        await here.told(task("a"), full=True)
        await here.reach("a", RUNNING)
        await machine.controllers["a"].become(Observed(Stage.ENDED, "c1", exit_code=exit_code))
        await here.reach("a", state)
        await here.told(task("a"))  # the manager has not heard of its end yet
    await machine.controllers["a"].become(Observed())
    before = list(machine.journal)
    async with node(machine, tmp_path) as here:
        await here.reach("a", state)
        await here.told(task("a"), full=True)
        assert machine.journal == before


async def test_a_task_whose_start_was_cut_off_is_not_started_again(machine: Machine, tmp_path: Path) -> None:
    """Killed while it starts; the program ran, and its container is gone before swarmd is back."""
    controller = machine.controllers["a"] = CutOff(verbs=machine.journal)
    async with node(machine, tmp_path) as here:
        await here.told(task("a"), full=True)
        await until("the start", lambda: "start" in machine.journal)
    await controller.become(Observed())
    async with node(machine, tmp_path) as here:
        await here.reach("a", objects.TASK_STATE_FAILED)
        await here.told(task("a"), full=True)
    assert machine.journal == ["prepare", "start"]


class CutOff(FakeController):
    async def start(self) -> None:
        self._call("start")
        await asyncio.Event().wait()


async def test_networks_are_there_before_tasks(machine: Machine, tmp_path: Path) -> None:
    async with node(machine, tmp_path) as here:
        await here.told(task("a"), *overlay())
        await here.reach("a", RUNNING)
    assert machine.journal.index("network back") < machine.journal.index("prepare")


async def test_networks_that_fail_stop_no_task_and_are_not_said_to_be_applied(machine: Machine, tmp_path: Path) -> None:
    async with node(machine, tmp_path) as here:
        await until("the networks of a node that knows none", lambda: machine.networks.applied == [OverlayState()])
        machine.networks.faults = [Exhausted("no interface is left") for _ in range(3)]
        machine.networks.on_fault = lambda: machine.journal.append(f"failed, applied {here.applied}")
        await here.told(task("a"), *overlay())
        await here.reach("a", RUNNING)
    assert [line for line in machine.journal if "failed" in line] == ["failed, applied []"] * 3
    assert "network back" in machine.journal


async def test_a_node_that_leaves_stops_all_and_clears_its_networks(machine: Machine, tmp_path: Path) -> None:
    machine.strays = {id: container(id) for id in ("a", "b")}
    worker = Worker(cast("Executor", machine), tmp_path, "n1", cast("Any", None), HastyClock())
    await worker.stop_all()
    assert (machine.stopped, machine.networks.applied) == (["a", "b"], [OverlayState()])
