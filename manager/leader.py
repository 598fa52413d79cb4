"""Leadership as a scope: the parts of a leader run together, fenced, and all end when leadership does.

`PARTS` is the list; a new control loop is a new entry.  Parts never see one another, only the store.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from swarmd.manager.store.interface import Election, Leadership, LeadershipLost, Store
from swarmd.proto.backoff import Backoff
from swarmd.proto.clock import Clock
from swarmd.proto.errors import Unavailable

log = logging.getLogger(__name__)


class Part(Protocol):
    async def run(self) -> None: ...


MakePart = Callable[[Store], Part]  # from the leader's fenced store


async def campaign(store: Store, election: Election, node_id: str, clock: Clock, parts: list[MakePart]) -> None:
    """Lead whenever this node is elected, for ever.  Losing leadership or quorum only means to stand again."""
    backoff = Backoff(base=0.1, cap=2.0)
    while True:
        try:
            async with election.campaign(node_id) as leadership:
                log.info("node %s leads", node_id)
                backoff.reset()
                await _lead(store.fenced(leadership.fence), leadership, parts)
        except* (LeadershipLost, Unavailable) as ended:
            log.info("node %s does not lead any more: %s", node_id, first(ended))
        except* Exception:
            # A defect in one part must not leave the cluster without a leader: another manager may fare better.
            log.exception("a part of the leader failed; node %s resigns", node_id)
        _check_cancelled()
        await clock.sleep(backoff.next())


def _check_cancelled() -> None:
    """A TaskGroup of Python 3.11 that is unwinding from an error drops a cancellation that arrives meanwhile."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _lead(store: Store, leadership: Leadership, parts: list[MakePart]) -> None:
    async with asyncio.TaskGroup() as scope:
        for make in parts:
            scope.create_task(make(store).run())
        await leadership.lost()
        raise LeadershipLost("the leader's key is gone")


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The innermost first error of a scope."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
