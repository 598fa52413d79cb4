"""The conversation with a manager: one stream, to any of them, for as long as it holds.

A broken stream is resumed with another manager, at once the first time.  What was not acknowledged is said again.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc import aio
from grpc.aio import EOF

from swarmd.agent.reporter import Reporter
from swarmd.proto import dispatcher_pb2 as pb
from swarmd.proto import dispatcher_pb2_grpc
from swarmd.proto.backoff import Backoff
from swarmd.proto.errors import Unavailable
from swarmd.proto.objects_pb2 import Holdings, NodeDescription
from swarmd.proto.tls import channel_options

log = logging.getLogger(__name__)
WELCOME = 3.0  # s, for a manager to be reached and say welcome
LONGEST_PAUSE = 2.0  # s between attempts: with WELCOME less than a manager waits for its nodes after a start
PATIENCE = 3  # heartbeat periods for a write to get through; a silent link is noticed by the channel's keepalive
STABLE = 1.0  # s that a session must have held for another manager to be asked at once
JITTER = 0.1  # of the heartbeat period
FAREWELL = 3.0  # s, to tell any manager that this node has left

Tell = Callable[[pb.Assignments, Callable[[int], None]], None]
HeldAfter = Callable[[Holdings | None], Awaitable[Holdings]]


class Session:
    def __init__(
        self,
        managers: Sequence[pb.ManagerPeer],
        credentials: Callable[[], grpc.ChannelCredentials] | None,
        describe: Callable[[], NodeDescription],
        reporter: Reporter,
        tell: Tell,
        on_node_info: Callable[[pb.NodeInfo], None],
        held_after: HeldAfter | None = None,
    ) -> None:
        """credentials None: without TLS, for tests on loopback; held_after: the images here, once they are others."""
        self._managers = [peer.addr for peer in managers]
        self._credentials = credentials
        self._describe = describe
        self._reporter = reporter
        self._tell = tell
        self._on_node_info = on_node_info
        self._held_after = held_after
        self._rng = random.Random()
        self._welcomed_at: float | None = None

    async def run(self) -> None:
        backoff = Backoff(base=0.1, cap=LONGEST_PAUSE)
        failed = ""
        while True:
            address = self._choose(failed)
            self._welcomed_at = None
            try:
                await self._converse(address)
            except* (aio.AioRpcError, Unavailable, TimeoutError, OSError) as problems:
                log.info("session with manager %s ended: %s", address, sentence(problems))
            held = self._held()
            if held is not None:
                backoff.reset()
            if held is None or held < STABLE or len(self._managers) == 1:
                await asyncio.sleep(backoff.next())
            failed = address

    async def goodbye(self) -> None:
        """Tell a manager that this node has left; call it once `run` was cancelled.

        Without it the node counts as lost after a while, so what fails here is only logged.
        """
        try:
            async with asyncio.timeout(FAREWELL):
                for address in self._managers:
                    try:
                        async with self._channel(address) as channel:
                            await dispatcher_pb2_grpc.DispatcherStub(channel).Goodbye(
                                pb.GoodbyeRequest(), timeout=FAREWELL / 3
                            )
                            return
                    except aio.AioRpcError as error:
                        log.info("manager %s was not told that this node leaves: %s", address, error.details())
        except TimeoutError:
            log.info("no manager was told in time that this node leaves")

    def managers(self) -> Sequence[str]:
        """host:port of each that is known."""
        return self._managers

    def _held(self) -> float | None:
        """Seconds since the manager said welcome; None if it did not."""
        return None if self._welcomed_at is None else asyncio.get_running_loop().time() - self._welcomed_at

    def _choose(self, failed: str) -> str:
        others = [address for address in self._managers if address != failed]
        return self._rng.choice(others or self._managers)

    def _channel(self, address: str) -> aio.Channel:
        if self._credentials is None:
            return aio.insecure_channel(address)
        return aio.secure_channel(address, self._credentials(), options=channel_options())

    async def _converse(self, address: str) -> None:
        async with self._channel(address) as channel:
            stream = dispatcher_pb2_grpc.DispatcherStub(channel).Session(None)
            await _Conversation(self, stream).run()

    # ------------------------------------------------------------ for a conversation

    def heard(self, info: pb.NodeInfo) -> None:
        if info.managers:
            self._managers = [peer.addr for peer in info.managers]
        self._on_node_info(info)

    def welcomed(self, welcome: pb.Welcome) -> None:
        self._welcomed_at = asyncio.get_running_loop().time()
        self._reporter.resend()
        self.heard(welcome.node_info)


class _Conversation:
    def __init__(self, session: Session, stream: Any) -> None:
        self._session = session
        self._stream = stream
        self._writing = asyncio.Lock()
        self._applied: asyncio.Queue[int] = asyncio.Queue()

    async def run(self) -> None:
        """Until the stream breaks: raises why."""
        async with asyncio.timeout(WELCOME):  # the channel alone would try a host that is down for 20 s
            await self._send(pb.AgentMessage(hello=pb.Hello(description=self._session._describe())))
            first = await self._stream.read()
        if first is EOF or first.WhichOneof("of") != "welcome":
            raise await self._why()
        self._session.welcomed(first.welcome)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat(first.welcome.heartbeat_period / 1e9))
            group.create_task(self._say_statuses())
            group.create_task(self._say_applied())
            group.create_task(self._listen())
            if self._session._held_after:
                group.create_task(self._say_holdings(self._session._held_after))

    async def _listen(self) -> None:
        while (message := await self._stream.read()) is not EOF:
            match message.WhichOneof("of"):
                case "assignments":
                    self._session._tell(message.assignments, self._applied.put_nowait)
                case "statuses_ack":
                    self._session._reporter.acknowledge(message.statuses_ack.batch)
                case "node_info":
                    self._session.heard(message.node_info)
        raise await self._why()

    async def _why(self) -> Exception:
        code, details = await self._stream.code(), await self._stream.details()
        return Unavailable(details or f"the manager ended the session ({code.name.lower() if code else 'no reason'})")

    async def _beat(self, period: float) -> None:
        rng = self._session._rng
        while True:
            await asyncio.sleep(period * rng.uniform(1 - JITTER, 1))
            async with asyncio.timeout(PATIENCE * period):
                await self._send(pb.AgentMessage(heartbeat=pb.Heartbeat()))

    async def _say_statuses(self) -> None:
        while True:
            await self._send(pb.AgentMessage(statuses=await self._session._reporter.next()))

    async def _say_holdings(self, held_after: HeldAfter) -> None:
        told: Holdings | None = None
        while True:
            told = await held_after(told)
            await self._send(pb.AgentMessage(holdings=told))

    async def _say_applied(self) -> None:
        while True:
            await self._send(pb.AgentMessage(applied=pb.Applied(revision=await self._applied.get())))

    async def _send(self, message: pb.AgentMessage) -> None:
        async with self._writing:
            try:
                await self._stream.write(message)
            except asyncio.InvalidStateError:  # the stream has ended; grpc has no better word for it
                raise await self._why() from None


def sentence(problems: BaseExceptionGroup[BaseException]) -> str:
    """The first cause, in words."""
    problem: BaseException = problems
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    if isinstance(problem, aio.AioRpcError):
        return problem.details() or problem.code().name.lower()
    if isinstance(problem, TimeoutError) and not str(problem):
        return "it did not answer in time"
    return str(problem) or type(problem).__name__
