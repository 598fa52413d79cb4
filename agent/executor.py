"""Tasks as containers of this node's engine: the Controller that is not a fake.

A container is found by its name, which has the task's id in it, so a restart of swarmd needs no record of its own.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Protocol

from swarmd.agent.controller import Observed, Refused, Stage, Temporary
from swarmd.agent.task_config import SERVICE_ID, TASK_ID, TASK_NAME, container_config, container_name
from swarmd.proto.objects_pb2 import Task
from swarmd.runtime.engine import Engine
from swarmd.runtime.errors import (
    Conflict,
    Exhausted,
    Invalid,
    NotFound,
    PortInUse,
    RuntimeFault,
    StartError,
    Unavailable,
    Unsupported,
)
from swarmd.runtime.model import ContainerState, HealthState, Phase
from swarmd.runtime.registry import Credentials, credentials_from_header

log = logging.getLogger(__name__)
KEPT = 5  # ended containers of a slot, for their logs
_RUNNING_STAGES = {
    HealthState.NONE: Stage.HEALTHY,
    HealthState.STARTING: Stage.STARTED,
    HealthState.HEALTHY: Stage.HEALTHY,
    HealthState.UNHEALTHY: Stage.UNHEALTHY,
}


class Images(Protocol):
    async def get(self, ref: str, *, credentials: Credentials | None = None) -> object:
        """Have an image here; NotFound in a sentence when it is to be had nowhere, Unavailable when nobody says.

        credentials: for its registry.
        """
        ...


class Executor:
    def __init__(self, engine: Engine, hostname: str, images: Images) -> None:
        self.engine = engine
        self.hostname = hostname
        self.images = images
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)

    async def run(self) -> None:
        """Tell those who wait for a container when something happens to it; until cancelled."""
        async for event in self.engine.events():
            for waiter in self._waiting.get(event.id, ()):
                waiter.set()

    def controller(self, task: Task) -> "TaskController":
        return TaskController(self, task)

    def containers(self) -> dict[str, ContainerState]:
        """The containers of tasks, by task id."""
        return {state.config.labels[TASK_ID]: state for state in self.engine.list() if TASK_ID in state.config.labels}

    async def changed(self, container_id: str, controller: "TaskController", seen: Observed) -> None:
        waiter = asyncio.Event()
        self._waiting[container_id].add(waiter)
        try:
            while controller.observe() == seen:
                await waiter.wait()
                waiter.clear()
        finally:
            self._waiting[container_id].discard(waiter)
            if not self._waiting[container_id]:
                del self._waiting[container_id]

    async def prune(self, wanted: Collection[str]) -> None:
        """Remove the containers of tasks that are not wanted, but for the newest ended ones of each slot."""
        slots: dict[tuple[str, str], list[ContainerState]] = defaultdict(list)
        for task_id, state in self.containers().items():
            if task_id not in wanted and state.phase is not Phase.RUNNING:
                slots[_slot(state)].append(state)
        for states in slots.values():
            ended = [state for state in states if state.exit is not None]
            kept = {state.id for state in sorted(ended, key=lambda state: state.created)[-KEPT:]}
            for state in states:
                if state.id not in kept:
                    await self._let_go(state)

    async def _let_go(self, state: ContainerState) -> None:
        """Removed now, or, where somebody has just started it by hand, when the next task ends."""
        try:
            with suppress(NotFound):
                await self.engine.remove(state.id)
        except (RuntimeFault, OSError) as error:
            log.warning("ended container %s stays for now: %s", state.name, error)

    async def stop(self, states: Sequence[ContainerState]) -> None:
        """Stop and remove containers, all at once."""

        async def end(state: ContainerState) -> None:
            with suppress(NotFound):
                if state.phase is Phase.RUNNING:
                    await self.engine.stop(state.id)
                await self.engine.remove(state.id, force=True)

        async with asyncio.TaskGroup() as group:
            for state in states:
                group.create_task(end(state))


class TaskController:
    """Satisfies Controller."""

    def __init__(self, executor: Executor, task: Task) -> None:
        self._executor = executor
        self._engine = executor.engine
        self._task = task
        self._name = container_name(task)

    def observe(self) -> Observed:
        try:
            return observed(self._engine.inspect(self._name))
        except NotFound:
            return Observed()

    async def prepare(self) -> None:
        try:
            container = self._task.spec.container
            credentials = credentials_from_header(container.registry_auth)
            await self._executor.images.get(container.image, credentials=credentials)
            own_ids = await self._engine.gives_own_ids()
            await self._engine.create(container_config(self._task, self._executor.hostname, own_ids), self._name)
        except (NotFound, Invalid, Unsupported) as error:
            raise Refused(str(error)) from None
        except (Exhausted, Unavailable) as error:
            raise Temporary(str(error)) from None

    async def start(self) -> None:
        here = {network.id for network in self._engine.networks.list()}
        if any(attachment.network_id not in here for attachment in self._task.networks):
            raise Temporary(
                "a network of the task is not on this node yet"
            )  # the node gets its address on it meanwhile
        try:
            await self._engine.start(self._name)
        except (PortInUse, Invalid, Unsupported) as error:
            raise Refused(str(error)) from None
        except StartError:
            return  # the container has ended, and says why
        except (Conflict, Exhausted) as error:
            raise Temporary(str(error)) from None

    async def wait(self, seen: Observed) -> None:
        await self._executor.changed(seen.container_id, self, seen)

    async def shutdown(self) -> None:
        with suppress(NotFound):
            await self._engine.stop(self._name)

    async def terminate(self) -> None:
        with suppress(NotFound):
            await self._engine.kill(self._name)
            await self._engine.wait(self._name)

    async def remove(self) -> None:
        with suppress(NotFound):
            await self._engine.remove(self._name, force=True)


def _slot(state: ContainerState) -> tuple[str, str]:
    """Of which service, by id, as a later one may have the same name; and the number in "web.3.t1"."""
    labels = state.config.labels
    return labels[SERVICE_ID], labels[TASK_NAME].rsplit(".", 2)[-2]


def observed(state: ContainerState) -> Observed:
    unhealthy = state.health is HealthState.UNHEALTHY
    error = _failed_probe(state) if unhealthy else ""
    match state.phase:
        case Phase.CREATED:
            return Observed(Stage.PREPARED, container_id=state.id)
        case Phase.RUNNING:
            stage = _RUNNING_STAGES[state.health]
            return Observed(stage, container_id=state.id, pid=state.pid, error=error, unhealthy=unhealthy)
    exit = state.exit
    if exit is not None and not error:
        error = "the program was killed: its memory limit was reached" if exit.oom_killed else exit.error
    return Observed(
        Stage.ENDED,
        container_id=state.id,
        exit_code=exit.code if exit is not None else 0,
        error=error or ("" if exit is not None else "how the program ended is not known"),
        unhealthy=unhealthy,
    )


def _failed_probe(state: ContainerState) -> str:
    if not state.health_log:
        return "the health check failed"
    probe = state.health_log[-1]
    said = " ".join(probe.output.split())[-200:]
    return f"the health check failed: exit code {probe.exit_code}{f', {said}' if said else ''}"
