"""Takes one task from ASSIGNED to its end.

`step` decides from the task and what is observed of its container, and nothing else, so a task that was under way when
swarmd restarted needs no special path.  **Invariant:** a status only ever moves as task_states allows.

**Invariant:** that a task is being started is on disk before its program is, and how it ended before a manager hears
of it: so no power cut and no missing container makes a task's program run twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum, auto
from typing import Any

from swarmd.agent.controller import Controller, Observed, Refused, Stage, Temporary
from swarmd.proto.backoff import Backoff
from swarmd.proto.clock import Clock, timestamp
from swarmd.proto.objects_pb2 import Task, TaskState, TaskStatus
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
    may_move,
)

log = logging.getLogger(__name__)


class Action(Enum):
    PREPARE = auto()
    START = auto()
    WAIT = auto()
    SHUTDOWN = auto()


Report = Callable[[str, TaskStatus], None]
Keep = Callable[[str, TaskStatus], Awaitable[None]]


def step(task: Task, observed: Observed) -> tuple[TaskStatus | None, Action | None]:
    """The next status, or the next thing to do; neither: nothing until the task is changed."""
    state = task.status.state
    if state > RUNNING:
        return None, None
    if task.desired_state >= SHUTDOWN:
        return _stop(observed)
    if state <= ASSIGNED:
        return _status(ACCEPTED, observed, "accepted"), None
    if state == ACCEPTED:
        return _status(PREPARING, observed, "preparing"), None
    if state == PREPARING:
        if observed.stage is Stage.ABSENT:
            return None, Action.PREPARE
        return _status(READY, observed, "prepared"), None
    if state == READY:
        wanted = task.desired_state >= RUNNING
        return (_status(STARTING, observed, "starting") if wanted else None), None
    return _run(state, observed)


def _stop(observed: Observed) -> tuple[TaskStatus | None, Action | None]:
    if observed.stage in (Stage.STARTED, Stage.HEALTHY, Stage.UNHEALTHY):
        return None, Action.SHUTDOWN
    return _status(SHUTDOWN, observed, "shut down"), None


def _run(state: int, observed: Observed) -> tuple[TaskStatus | None, Action | None]:
    """STARTING or RUNNING, and wanted."""
    match observed.stage:
        case Stage.ABSENT:
            return _status(FAILED, observed, "failed", "the task's container is gone"), None
        case Stage.PREPARED:
            return None, Action.START
        case Stage.UNHEALTHY:
            return None, Action.SHUTDOWN
        case Stage.HEALTHY if state == STARTING:
            return _status(RUNNING, observed, "running"), None
        case Stage.ENDED if observed.exit_code or observed.error or observed.unhealthy:
            error = observed.error or f"the program ended with exit code {observed.exit_code}"
            return _status(FAILED, observed, "failed", error), None
        case Stage.ENDED:
            return _status(COMPLETE, observed, "complete"), None
        case _:
            return None, Action.WAIT


def _status(state: TaskState.ValueType, observed: Observed, message: str, error: str = "") -> TaskStatus:
    status = TaskStatus(state=state, message=message, err=error, unhealthy=observed.unhealthy)
    if observed.container_id:
        status.container.container_id = observed.container_id
        status.container.pid = observed.pid
        status.container.exit_code = observed.exit_code
    return status


class TaskRunner:
    def __init__(self, task: Task, controller: Controller, keep: Keep, report: Report, clock: Clock) -> None:
        """keep: puts a status on disk; report: tells managers, some time later."""
        self._task = Task()
        self._task.CopyFrom(task)
        self._controller = controller
        self._keep = keep
        self._report = report
        self._clock = clock
        self._changed = asyncio.Event()

    def update(self, task: Task) -> None:
        """Take over what managers want; what was observed here is newer than their copy of it."""
        if task.desired_state > self._task.desired_state:
            self._task.desired_state = task.desired_state
            self._changed.set()

    @property
    def ended(self) -> bool:
        return self._task.status.state > RUNNING

    async def run(self) -> None:
        """Until the task has ended."""
        backoff = Backoff(base=0.1, cap=8.0)
        while self._task.status.state <= RUNNING:
            self._changed.clear()
            observed = self._controller.observe()
            status, action = step(self._task, observed)
            if status is not None:
                await self._move(status, backoff)
            elif action is None:
                await self._changed.wait()
            else:
                await self._try(action, observed, backoff)

    async def _try(self, action: Action, observed: Observed, backoff: Backoff) -> None:
        try:
            await self._perform(action, observed)
            backoff.reset()
        except Temporary:
            await self._unless_changed(self._clock.sleep(backoff.next()))
        except Refused as error:
            if self._task.desired_state < RUNNING:
                # It is not due yet. Said now, it would be replaced now, and that one refused as fast.
                await self._unless_changed(self._clock.sleep(backoff.next()))
                return
            await self._move(_status(REJECTED, observed, "rejected", str(error)), backoff)
        except Exception as error:
            if action in (Action.SHUTDOWN, Action.WAIT):
                # The program may still run: a task must not be said to have ended before it has.
                log.exception("task %s: %s goes on", self._task.id, action.name.lower())
                await self._clock.sleep(backoff.next())
                return
            await self._move(_status(FAILED, observed, "failed", str(error) or type(error).__name__), backoff)

    async def _perform(self, action: Action, observed: Observed) -> None:
        match action:
            case Action.PREPARE:
                await self._unless_unwanted(self._controller.prepare())
            case Action.START:
                await self._controller.start()
            case Action.SHUTDOWN:
                await self._shutdown()
            case Action.WAIT:
                await self._unless_changed(self._controller.wait(observed))

    async def _shutdown(self) -> None:
        try:
            await self._controller.shutdown()
        except Exception:
            log.exception("task %s: killed, since it could not be stopped", self._task.id)
            await self._controller.terminate()

    async def _unless_changed(self, waiting: Coroutine[Any, Any, None]) -> None:
        async with asyncio.TaskGroup() as group:
            both = [group.create_task(waiting), group.create_task(self._wait_for_change())]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()

    async def _unless_unwanted(self, work: Coroutine[Any, Any, None]) -> None:
        """To its end, or, as getting an image may take long, until managers want the task to end."""
        both = [asyncio.ensure_future(work), asyncio.ensure_future(self._wait_until_unwanted())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if both[0].done():
                both[0].result()
        finally:
            for one in both:
                one.cancel()
            await asyncio.wait(both)

    async def _wait_until_unwanted(self) -> None:
        while self._task.desired_state < SHUTDOWN:
            self._changed.clear()
            await self._changed.wait()

    async def _wait_for_change(self) -> None:
        await self._changed.wait()

    async def _move(self, status: TaskStatus, backoff: Backoff) -> None:
        if not may_move(self._task.status.state, status.state):
            return
        status.timestamp.CopyFrom(timestamp(self._clock.now()))
        had = self._task.status.container.container_id
        if had and not status.container.container_id:
            status.container.container_id = had  # so that whoever asks for its log hears that it is gone
        try:
            if status.state == STARTING or status.state > RUNNING:
                await self._keep(self._task.id, status)
        except OSError as error:
            log.error("task %s: its state can't be kept: %s", self._task.id, error)
            if status.state == STARTING:
                await self._unless_changed(self._clock.sleep(backoff.next()))
                return
        self._task.status.CopyFrom(status)
        self._report(self._task.id, status)
