"""Keeps the kernel's networks as the cluster's state says, and says when they are.

What can't be done now is tried again with back-off, and all of it is compared again now and then, since others may
change what is there.  **Invariant:** nobody hears that a change is applied before it is.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from swarmd.agent.network_state import NetworkState
from swarmd.proto.backoff import Backoff
from swarmd.proto.clock import Clock
from swarmd.proto.dispatcher_pb2 import Assignments
from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.network.values import OverlayState

log = logging.getLogger(__name__)
MEND = 10.0  # s, between looks at whether the kernel's networks are as they should be


class Networks(Protocol):
    async def apply(self, desired: OverlayState) -> None: ...


class NetworkKeeper:
    def __init__(self, networks: Networks, state: NetworkState, clock: Clock) -> None:
        self._networks = networks
        self._state = state
        self._clock = clock
        self._failed = asyncio.Event()
        self._waiting: list[Callable[[], None]] = []

    async def update(self, told: Assignments) -> None:
        """Take over what a manager says, and try to make it so."""
        self._state.update(told)
        await self.apply()

    async def apply(self) -> None:
        """Never raises: `run` goes on trying, and one fact that is wrong must not take the node out of the cluster."""
        try:
            self._state.save()
            await self._networks.apply(self._state.desired())
        except Exception as error:
            if not self._failed.is_set():
                known = isinstance(error, RuntimeFault | OSError)
                log.error("the cluster's networks are not as they should be: %s", error, exc_info=not known)
            self._failed.set()
            return
        if self._failed.is_set():
            log.info("the cluster's networks are as they should be again")
            self._failed.clear()
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def once_applied(self, done: Callable[[], None]) -> None:
        """Call it now, or when what failed has been done; in the order in which they came."""
        if self._failed.is_set():
            self._waiting.append(done)
        else:
            done()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mend())
            group.create_task(self._retry())

    async def _mend(self) -> None:
        while True:
            await self._clock.sleep(MEND)
            if not self._failed.is_set():
                await self.apply()

    async def _retry(self) -> None:
        backoff = Backoff(base=0.1, cap=MEND)
        while True:
            await self._failed.wait()
            await self._clock.sleep(backoff.next())
            await self.apply()
            if not self._failed.is_set():
                backoff.reset()
