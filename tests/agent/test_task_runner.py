import asyncio
from collections import defaultdict

import pytest

from swarmd.agent.controller import FakeController, Observed, Refused, Stage, Temporary
from swarmd.agent.task_runner import TaskRunner, step
from swarmd.proto.clock import Clock, SystemClock
from swarmd.proto.objects_pb2 import Task, TaskState, TaskStatus
from swarmd.proto.task_states import (
    ACCEPTED,
    ASSIGNED,
    COMPLETE,
    FAILED,
    ORDER,
    PREPARING,
    READY,
    REJECTED,
    RUNNING,
    SHUTDOWN,
    STARTING,
    may_move,
)
from tests.simulation import virtual

UP = [ACCEPTED, PREPARING, READY, STARTING, RUNNING]


def a_task(desired: TaskState.ValueType = RUNNING, state: TaskState.ValueType = ASSIGNED) -> Task:
    return Task(id="t", desired_state=desired, status=TaskStatus(state=state))


class Run:
    """A runner under way, and what it has reported."""

    def __init__(self, controller: FakeController, task: Task | None = None, clock: Clock | None = None) -> None:
        self.reported: list[TaskStatus] = []
        self.kept: list[int] = []
        self.full_disk = 0  # how many more times a status can't be kept
        self._controller = controller
        self._reached: dict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self.runner = TaskRunner(task or a_task(), controller, self._keep, self._note, clock or SystemClock())

    async def _keep(self, _: str, status: TaskStatus) -> None:
        if self.full_disk:
            self.full_disk -= 1
            raise OSError("no space left on device")
        assert status.state != STARTING or "start" not in self._controller.verbs, "kept after it was started"
        assert status.state not in self.states, "kept after managers were told"
        self.kept.append(status.state)

    def _note(self, _: str, status: TaskStatus) -> None:
        self.reported.append(status)
        self._reached[status.state].set()

    @property
    def states(self) -> list[int]:
        return [status.state for status in self.reported]

    async def reach(self, state: int) -> None:
        try:
            async with asyncio.timeout(5):
                await self._reached[state].wait()
        except TimeoutError:
            pytest.fail(f"state {state} not reached; last seen: {self.states}")


def test_every_step_is_a_legal_move() -> None:
    for state in ORDER[2:]:
        for desired in (READY, RUNNING, SHUTDOWN):
            for stage in Stage:
                status, action = step(a_task(desired, state), Observed(stage))
                assert status is None or (action is None and may_move(state, status.state))


async def test_comes_up_and_completes() -> None:
    controller = FakeController()
    run = Run(controller)
    async with asyncio.TaskGroup() as group:
        group.create_task(run.runner.run())
        await run.reach(RUNNING)
        await controller.become(Observed(Stage.ENDED, "c1"))
    assert run.states == [*UP, COMPLETE]


async def test_runs_only_once_healthy_and_an_unhealthy_one_is_stopped() -> None:
    controller = FakeController(healthy_at_once=False)
    run = Run(controller)
    async with asyncio.TaskGroup() as group:
        group.create_task(run.runner.run())
        await run.reach(STARTING)
        assert RUNNING not in run.states
        await controller.wait(Observed(Stage.PREPARED, "c1"))
        await controller.become(Observed(Stage.HEALTHY, "c1"))
        await run.reach(RUNNING)
        await controller.become(Observed(Stage.UNHEALTHY, "c1", error="probe: exit code 1", unhealthy=True))
    last = run.reported[-1]
    assert (last.state, last.unhealthy, last.err) == (FAILED, True, "probe: exit code 1")


async def test_ready_waits_to_be_wanted_and_stops_when_told() -> None:
    controller = FakeController()
    run = Run(controller, a_task(READY))
    async with asyncio.TaskGroup() as group:
        group.create_task(run.runner.run())
        await run.reach(READY)
        run.runner.update(a_task(RUNNING))
        await run.reach(RUNNING)
        run.runner.update(a_task(SHUTDOWN))
    assert run.states == [*UP, SHUTDOWN]
    assert controller.verbs == ["prepare", "start", "shutdown"]


async def test_temporary_faults_are_tried_again_and_refusals_are_not() -> None:
    controller = FakeController(faults={"prepare": [Temporary("busy"), Refused("no such image: x")]})
    run = Run(controller)
    async with asyncio.timeout(5):
        await run.runner.run()
    assert controller.verbs == ["prepare", "prepare"]
    assert (run.reported[-1].state, run.reported[-1].err) == (REJECTED, "no such image: x")


async def test_a_running_container_is_adopted_without_a_start() -> None:
    controller = FakeController()
    await controller.become(Observed(Stage.ENDED, "c1", exit_code=3))
    run = Run(controller, a_task(state=RUNNING))
    await run.runner.run()
    assert controller.verbs == []
    assert (run.states, run.reported[-1].container.exit_code) == ([FAILED], 3)


async def test_one_that_can_not_be_stopped_is_killed() -> None:
    controller = FakeController(faults={"shutdown": [RuntimeError("stuck")], "terminate": [RuntimeError("stuck")]})
    await controller.become(Observed(Stage.HEALTHY, "c1"))
    run = Run(controller, a_task(SHUTDOWN, RUNNING))
    async with asyncio.timeout(5):
        await run.runner.run()
    assert controller.verbs == ["shutdown", "terminate", "shutdown"]
    assert run.states == [SHUTDOWN]


def test_a_refusal_of_a_task_that_is_not_due_is_kept_until_it_is() -> None:
    async def scene() -> None:
        controller = FakeController(faults={"prepare": [Refused("image x is not here") for _ in range(1000)]})
        run = Run(controller, a_task(READY), virtual.VirtualClock())
        async with asyncio.TaskGroup() as group:
            group.create_task(run.runner.run())
            await asyncio.sleep(60)
            assert run.states == [ACCEPTED, PREPARING], "not said before it is due"
            assert 8 <= len(controller.verbs) <= 25, "tried again, later each time"
            due = asyncio.get_running_loop().time()
            run.runner.update(a_task(RUNNING))
            await run.reach(REJECTED)
            assert asyncio.get_running_loop().time() == due, "said at once"
        assert run.reported[-1].err == "image x is not here"

    virtual.run(scene())


def test_what_was_refused_before_it_was_due_may_be_there_by_then() -> None:
    async def scene() -> None:
        controller = FakeController(faults={"prepare": [Refused("image x is not here") for _ in range(3)]})
        run = Run(controller, a_task(READY), virtual.VirtualClock())
        async with asyncio.TaskGroup() as group:
            group.create_task(run.runner.run())
            await run.reach(READY)
            assert controller.verbs == ["prepare"] * 4
            run.runner.update(a_task(RUNNING))
            await run.reach(RUNNING)
            run.runner.update(a_task(SHUTDOWN))

    virtual.run(scene())


def test_one_that_is_refused_and_no_longer_wanted_ends_at_once() -> None:
    async def scene() -> None:
        controller = FakeController(faults={"prepare": [Refused("image x is not here") for _ in range(1000)]})
        run = Run(controller, a_task(READY), virtual.VirtualClock())
        async with asyncio.TaskGroup() as group:
            group.create_task(run.runner.run())
            await asyncio.sleep(60)
            tried = len(controller.verbs)
            run.runner.update(a_task(SHUTDOWN))
            await run.reach(SHUTDOWN)
        assert len(controller.verbs) == tried

    virtual.run(scene())


async def test_start_and_end_are_on_disk_before_they_are_acted_on() -> None:
    controller = FakeController()
    run = Run(controller)
    async with asyncio.TaskGroup() as group:
        group.create_task(run.runner.run())
        await run.reach(RUNNING)
        await controller.become(Observed(Stage.ENDED, "c1"))
    assert run.kept == [STARTING, COMPLETE]


def test_nothing_starts_before_that_is_on_disk_and_an_end_is_told_in_any_case() -> None:
    async def scene() -> None:
        controller = FakeController()
        run = Run(controller, clock=virtual.VirtualClock())
        run.full_disk = 4
        async with asyncio.TaskGroup() as group:
            group.create_task(run.runner.run())
            await run.reach(READY)
            await asyncio.sleep(0.1)
            assert (run.full_disk > 0, controller.verbs) == (True, ["prepare"])
            await run.reach(RUNNING)
            run.full_disk = 1
            await controller.become(Observed(Stage.ENDED, "c1"))
        assert (run.states, run.kept) == ([*UP, COMPLETE], [STARTING])

    virtual.run(scene())


async def test_a_container_that_vanished_is_still_named() -> None:
    controller = FakeController()
    run = Run(controller)
    async with asyncio.TaskGroup() as group:
        group.create_task(run.runner.run())
        await run.reach(RUNNING)
        await controller.become(Observed())
    last = run.reported[-1]
    assert (last.state, last.err, last.container.container_id) == (FAILED, "the task's container is gone", "c1")


class SlowController(FakeController):
    """Its image never comes."""

    async def prepare(self) -> None:
        self._call("prepare")
        await asyncio.Event().wait()


async def test_a_task_that_is_not_wanted_any_more_waits_for_no_image() -> None:
    controller = SlowController()
    run = Run(controller, a_task(READY))
    async with asyncio.TaskGroup() as group:
        group.create_task(run.runner.run())
        await run.reach(PREPARING)
        run.runner.update(a_task(RUNNING))
        run.runner.update(a_task(SHUTDOWN))
        await run.reach(SHUTDOWN)
    assert controller.verbs == ["prepare"]
