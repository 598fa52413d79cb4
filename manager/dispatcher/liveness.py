"""The leader's judgement of nodes whose manager is gone, so that nobody else would ever call them down.

A manager is gone while its node is no member, or no manager, or does not answer the leader's probes (roles.py keeps
`manager_status` so).  Its nodes then have time to open a session elsewhere, which makes that manager responsible; its
own node, if it held that session itself, went with it.

**Invariant:** only what this leader itself saw, on its own monotonic clock, counts.  A new leader starts all over, and
time in which this process hung counts for nobody, so neither a failover nor load ever moves a task.
"""

import logging
from collections.abc import Iterable, Mapping

from swarmd.manager.dispatcher.attendance import set_state
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Store, Tx
from swarmd.proto.clock import Clock
from swarmd.proto.errors import Unavailable
from swarmd.proto.objects_pb2 import (
    NODE_STATE_DISCONNECTED,
    NODE_STATE_DOWN,
    NODE_STATE_READY,
    REACHABILITY_UNREACHABLE,
    Node,
)

log = logging.getLogger(__name__)
PERIOD = 0.25  # s
OWN = 2.5  # s that a manager's own node gets; noticing takes up to 1.7 s before
# s that others get to find another manager: an agent learns from the keepalive, within 3 s, that its own went silent.
ELSEWHERE = 6.0


class LivenessLoop:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._gone: dict[str, float] = {}

    async def run(self) -> None:
        while True:
            begun = self._clock.monotonic()
            nodes = {node.id: node for node in self._store.view().find(Node)}
            self._gone = gone_since(nodes, self._gone, begun)
            try:
                await self._store.batch(lost(nodes, self._gone, begun), self._mark)
            except Unavailable as error:
                log.warning("no node is judged: %s", error)
                self._gone = {}
            await self._clock.sleep(PERIOD)
            lag = self._clock.monotonic() - begun - PERIOD
            self._gone = {manager_id: since + lag for manager_id, since in self._gone.items()}

    def _mark(self, tx: Tx, judged: Node) -> None:
        node = tx.get(Node, judged.id)
        if node is None or node.session_manager != judged.session_manager or not _is_up(node):
            return
        manager = tx.get(Node, node.session_manager)
        if is_gone(manager):
            down = edited(node)
            set_state(down, NODE_STATE_DOWN, self._clock, "the manager that heard it is gone, and no other hears it")
            tx.put(down)


def is_gone(manager: Node | None) -> bool:
    if manager is None or not manager.manager_status.addr:
        return True
    return manager.manager_status.reachability == REACHABILITY_UNREACHABLE


def gone_since(nodes: Mapping[str, Node], before: Mapping[str, float], now: float) -> dict[str, float]:
    """When each manager that nodes count on was first seen gone."""
    counted_on = {node.session_manager for node in nodes.values() if _is_up(node)}
    return {id: before.get(id, now) for id in counted_on if is_gone(nodes.get(id))}


def lost(nodes: Mapping[str, Node], gone: Mapping[str, float], now: float) -> Iterable[Node]:
    """The nodes to be marked down."""
    return [
        node
        for node in nodes.values()
        if _is_up(node) and node.session_manager in gone and now - gone[node.session_manager] >= _patience(node)
    ]


def _patience(node: Node) -> float:
    """A manager that does not answer took its own node with it; one that was demoted did not."""
    return OWN if node.session_manager == node.id and node.manager_status.addr else ELSEWHERE


def _is_up(node: Node) -> bool:
    """Whether somebody heard it, as far as the store knows; a node that never had a session is not judged."""
    return bool(node.session_manager) and node.status.state in (NODE_STATE_READY, NODE_STATE_DISCONNECTED)
