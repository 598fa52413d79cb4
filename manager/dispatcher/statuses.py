"""Collects the statuses that agents report, over all sessions, and stores them together.

What comes while one batch is being stored makes the next.  A session's statuses are acknowledged once they are in the
store; until then its agent keeps them, and sends them again on its next session.
"""

import asyncio
import logging
from collections.abc import Callable

from swarmd.manager.dispatcher.session import AgentSession
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Store, Tx
from swarmd.proto.clock import Clock
from swarmd.proto.dispatcher_pb2 import Statuses, TaskStatusUpdate
from swarmd.proto.errors import SwarmdError, Unavailable
from swarmd.proto.objects_pb2 import Task
from swarmd.proto.task_states import AGENT_WRITES, may_move

log = logging.getLogger(__name__)
GATHER = 0.005  # s


class StatusCollector:
    """`failed` hears that the store can't be written."""

    def __init__(self, store: Store, clock: Clock, failed: Callable[[Unavailable], None]) -> None:
        self._store = store
        self._clock = clock
        self._failed = failed
        self._waiting: list[tuple[AgentSession, Statuses]] = []
        self._wake = asyncio.Event()

    def add(self, session: AgentSession, statuses: Statuses) -> None:
        self._waiting.append((session, statuses))
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            await self._clock.sleep(GATHER)
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            try:
                await self._store.batch(_newest(waiting), record)
            except SwarmdError as error:
                log.warning("statuses are not stored: %s", error)
                self._failed(Unavailable(f"this manager can't store statuses: {error}"))
                continue
            for session, statuses in waiting:
                session.ack(statuses.batch)


def _newest(waiting: list[tuple[AgentSession, Statuses]]) -> list[tuple[str, TaskStatusUpdate]]:
    """The last status of each task, by (node, task)."""
    newest = {(session.node_id, update.task_id): update for session, statuses in waiting for update in statuses.updates}
    return [(node_id, update) for (node_id, _), update in newest.items()]


def record(tx: Tx, item: tuple[str, TaskStatusUpdate]) -> None:
    """Store a status, unless the task is gone, is another node's, or can't move there."""
    node_id, update = item
    task = tx.get(Task, update.task_id)
    state = update.status.state
    if task is None or task.node_id != node_id or state not in AGENT_WRITES or not may_move(task.status.state, state):
        return
    moved = edited(task)
    moved.status.CopyFrom(update.status)
    tx.put(moved)
