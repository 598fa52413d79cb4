"""Logs of a service from its nodes: whom a manager asks, and what it says of those that do not answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from swarmd.manager.ca.certifier import certify, new_root_ca
from swarmd.manager.control import logs
from swarmd.manager.control.logs import LogMerger
from swarmd.proto import control_pb2 as pb
from swarmd.proto import control_pb2_grpc, tls
from swarmd.proto.ca_pb2 import RenewRequest
from swarmd.proto.clock import SystemClock
from swarmd.proto.identity import IdentityFiles
from swarmd.proto.objects_pb2 import Cluster, ContainerStatus, Node, Service, ServiceSpec, Task, TaskStatus
from swarmd.proto.task_states import ASSIGNED, REJECTED, RUNNING
from tests.manager.records import node
from tests.manager.small_store import SmallStore


class Agent(control_pb2_grpc.AgentServicer):
    """Each task it is asked for says its name; those who follow are kept waiting."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def Logs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogBatch]:
        self.asked.append(list(request.task_ids))
        yield pb.LogBatch(entries=[pb.LogEntry(task_id=id, data=f"{id}\n".encode()) for id in request.task_ids])
        if request.follow:
            await asyncio.Event().wait()


@asynccontextmanager
async def served(agent: Agent, credentials: tls.Credentials) -> AsyncIterator[int]:
    server = aio.server()
    control_pb2_grpc.add_AgentServicer_to_server(agent, server)
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(lambda: credentials))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def task(id: str, node_id: str = "n1", container: str = "c1", state: Any = RUNNING) -> Task:
    status = TaskStatus(state=state, container=ContainerStatus(container_id=container))
    return Task(id=id, service_id="s1", slot=1, node_id=node_id, status=status)


@pytest.fixture
def credentials(tmp_path: Path) -> tls.Credentials:
    files, request = IdentityFiles(tmp_path), RenewRequest()
    files.sign_requests(request)
    cluster = Cluster(id="c1", root_ca=new_root_ca("c1"))
    files.save(certify(cluster, node("n1", manager=True), request, ()))
    return files.credentials()


def here(port: int) -> Node:
    made = node("n1", manager=True)
    made.description.addr, made.description.agent_port = "127.0.0.1", port
    return made


def merger(store: SmallStore, credentials: tls.Credentials) -> LogMerger:
    return LogMerger(store, SystemClock(), lambda: credentials)


def request(follow: bool = False) -> pb.LogsRequest:
    return pb.LogsRequest(task_ids=["t1"], service_refs=["s1"], follow=follow, stdout=True, stderr=True)


async def test_only_tasks_that_had_a_container_are_asked_for(credentials: tls.Credentials) -> None:
    agent = Agent()
    async with served(agent, credentials) as port:
        service = Service(id="s1", spec=ServiceSpec(name="web"))
        tasks = [task("t1"), task("t2", container="", state=ASSIGNED), task("t3", container="", state=REJECTED)]
        store = SmallStore(here(port), service, *tasks)
        async with asyncio.timeout(10):
            lines = [entry.data async for b in merger(store, credentials).merged(request()) for entry in b.entries]
    assert (agent.asked, lines) == ([["t1"]], [b"t1\n"])


async def test_following_takes_up_a_task_once_it_has_a_container(credentials: tls.Credentials) -> None:
    agent = Agent()
    async with served(agent, credentials) as port:
        store = SmallStore(
            here(port), Service(id="s1", spec=ServiceSpec(name="web")), task("t1"), task("t2", container="")
        )
        stream = merger(store, credentials).merged(request(follow=True))
        async with asyncio.timeout(10):
            assert [entry.data for entry in (await anext(stream)).entries] == [b"t1\n"]
            store.put(task("t2", container="c2"))
            assert [entry.data for entry in (await anext(stream)).entries] == [b"t2\n"]
        await stream.aclose()  # type: ignore[attr-defined]


async def test_nodes_that_are_gone_or_silent_are_notices(
    credentials: tls.Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "READY", 0.1)
    service = Service(id="s1", spec=ServiceSpec(name="web"))
    store = SmallStore(here(1), service, task("t1"), task("t2", node_id="n2"))
    async with asyncio.timeout(10):
        entries = [entry async for b in merger(store, credentials).merged(request()) for entry in b.entries]
    assert {entry.stream for entry in entries} == {pb.LOG_STREAM_NOTICE}
    assert {entry.data for entry in entries} == {
        b"node host-n1 can't be reached at 127.0.0.1:1: its logs are missing\n",
        b"node n2 was removed, and the logs of its tasks with it\n",
    }
