"""Serves agents' sessions: what each node has to run and to know, and what it reports.

A session is: Hello, registration (attendance.py), Welcome, all assignments, then changes (board.py).  Statuses go to
statuses.py.  Every manager runs this, from its own view of the store; `run` has to be running for sessions to open.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from swarmd.manager.dispatcher.attendance import Attendance, removed
from swarmd.manager.dispatcher.board import Board, Feed
from swarmd.manager.dispatcher.holdings import holders, note
from swarmd.manager.dispatcher.session import AgentSession
from swarmd.manager.dispatcher.statuses import StatusCollector
from swarmd.manager.store.interface import Commit, Store, View
from swarmd.proto import dispatcher_pb2_grpc
from swarmd.proto.clock import Clock
from swarmd.proto.dispatcher_pb2 import (
    AgentMessage,
    GoodbyeRequest,
    GoodbyeResponse,
    Hello,
    HoldersRequest,
    HoldersResponse,
    ManagerMessage,
    ManagerPeer,
    NodeInfo,
)
from swarmd.proto.errors import Invalid, SwarmdError, Unavailable
from swarmd.proto.ids import new_id
from swarmd.proto.objects_pb2 import Cluster, Node
from swarmd.proto.tls import Identity

log = logging.getLogger(__name__)
DEFAULT_PERIOD = 1.0  # s
HELLO_WITHIN = 10.0  # s


class Dispatcher(dispatcher_pb2_grpc.DispatcherServicer):
    def __init__(
        self,
        store: Store,
        clock: Clock,
        node_id: str,
        peer_identity: Callable[[Any], Identity],
        root_certificate: bytes,
    ) -> None:
        self._store = store
        self._clock = clock
        self._peer_identity = peer_identity
        self._root_certificate = root_certificate
        self._attendance = Attendance(store, clock, node_id)
        self._statuses = StatusCollector(store, clock, self._attendance.end_all)
        self._running: tuple[Board, asyncio.TaskGroup] | None = None

    # ------------------------------------------------------------ background

    async def run(self) -> None:
        try:
            async with self._store.view_and_watch() as (view, commits), asyncio.TaskGroup() as group:
                board = Board(view)
                self._running = board, group
                group.create_task(self._statuses.run())
                group.create_task(self._attendance.run())
                async for commit in commits:
                    self._publish(board, commit)
        finally:
            self._running = None
            self._attendance.end_all(Unavailable("this manager is stopping: choose another"))

    def _publish(self, board: Board, commit: Commit) -> None:
        view = self._store.view()
        for node_id in board.apply(view, commit):
            if session := self._attendance.sessions.get(node_id):
                session.wake()
        changed = {change.obj.id: change for change in commit.changes if isinstance(change.obj, Node)}
        everybody = any(_peer(change.old) != _peer(change.new) for change in changed.values())
        peers = _peers(view) if changed else []
        for node_id in {*changed, *self._attendance.sessions} if everybody else changed:
            session = self._attendance.sessions.get(node_id)
            node = view.get(Node, node_id)
            if session and node:
                session.inform(self._node_info(node, peers))
            elif session:
                session.end(removed(node_id))

    def _node_info(self, node: Node, peers: list[ManagerPeer]) -> NodeInfo:
        return NodeInfo(node=node, managers=peers, root_certificate=self._root_certificate)

    # ------------------------------------------------------------ a session

    async def Session(
        self, request_iterator: AsyncIterator[AgentMessage], context: Any
    ) -> AsyncIterator[ManagerMessage]:
        node_id = self._peer_identity(context).node_id
        hello = await _hello(request_iterator)
        board, group = self._serving()
        session = AgentSession(node_id, new_id(), self._period(), self._clock.monotonic())
        reading = group.create_task(self._read(session, request_iterator))
        feed = Feed(board, node_id)
        try:
            await self._attendance.arrive(session, hello.description)
            view = self._store.view()
            node = view.get(Node, node_id)
            if node is None:
                raise removed(node_id)
            async for message in session.messages(feed, self._node_info(node, _peers(view))):
                yield message
        finally:
            reading.cancel()
            feed.close()
            self._attendance.leave(session)

    async def Goodbye(self, request: GoodbyeRequest, context: Any) -> GoodbyeResponse:
        await self._attendance.depart(self._peer_identity(context).node_id)
        return GoodbyeResponse()

    async def Holders(self, request: HoldersRequest, context: Any) -> HoldersResponse:
        self._peer_identity(context)
        return HoldersResponse(holders=holders(self._store.view(), request))

    def _serving(self) -> tuple[Board, asyncio.TaskGroup]:
        if self._running is None:
            raise Unavailable("this manager does not take sessions just now: choose another")
        return self._running

    def _period(self) -> float:
        for cluster in self._store.view().find(Cluster):
            if cluster.spec.dispatcher.HasField("heartbeat_period"):
                return cluster.spec.dispatcher.heartbeat_period / 1e9
        return DEFAULT_PERIOD

    async def _read(self, session: AgentSession, messages: AsyncIterator[AgentMessage]) -> None:
        try:
            async for message in messages:
                session.heard = self._clock.monotonic()
                match message.WhichOneof("of"):
                    case "statuses":
                        self._statuses.add(session, message.statuses)
                    case "description":
                        await self._attendance.describe(session.node_id, message.description)
                    case "holdings":
                        await note(self._store, session.node_id, message.holdings)
        except SwarmdError as error:
            session.end(error)
        except (grpc.RpcError, grpc.aio.BaseError) as error:
            log.info("session of node %s: %s", session.node_id, error)
        session.end(Unavailable(f"node {session.node_id} ended its session"))


async def _hello(messages: AsyncIterator[AgentMessage]) -> Hello:
    try:
        async with asyncio.timeout(HELLO_WITHIN):
            first = await anext(messages, None)
    except TimeoutError:
        first = None
    if first is None or first.WhichOneof("of") != "hello":
        raise Invalid("a session begins with a hello")
    return first.hello


def _peers(view: View) -> list[ManagerPeer]:
    return sorted((peer for node in view.find(Node) if (peer := _peer(node))), key=lambda peer: peer.node_id)


def _peer(node: object) -> ManagerPeer | None:
    if not isinstance(node, Node) or not node.manager_status.addr:
        return None
    return ManagerPeer(node_id=node.id, addr=node.manager_status.addr)
