"""Which nodes are here: the sessions of this manager, and the state of their nodes in the store.

    Hello                       READY         session_manager = this manager
    stream ended                DISCONNECTED  at once; DOWN after GRACE without a new session anywhere
    silent for MISSED periods   DOWN          at once
    Goodbye                     DOWN          at once

Every manager records this for its own sessions, leader or not.  **Invariant:** a manager only touches the state of a
node whose `session_manager` it is.  That of nodes whose manager is gone is the leader's to judge: liveness.py.
"""

import asyncio
import logging
from functools import partial

from swarmd.manager.dispatcher.session import AgentSession
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Store, Tx
from swarmd.proto.clock import Clock, timestamp
from swarmd.proto.errors import NotFound, SwarmdError, Unavailable
from swarmd.proto.objects_pb2 import (
    NODE_STATE_DISCONNECTED,
    NODE_STATE_DOWN,
    NODE_STATE_READY,
    Node,
    NodeDescription,
    NodeState,
)

log = logging.getLogger(__name__)
MISSED = 3  # heartbeats
GRACE = 5.0  # s, in which a restarted swarmd comes back to its tasks
RETURN = 10.0  # s, in which nodes find a manager that was restarted: they ask every 2 s, and up to 3 s at a time
TICK = 0.25  # s

_MESSAGES = {
    NODE_STATE_READY: "",
    NODE_STATE_DISCONNECTED: "its agent closed the connection",
    NODE_STATE_DOWN: "nothing is heard of it",
}


class Attendance:
    def __init__(self, store: Store, clock: Clock, manager_id: str) -> None:
        self._store = store
        self._clock = clock
        self._manager_id = manager_id
        self.sessions: dict[str, AgentSession] = {}
        self._left: dict[str, float] = {}  # node without a session -> when it is down
        self._wake = asyncio.Event()

    # ------------------------------------------------------------ coming and going

    async def arrive(self, session: AgentSession, description: NodeDescription) -> None:
        """Register the session in the store; NotFound if the node is no member.  `leave` follows in any case."""
        if earlier := self.sessions.get(session.node_id):
            earlier.end(Unavailable(f"node {session.node_id} opened another session"))
        self.sessions[session.node_id] = session
        self._left.pop(session.node_id, None)
        await self._store.transact(partial(self._register, session.node_id, description))

    def _register(self, node_id: str, description: NodeDescription, tx: Tx) -> None:
        node = tx.get(Node, node_id)
        if node is None:
            raise removed(node_id)
        here = edited(node)
        here.description.CopyFrom(description)
        here.status.addr = description.addr
        here.session_manager = self._manager_id
        self._set_state(here, NODE_STATE_READY)
        # Put even when nothing changed: a write on its way that says otherwise must fail, and look again.
        tx.put(here)

    def leave(self, session: AgentSession, *, silent: bool = False) -> None:
        if self.sessions.get(session.node_id) is session:
            del self.sessions[session.node_id]
            self._left[session.node_id] = self._clock.monotonic() + (0.0 if silent else GRACE)
            self._wake.set()

    async def depart(self, node_id: str) -> None:
        """The node left the cluster, whoever had its session; NotFound if it is no member."""
        if session := self.sessions.pop(node_id, None):
            session.end(Unavailable(f"node {node_id} left the cluster"))
        self._left.pop(node_id, None)

        def note(tx: Tx) -> None:
            node = tx.get(Node, node_id)
            if node is None:
                raise removed(node_id)
            gone = edited(node)
            gone.session_manager = self._manager_id
            set_state(gone, NODE_STATE_DOWN, self._clock, "it left the cluster")
            tx.put(gone)

        await self._store.transact(note)

    async def describe(self, node_id: str, description: NodeDescription) -> None:
        def note(tx: Tx) -> None:
            node = tx.get(Node, node_id)
            if node is not None and node.description != description:
                changed = edited(node)
                changed.description.CopyFrom(description)
                changed.status.addr = description.addr
                tx.put(changed)

        await self._store.transact(note)

    def end_all(self, why: SwarmdError) -> None:
        for session in self.sessions.values():
            session.end(why)

    # ------------------------------------------------------------ judging

    async def run(self) -> None:
        self._resume()
        while True:
            await self._pause()
            self._expire()
            try:
                await self._store.batch(self._verdicts(), self._record)
            except SwarmdError as error:
                # Nobody could register meanwhile: what was promised to those who left starts anew.
                log.warning("the state of nodes is not stored: %s", error)
                self._left = dict.fromkeys(self._left, self._clock.monotonic() + GRACE)

    def _resume(self) -> None:
        """Nodes that had their session with us before we were restarted."""
        until = self._clock.monotonic() + RETURN
        for node in self._store.view().find(Node):
            if node.session_manager == self._manager_id and node.id not in self.sessions:
                self._left[node.id] = until

    async def _pause(self) -> None:
        """Until the next tick; time in which this process itself hung is not held against anybody."""
        begun = self._clock.monotonic()
        try:
            async with asyncio.timeout(TICK):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        lag = self._clock.monotonic() - begun - TICK
        if lag > 0:
            self._left = {node_id: until + lag for node_id, until in self._left.items()}
            for session in self.sessions.values():
                session.heard += lag

    def _expire(self) -> None:
        now = self._clock.monotonic()
        for session in [s for s in self.sessions.values() if now - s.heard > MISSED * s.period]:
            session.end(Unavailable(f"node {session.node_id} missed {MISSED} heartbeats: open a new session"))
            self.leave(session, silent=True)

    def _verdicts(self) -> list[tuple[str, NodeState.ValueType]]:
        """The nodes that the store has in another state than we know them to be in."""
        view = self._store.view()
        now = self._clock.monotonic()
        wanted = dict.fromkeys(self.sessions, NODE_STATE_READY)
        for node_id, until in tuple(self._left.items()):
            node = view.get(Node, node_id)
            if node is None or node.session_manager != self._manager_id or node.status.state == NODE_STATE_DOWN:
                del self._left[node_id]
            else:
                wanted[node_id] = NODE_STATE_DOWN if now >= until else NODE_STATE_DISCONNECTED
        return [
            (node_id, state)
            for node_id, state in wanted.items()
            if (node := view.get(Node, node_id)) is not None
            and node.session_manager == self._manager_id
            and node.status.state != state
        ]

    def _record(self, tx: Tx, verdict: tuple[str, NodeState.ValueType]) -> None:
        node_id, state = verdict
        node = tx.get(Node, node_id)
        is_here = node_id in self.sessions
        if node is None or node.session_manager != self._manager_id or is_here != (state == NODE_STATE_READY):
            return
        changed = edited(node)
        self._set_state(changed, state)
        tx.put(changed)

    def _set_state(self, node: Node, state: NodeState.ValueType) -> None:
        set_state(node, state, self._clock, _MESSAGES[state])


def set_state(node: Node, state: NodeState.ValueType, clock: Clock, message: str) -> None:
    if node.status.state != state:
        node.heard_at.CopyFrom(timestamp(clock.now()))
    node.status.state = state
    node.status.message = message


def removed(node_id: str) -> NotFound:
    return NotFound(f"node {node_id} was removed from the cluster: let it leave and join again")
