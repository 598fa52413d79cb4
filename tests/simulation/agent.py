"""A simulated host: it runs the tasks it is told to, and loses them when it dies.

Its disk (`_known`) survives a death, as a real agent's does: what ran before is reported as failed, never run again.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from swarmd.manager.store.edit import edited
from swarmd.proto import task_states as states
from swarmd.proto.clock import Clock, timestamp
from swarmd.proto.objects_pb2 import Task, TaskState, TaskStatus


@dataclass(eq=False)
class Container:
    """One task on this host. It is alive from STARTING until it ended."""

    task: Task
    state: TaskState.ValueType = states.ASSIGNED
    stopping: bool = False
    timer: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        return self.state in (states.STARTING, states.RUNNING)


@dataclass(eq=False)
class Agent:
    name: str
    rng: random.Random
    clock: Clock
    started: Callable[["Agent", Task], None]  # told of every start, to check that it is the slot's only one
    failure_rate: float = 0.0  # of tasks that fail in their first minute
    up: bool = True
    revision: int = 0  # of the newest assignments applied
    containers: dict[str, Container] = field(default_factory=dict)
    unacknowledged: dict[str, TaskStatus] = field(default_factory=dict)
    heard: float = 0.0  # when assignments last came

    # ------------------------------------------------------------ what managers say

    def assign(self, revision: int, tasks: list[Task]) -> None:
        """Apply the whole of what the node should run; older news than what was applied is dropped."""
        if not self.up or revision < self.revision:
            return
        self.revision, self.heard = revision, self.clock.monotonic()
        wanted = {task.id: task for task in tasks}
        for id, container in list(self.containers.items()):
            if id not in wanted and container.state in states.ENDED:
                del self.containers[id]
                self.unacknowledged.pop(id, None)
            elif id not in wanted or wanted[id].desired_state > states.RUNNING:
                self._stop(container)
        for task in tasks:
            if task.desired_state <= states.RUNNING or task.id in self.containers:
                self._take(task)
            elif task.status.state not in states.ENDED:
                # Never seen here: it was to stop before it came.
                self.containers[task.id] = Container(task)
                self._move(self.containers[task.id], states.SHUTDOWN)

    def acknowledge(self, sent: dict[str, TaskStatus]) -> None:
        for id, status in sent.items():
            if self.unacknowledged.get(id) == status:
                del self.unacknowledged[id]

    # ------------------------------------------------------------ what happens to the host

    def die(self) -> None:
        """Power off: all processes are gone; the disk is not."""
        self.up = False
        self.unacknowledged.clear()
        for container in self.containers.values():
            if container.timer:
                container.timer.cancel()

    def boot(self) -> None:
        self.up, self.revision = True, 0
        for container in self.containers.values():
            if container.state not in states.ENDED:
                self._move(container, states.FAILED)
            else:
                self._report(container)

    def live(self) -> list[Task]:
        return [container.task for container in self.containers.values() if self.up and container.alive]

    # ------------------------------------------------------------ the life of a task

    def _take(self, task: Task) -> None:
        container = self.containers.get(task.id)
        if container is None:
            if task.status.state in states.ENDED:
                return
            container = self.containers[task.id] = Container(task)
            self._move(container, states.ACCEPTED)
            self._after(container, self.rng.uniform(0.05, 1.0), states.READY)
            return
        container.task = task
        if container.state == states.READY and task.desired_state == states.RUNNING and not container.stopping:
            self._start(container)

    def _start(self, container: Container) -> None:
        self._move(container, states.STARTING)
        self.started(self, container.task)
        healthy = self.rng.random() >= self.failure_rate
        self._after(container, self.rng.uniform(0.05, 2.0), states.RUNNING if healthy else states.FAILED)

    def _stop(self, container: Container) -> None:
        if container.state in states.ENDED or container.stopping:
            return
        container.stopping = True
        slow = self.rng.uniform(0.05, 5.0) if container.alive else 0.0
        self._after(container, slow, states.SHUTDOWN)

    def _after(self, container: Container, seconds: float, state: TaskState.ValueType) -> None:
        if container.timer:
            container.timer.cancel()
        container.timer = asyncio.get_running_loop().call_later(seconds, partial(self._move, container, state))

    def _move(self, container: Container, state: TaskState.ValueType) -> None:
        assert states.may_move(container.state, state), f"{container.task.id} would go back"
        container.state = state
        self._report(container)
        if state == states.READY and container.task.desired_state == states.RUNNING:
            self._start(container)
        elif state == states.RUNNING and self.rng.random() < self.failure_rate:
            self._after(container, self.rng.uniform(0.1, 60.0), states.FAILED)

    def _report(self, container: Container) -> None:
        status = edited(container.task.status)
        status.state = container.state
        status.unhealthy = container.state == states.FAILED and self.rng.random() < 0.5
        status.message = states.name(container.state)
        status.timestamp.CopyFrom(timestamp(self.clock.now()))
        self.unacknowledged[container.task.id] = status
