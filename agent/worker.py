"""Runs the tasks that managers assign to this node, and keeps at it without them.

Assignments are on disk before they are acted on.  **Invariant:** a container of a task that is not assigned here is
stopped once a manager has said so (a full list without it), and never because no manager answers.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from swarmd.agent.assignments import Assignments
from swarmd.agent.executor import Executor
from swarmd.agent.network_keeper import NetworkKeeper
from swarmd.agent.network_state import NetworkState
from swarmd.agent.reporter import Reporter
from swarmd.agent.task_runner import TaskRunner
from swarmd.proto.backoff import Backoff
from swarmd.proto.clock import Clock
from swarmd.proto.dispatcher_pb2 import Assignments as Told
from swarmd.proto.objects_pb2 import Task, TaskStatus
from swarmd.proto.task_states import AGENT_WRITES, SHUTDOWN
from swarmd.runtime.model import ContainerState
from swarmd.runtime.network.values import OverlayState

log = logging.getLogger(__name__)
PRUNE = 1.0  # s, after a task has gone


class Worker:
    def __init__(self, executor: Executor, state_dir: Path, node_id: str, reporter: Reporter, clock: Clock) -> None:
        self._executor = executor
        self._assignments = Assignments(state_dir / "assignments")
        self._networks = NetworkKeeper(
            executor.engine.networks, NetworkState(state_dir / "networks.pb", node_id), clock
        )
        self._reporter = reporter
        self._clock = clock
        self._tasks: dict[str, Task] = {}
        self._runners: dict[str, TaskRunner] = {}
        self._told: asyncio.Queue[tuple[Told, Callable[[int], None]]] = asyncio.Queue()
        self._gone = asyncio.Event()

    def tell(self, told: Told, applied: Callable[[int], None]) -> None:
        """What a manager says; `applied` is called with its revision once it is acted on."""
        self._told.put_nowait((told, applied))

    async def run(self) -> None:
        """Until cancelled: containers go on."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._executor.run())
            await self._networks.apply()
            for task in self._assignments.load():
                if task.status.state in AGENT_WRITES:
                    self._report(task.id, task.status)  # whether a manager has heard of it is not on disk
                self._start(task, group)
            group.create_task(self._networks.run())
            group.create_task(self._follow(group))
            group.create_task(self._prune())

    async def stop_all(self) -> None:
        """This node leaves the cluster: nothing of its tasks stays."""
        await self._executor.stop(list(self._executor.containers().values()))
        await self._executor.engine.networks.apply(OverlayState())

    # ------------------------------------------------------------ what managers say

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        while True:
            told, applied = await self._told.get()
            if any(change.WhichOneof("of") != "task" for change in told.changes) or told.removals or told.full:
                await self._networks.update(told)
            wanted = [change.task for change in told.changes if change.WhichOneof("of") == "task"]
            await asyncio.to_thread(self._save, wanted)
            for task in wanted:
                self._start(task, group)
            gone = {removal.task_id for removal in told.removals if removal.WhichOneof("of") == "task_id"}
            if told.full:
                gone |= (set(self._tasks) | set(self._executor.containers())) - {task.id for task in wanted}
            for task_id in gone:
                self._end(task_id, group)
            self._networks.once_applied(partial(applied, told.revision))

    def _save(self, tasks: list[Task]) -> None:
        for task in tasks:
            self._assignments.save(task)

    # ------------------------------------------------------------ tasks

    def _start(self, task: Task, group: asyncio.TaskGroup) -> None:
        self._tasks[task.id] = task
        if task.id in self._runners:
            self._runners[task.id].update(task)
            return
        runner = TaskRunner(task, self._executor.controller(task), self._keep, self._report, self._clock)
        self._runners[task.id] = runner
        group.create_task(self._run(task.id, runner))

    async def _run(self, task_id: str, runner: TaskRunner) -> None:
        await runner.run()
        if task_id not in self._tasks:
            self._runners.pop(task_id, None)
            self._gone.set()

    async def _keep(self, task_id: str, status: TaskStatus) -> None:
        if task_id in self._tasks:
            await asyncio.to_thread(self._assignments.save_status, task_id, status)

    def _report(self, task_id: str, status: TaskStatus) -> None:
        self._reporter.report(task_id, status)

    def _end(self, task_id: str, group: asyncio.TaskGroup) -> None:
        """Managers do not want it here, or know that it has ended."""
        task = self._tasks.pop(task_id, None)
        self._assignments.drop(task_id)
        runner = self._runners.get(task_id)
        if runner is not None and task is not None:
            stopped = Task()
            stopped.CopyFrom(task)
            stopped.desired_state = SHUTDOWN
            runner.update(stopped)
        elif (state := self._executor.containers().get(task_id)) is not None and state.exit is None:
            group.create_task(self._stop(state))
        self._gone.set()

    async def _stop(self, unwanted: ContainerState) -> None:
        """Until it is done: nobody will ask for it again."""
        backoff = Backoff(base=0.5, cap=30.0)
        while True:
            try:
                return await self._executor.stop([unwanted])
            except Exception:
                log.exception("container %s, which no manager wants here, could not be stopped", unwanted.name)
                await self._clock.sleep(backoff.next())

    async def _prune(self) -> None:
        while True:
            await self._gone.wait()
            await self._clock.sleep(PRUNE)
            self._gone.clear()
            ended = [id for id, runner in self._runners.items() if runner.ended and id not in self._tasks]
            for task_id in ended:
                del self._runners[task_id]
            await self._executor.prune({*self._tasks, *self._runners})
