"""The control API over real mTLS gRPC: errors arrive as they were raised, and only managers may call."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from swarmd.agent.control_client import ControlClient
from swarmd.agent.manager_process import ManagerState
from swarmd.manager.ca.certifier import certify, new_root_ca
from swarmd.manager.control.logs import LogMerger
from swarmd.manager.control.service import ControlService
from swarmd.manager.interceptor import ErrorInterceptor
from swarmd.manager.store.edit import edited
from swarmd.proto import control_pb2 as pb
from swarmd.proto import control_pb2_grpc, tls
from swarmd.proto.ca_pb2 import RenewRequest
from swarmd.proto.clock import SystemClock
from swarmd.proto.errors import AlreadyExists, Denied, Invalid, NotFound, SwarmdError, Unavailable
from swarmd.proto.identity import IdentityFiles
from swarmd.proto.objects_pb2 import (
    NODE_ROLE_WORKER,
    Cluster,
    ContainerSpec,
    Node,
    Object,
    Service,
    ServiceSpec,
    TaskSpec,
)
from tests.manager.records import Records, node

Credentials = Callable[[Node], tls.Credentials]


@pytest.fixture
def records() -> Records:
    return Records(Cluster(id="c1", root_ca=new_root_ca("c1")), node("n1", manager=True), node("n2"))


@pytest.fixture
def credentials(records: Records, tmp_path: Path) -> Credentials:
    def make(holder: Node) -> tls.Credentials:
        files, request = IdentityFiles(tmp_path / holder.id), RenewRequest()
        files.sign_requests(request)
        files.save(certify(records.find(Cluster)[0], holder, request, ()))
        return files.credentials()

    return make


class Leading:
    async def leader(self) -> str:
        return "n1"


async def unsound() -> str:
    return "its disk is full"


@asynccontextmanager
async def served(
    records: Any, credentials: Credentials, port: int = 0, problem: Callable[[], Awaitable[str]] = unsound
) -> AsyncIterator[str]:
    mine = credentials(records.find(Node)[0])

    async def explain(error: SwarmdError) -> str:
        return str(error)

    server = aio.server(interceptors=(ErrorInterceptor("c1", explain),))
    logs = LogMerger(records, SystemClock(), lambda: mine)
    service = ControlService(records, Leading(), SystemClock(), lambda: "s1", logs, problem)  # type: ignore[arg-type]
    control_pb2_grpc.add_ControlServicer_to_server(service, server)
    port = server.add_secure_port(f"127.0.0.1:{port}", tls.server_credentials(lambda: mine))
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def client(records: Records, credentials: Credentials, holder: int = 0) -> AsyncIterator[ControlClient]:
    async with served(records, credentials) as address:
        made = ControlClient(address, credentials(records.find(Node)[holder]), ManagerState())
        try:
            yield made
        finally:
            await made.close(0)


def creation(name: str = "web", image: str = "demo") -> pb.CreateRequest:
    spec = ServiceSpec(name=name, task=TaskSpec(container=ContainerSpec(image=image)))
    return pb.CreateRequest(object=Object(service=Service(spec=spec)))


async def test_the_life_of_a_service(records: Records, credentials: Credentials) -> None:
    async with client(records, credentials) as control:
        created = (await control.Create(creation())).object.service
        assert created.version.index == records.revision
        with pytest.raises(AlreadyExists, match="service web exists already"):
            await control.Create(creation())
        created.spec.mode.replicated.replicas = 3
        updated = (await control.Update(pb.UpdateRequest(object=Object(service=created)))).object.service
        assert updated.spec.mode.replicated.replicas == 3
        listed = [
            obj.service.id
            async for batch in control.List(pb.ListRequest(kind=pb.KIND_SERVICE))
            for obj in batch.objects
        ]
        assert listed == ["s1"]
        assert (await control.Remove(pb.RemoveRequest(kind=pb.KIND_SERVICE, ref="web"))).id == "s1"


async def test_refusals_arrive_as_they_were_raised(records: Records, credentials: Credentials) -> None:
    async with client(records, credentials) as control:
        with pytest.raises(NotFound, match="no such service: nope"):
            await control.Get(pb.GetRequest(kind=pb.KIND_SERVICE, ref="nope"))
        with pytest.raises(Invalid, match="image 'Bad'"):
            await control.Create(creation(image="Bad"))
        with pytest.raises(Invalid, match="no objects of kind secret"):
            await control.Get(pb.GetRequest(kind=pb.KIND_SECRET, ref="x"))
        with pytest.raises(NotFound, match="no such service: nope"):
            async for _ in control.Logs(pb.LogsRequest(service_refs=["nope"])):
                pass


async def test_only_managers_may_call(records: Records, credentials: Credentials) -> None:
    async with client(records, credentials, holder=1) as control:
        with pytest.raises(Denied, match="node n2 is not a manager"):
            await control.Status(pb.StatusRequest())


async def test_a_demoted_manager_s_certificate_is_not_enough(records: Records, credentials: Credentials) -> None:
    async with client(records, credentials) as control:
        status = await control.Status(pb.StatusRequest())
        assert (status.leader_node_id, status.quorum, status.problem) == ("n1", True, "its disk is full")
        demoted = edited(records.find(Node)[0])
        demoted.spec.role = NODE_ROLE_WORKER
        records.put(demoted)
        with pytest.raises(Denied, match="not a manager"):
            await control.Status(pb.StatusRequest())


async def test_no_manager_at_all_is_one_sentence(
    records: Records, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ControlClient, "CONNECT", 0.1)
    monkeypatch.setattr(ControlClient, "START", 0.1)
    manager = ManagerState()
    control = ControlClient("127.0.0.1:1", credentials(records.find(Node)[0]), manager)
    with pytest.raises(Unavailable, match="this node's manager does not answer: try again"):
        await control.Status(pb.StatusRequest())
    manager.start = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match=r"does not answer .it is still starting, and has to wait while most"):
        await control.Status(pb.StatusRequest())
    manager.problem = "its port is taken"
    with pytest.raises(Unavailable, match=r"does not answer .its port is taken."):
        await control.Status(pb.StatusRequest())
    await control.close(0)


async def test_a_manager_that_is_being_started_is_waited_for(
    records: Records, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ControlClient, "CONNECT", 0.05)
    manager = ManagerState(start=asyncio.get_running_loop().time())
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    control = ControlClient(f"127.0.0.1:{port}", credentials(records.find(Node)[0]), manager)
    answer = asyncio.create_task(control.Status(pb.StatusRequest()))
    done, _ = await asyncio.wait({answer}, timeout=5 * ControlClient.CONNECT)
    assert not done, "it gave up"
    async with served(records, credentials, port):
        assert (await answer).quorum
    await control.close(0)


async def test_a_manager_that_ends_before_it_answers_is_asked_again_or_the_outcome_said_to_be_unknown(
    records: Records, credentials: Credentials
) -> None:
    asked = asyncio.Semaphore(0)

    async def never(_: object = None) -> str:
        asked.release()
        await asyncio.Event().wait()
        return ""

    async with served(records, credentials, problem=never) as address:
        control = ControlClient(address, credentials(records.find(Node)[0]), ManagerState())
        status = asyncio.create_task(control.Status(pb.StatusRequest()))
        await asked.acquire()
        records.transact = never  # type: ignore[method-assign]
        created = asyncio.create_task(control.Create(creation()))
        await asked.acquire()
    async with served(records, credentials, int(address.partition(":")[2])):
        assert (await status).quorum
        with pytest.raises(Unavailable, match="ended before it answered: what was asked may or may not be done"):
            await created
    await control.close(0)
