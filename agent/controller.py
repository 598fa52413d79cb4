"""What a task runner may do to one task's container, and the fake that tests use.

A controller holds no plan: each verb may be repeated, and `observe` says what is so now, also after a restart of
swarmd.  When to call which verb is `task_runner.step`.
"""

import asyncio
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Protocol


class Stage(Enum):
    ABSENT = auto()
    PREPARED = auto()
    STARTED = auto()  # the program runs; its health check has not passed yet
    HEALTHY = auto()  # the program runs, and its health check, if it has one, has passed
    UNHEALTHY = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class Observed:
    """`error` says why it ended or is unhealthy; `unhealthy` stays true after the program was stopped for it."""

    stage: Stage = Stage.ABSENT
    container_id: str = ""
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    unhealthy: bool = False


class Refused(Exception):
    """The task can't ever run here as it is specified."""


class Temporary(Exception):
    """Worth trying again."""


class Controller(Protocol):
    def observe(self) -> Observed: ...

    async def prepare(self) -> None:
        """Make the container. Raises Refused or Temporary."""
        ...

    async def start(self) -> None:
        """Return once the program runs. Raises Refused or Temporary."""
        ...

    async def wait(self, seen: Observed) -> None:
        """Return once `observe` would differ from `seen`."""
        ...

    async def shutdown(self) -> None:
        """Stop the program, with its grace period."""
        ...

    async def terminate(self) -> None:
        """Kill the program."""
        ...

    async def remove(self) -> None:
        """Give everything back. Whatever still runs is killed."""
        ...


@dataclass
class FakeController:
    """`faults` are raised one by one, by the verb they are filed under; `verbs` is what was called."""

    healthy_at_once: bool = True
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    verbs: list[str] = field(default_factory=list)
    _seen: Observed = Observed()
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def observe(self) -> Observed:
        return self._seen

    async def prepare(self) -> None:
        self._call("prepare")
        await self.become(Observed(Stage.PREPARED, container_id="c1"))

    async def start(self) -> None:
        self._call("start")
        stage = Stage.HEALTHY if self.healthy_at_once else Stage.STARTED
        await self.become(replace(self._seen, stage=stage, pid=1))

    async def wait(self, seen: Observed) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._seen != seen)

    async def shutdown(self) -> None:
        self._call("shutdown")
        await self.become(replace(self._seen, stage=Stage.ENDED, exit_code=143))

    async def terminate(self) -> None:
        self._call("terminate")
        await self.become(replace(self._seen, stage=Stage.ENDED, exit_code=137))

    async def remove(self) -> None:
        self._call("remove")
        await self.become(Observed())

    async def become(self, observed: Observed) -> None:
        """What happens to the container from outside."""
        async with self._changed:
            self._seen = observed
            self._changed.notify_all()

    def _call(self, verb: str) -> None:
        self.verbs.append(verb)
        if pending := self.faults.get(verb):
            raise pending.pop(0)
