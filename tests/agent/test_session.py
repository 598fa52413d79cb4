"""A session with managers on loopback that break off whenever a test says so."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from swarmd.agent.reporter import Reporter
from swarmd.agent.session import Session
from swarmd.proto import dispatcher_pb2 as pb
from swarmd.proto import dispatcher_pb2_grpc
from swarmd.proto.objects_pb2 import Node, NodeDescription, TaskStatus
from swarmd.proto.task_states import RUNNING, STARTING
from tests.host.engine_host import until

BEAT = 0.02  # s
BREAKS = 50


class Manager(dispatcher_pb2_grpc.DispatcherServicer):
    """Says welcome, keeps what it hears, and acknowledges statuses unless told not to."""

    def __init__(self, acknowledging: bool = True, info: pb.NodeInfo | None = None) -> None:
        self.acknowledging = acknowledging
        self.info = info or pb.NodeInfo()
        self.sessions = 0
        self.goodbyes = 0
        self.ended = 0
        self.heard: list[pb.AgentMessage] = []
        self._context: Any = None
        self._broken = asyncio.Event()

    async def Session(self, _: AsyncIterator[pb.AgentMessage], context: Any) -> None:  # type: ignore[override]
        self.heard.append(await context.read())
        self._context, self._broken = context, asyncio.Event()
        await context.write(
            pb.ManagerMessage(welcome=pb.Welcome(heartbeat_period=int(BEAT * 1e9), node_info=self.info))
        )
        self.sessions += 1
        try:
            async with asyncio.TaskGroup() as group:
                hearing = group.create_task(self._hear(context))
                await self._broken.wait()
                hearing.cancel()
        finally:
            self.ended += 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "this manager goes away")

    async def _hear(self, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            self.heard.append(message)
            if message.WhichOneof("of") == "statuses" and self.acknowledging:
                await self.say(pb.ManagerMessage(statuses_ack=pb.StatusesAck(batch=message.statuses.batch)))

    async def say(self, message: pb.ManagerMessage) -> None:
        await self._context.write(message)

    async def Goodbye(self, request: pb.GoodbyeRequest, context: Any) -> pb.GoodbyeResponse:
        self.goodbyes += 1
        return pb.GoodbyeResponse()

    async def break_off(self) -> None:
        """Return once the stream has ended here."""
        ended = self.ended
        self._broken.set()
        await until("the end of the session", lambda: self.ended > ended)

    def of(self, kind: str) -> list[Any]:
        return [getattr(message, kind) for message in self.heard if message.WhichOneof("of") == kind]

    def statuses(self) -> list[tuple[str, int]]:
        return [(update.task_id, update.status.state) for batch in self.of("statuses") for update in batch.updates]


class Agent:
    """The other end of a session: what it was told."""

    def __init__(self) -> None:
        self.reporter = Reporter()
        self.told: list[pb.Assignments] = []
        self.infos: list[pb.NodeInfo] = []

    def tell(self, told: pb.Assignments, applied: Any) -> None:
        self.told.append(told)
        applied(told.revision)

    def report(self, task_id: str, state: Any = RUNNING) -> None:
        self.reporter.report(task_id, TaskStatus(state=state))

    @property
    def unacknowledged(self) -> int:
        return len(self.reporter._sent)


@asynccontextmanager
async def serving(*managers: Manager) -> AsyncIterator[list[str]]:
    """A server for each; yields their addresses. Name one twice and it has two."""
    servers, addresses = [], []
    for manager in managers:
        server = grpc.aio.server()
        dispatcher_pb2_grpc.add_DispatcherServicer_to_server(manager, server)  # type: ignore[no-untyped-call,unused-ignore]
        addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        servers.append(server)
    try:
        yield addresses
    finally:
        for server in servers:
            await server.stop(0)


@asynccontextmanager
async def talking(agent: Agent, addresses: Sequence[str]) -> AsyncIterator[None]:
    session = Session(
        peers(*addresses),
        None,
        lambda: NodeDescription(hostname="one"),
        agent.reporter,
        agent.tell,
        agent.infos.append,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(session.run())
        yield
        running.cancel()


def peers(*addresses: str) -> list[pb.ManagerPeer]:
    return [pb.ManagerPeer(node_id=f"m{n}", addr=address) for n, address in enumerate(addresses)]


@pytest.fixture
def agent() -> Agent:
    return Agent()


async def test_a_session_begins_with_who_this_is_and_beats(agent: Agent) -> None:
    manager = Manager(info=pb.NodeInfo(node=Node(id="n1")))
    async with serving(manager) as addresses, talking(agent, addresses):
        await until("three heartbeats", lambda: len(manager.of("heartbeat")) >= 3)
        assert manager.heard[0].hello.description.hostname == "one"
        assert [info.node.id for info in agent.infos] == ["n1"]
        assert manager.sessions == 1


async def test_assignments_are_handed_on_and_their_revision_is_said_back(agent: Agent) -> None:
    manager = Manager()
    async with serving(manager) as addresses, talking(agent, addresses):
        await until("a session", lambda: manager.sessions)
        for revision in (7, 8):
            await manager.say(pb.ManagerMessage(assignments=pb.Assignments(full=revision == 7, revision=revision)))
        await until("both said back", lambda: [applied.revision for applied in manager.of("applied")] == [7, 8])
        assert [(told.full, told.revision) for told in agent.told] == [(True, 7), (False, 8)]


async def test_news_of_the_node_is_handed_on(agent: Agent) -> None:
    manager = Manager()
    async with serving(manager) as addresses, talking(agent, addresses):
        await until("a session", lambda: manager.sessions)
        await manager.say(pb.ManagerMessage(node_info=pb.NodeInfo(node=Node(id="n1"), root_certificate=b"new")))
        await until("the news", lambda: b"new" in [info.root_certificate for info in agent.infos])


async def test_acknowledged_statuses_are_said_once_and_others_again(agent: Agent) -> None:
    manager = Manager()
    async with serving(manager, manager) as addresses, talking(agent, addresses):
        agent.report("acknowledged")
        await until("its acknowledgement", lambda: manager.statuses() and not agent.unacknowledged)
        manager.acknowledging = False
        agent.report("lost", STARTING)
        agent.report("superseded", STARTING)
        await until("both", lambda: len(manager.statuses()) == 3)
        agent.report("superseded", RUNNING)
        await until("the newer", lambda: len(manager.statuses()) == 4)
        manager.heard.clear()
        manager.acknowledging = True
        await manager.break_off()
        await until("all acknowledged", lambda: len(manager.statuses()) >= 2 and not agent.unacknowledged)
        assert sorted(manager.statuses()) == [("lost", STARTING), ("superseded", RUNNING)]


async def test_another_manager_is_asked_when_one_has_gone(agent: Agent) -> None:
    managers = [Manager(), Manager()]
    async with serving(*managers) as addresses, talking(agent, addresses):
        await until("a session", lambda: managers[0].sessions + managers[1].sessions)
        first, second = sorted(managers, key=lambda manager: -manager.sessions)
        first.acknowledging = False
        agent.report("t")
        await until("the status", first.statuses)
        await first.break_off()
        await until("the status, elsewhere", second.statuses)
        assert (first.sessions, second.sessions) == (1, 1)


async def test_a_manager_that_does_not_answer_is_passed_over(agent: Agent) -> None:
    manager = Manager()
    async with serving(manager) as addresses, talking(agent, ["127.0.0.1:1", *addresses]):
        for sessions in (1, 2):
            await until("a session", lambda n=sessions: manager.sessions == n)  # type: ignore[misc]
            await manager.break_off()


async def test_managers_that_came_later_are_known(agent: Agent) -> None:
    later = Manager()
    async with serving(later) as added:
        first = Manager(info=pb.NodeInfo(managers=peers(*added)))
        async with serving(first) as addresses, talking(agent, addresses):
            await until("a session", lambda: first.sessions)
            await first.break_off()
            await until("a session with the one that came later", lambda: later.sessions)
            assert first.sessions == 1


async def test_any_manager_that_answers_is_told_goodbye(agent: Agent) -> None:
    manager = Manager()
    async with serving(manager) as addresses:
        silent = "127.0.0.1:1"
        told = Session(peers(silent, *addresses), None, NodeDescription, agent.reporter, agent.tell, agent.infos.append)
        await told.goodbye()
        assert manager.goodbyes == 1
    await told.goodbye()  # nobody is there: no error


async def test_fifty_broken_streams_lose_no_status_and_leave_no_task(agent: Agent) -> None:
    manager = Manager(acknowledging=False)
    async with serving(manager, manager) as addresses, talking(agent, addresses):
        await until("a session", lambda: manager.sessions)
        tasks = len(asyncio.all_tasks())
        for n in range(BREAKS):
            agent.report(f"t{n}")
            before = manager.sessions
            await manager.break_off()
            await until("the next session", lambda before=before: manager.sessions > before)  # type: ignore[misc]
        manager.acknowledging = True
        agent.report("last")
        await manager.break_off()
        await until("all said", lambda: len({id for id, _ in manager.statuses()}) == BREAKS + 1)
        await until("all acknowledged", lambda: not agent.unacknowledged)
        await until("as few tasks as before", lambda: len(asyncio.all_tasks()) <= tasks)
    await until("the end of all", lambda: manager.ended == manager.sessions)
