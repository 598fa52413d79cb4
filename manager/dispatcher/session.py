"""One agent's session: what waits to be sent to it, when it was last heard, and why it ended.

It has no task of its own: gRPC pulls `messages`, the dispatcher's tasks push.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from swarmd.manager.dispatcher.board import Feed
from swarmd.proto.dispatcher_pb2 import ManagerMessage, NodeInfo, StatusesAck, Welcome
from swarmd.proto.errors import SwarmdError

PACE = 0.02  # s, between incremental assignments, unless much waits
MUCH = 100


class AgentSession:
    def __init__(self, node_id: str, session_id: str, period: float, heard: float) -> None:
        self.node_id = node_id
        self.id = session_id
        self.period = period  # s
        self.heard = heard
        self.ended: SwarmdError | None = None
        self._outbox: deque[ManagerMessage] = deque()
        self._node_info = NodeInfo()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """The feed may have something."""
        self._wake.set()

    def end(self, why: SwarmdError) -> None:
        self.ended = self.ended or why
        self._wake.set()

    def ack(self, batch: int) -> None:
        self._send(ManagerMessage(statuses_ack=StatusesAck(batch=batch)))

    def inform(self, info: NodeInfo) -> None:
        if _matters(info) != _matters(self._node_info):
            self._node_info = info
            self._send(ManagerMessage(node_info=info))

    def _send(self, message: ManagerMessage) -> None:
        self._outbox.append(message)
        self._wake.set()

    async def messages(self, feed: Feed, info: NodeInfo) -> AsyncIterator[ManagerMessage]:
        """What the agent gets, in order; ends by raising why the session ended."""
        self._node_info = info
        welcome = Welcome(session_id=self.id, heartbeat_period=round(self.period * 1e9), node_info=info)
        yield ManagerMessage(welcome=welcome)
        yield ManagerMessage(assignments=feed.take(full=True))
        loop = asyncio.get_running_loop()
        quiet_until = 0.0
        while self.ended is None:
            await self._woken(quiet_until - loop.time() if feed else None)
            while self._outbox:
                yield self._outbox.popleft()
            if len(feed) >= MUCH or (feed and loop.time() >= quiet_until):
                changes = feed.take()
                if changes.changes or changes.removals:
                    yield ManagerMessage(assignments=changes)
                    quiet_until = loop.time() + PACE
        raise self.ended

    async def _woken(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(None if seconds is None else max(seconds, 0.0)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()


def _matters(info: NodeInfo) -> tuple[object, ...]:
    """What an agent hears of: not the status that it causes itself."""
    node = info.node
    return node.spec, node.certified_role, node.etcd_member_id, list(node.networks), list(info.managers)
