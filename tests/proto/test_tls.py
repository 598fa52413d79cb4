"""Who a certificate says its holder is, and that only holders of the cluster's certificates get through."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from swarmd.manager.ca.authority import Authority, Subject
from swarmd.proto import ca_pb2_grpc, tls
from swarmd.proto.ca_pb2 import Identity, RenewRequest
from swarmd.proto.errors import Denied
from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER, NODE_ROLE_WORKER


def credentials(authority: Authority, node_id: str, unit: str = tls.WORKER_NAME) -> tls.Credentials:
    key = tls.new_key()
    subject = Subject(node_id, unit, "cluster1", (node_id, unit), ("127.0.0.1",))
    return tls.Credentials(authority.certify(tls.signing_request(key), subject), key, authority.certificate)


@pytest.fixture
def authority() -> Authority:
    return Authority.create("root", "cluster1")


def test_a_certificate_says_node_role_and_cluster(authority: Authority) -> None:
    manager = credentials(authority, "n1", tls.MANAGER_NAME)
    assert tls.certificate_identity(manager.certificate) == tls.Identity("n1", NODE_ROLE_MANAGER, "cluster1")
    worker = credentials(authority, "n2")
    assert tls.certificate_identity(worker.certificate).role == NODE_ROLE_WORKER


@pytest.mark.parametrize("unit", ["", "swarmd-king"])
def test_a_certificate_of_no_node_is_denied(authority: Authority, unit: str) -> None:
    key = tls.new_key()
    certificate = authority.certify(tls.signing_request(key), Subject("n1", unit, "cluster1", ("n1",)))
    with pytest.raises(Denied, match="not that of a node"):
        tls.certificate_identity(certificate)


class Echo(ca_pb2_grpc.CAServicer):
    async def Renew(self, request: RenewRequest, context: Any) -> Identity:
        caller = tls.peer_identity(context)
        return Identity(node_id=caller.node_id, role=caller.role, cluster_id=caller.cluster_id)


@asynccontextmanager
async def served(holder: list[tls.Credentials]) -> AsyncIterator[str]:
    server = aio.server()
    ca_pb2_grpc.add_CAServicer_to_server(Echo(), server)
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(lambda: holder[0]))
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def call(address: str, mine: tls.Credentials, name: str = tls.MANAGER_NAME) -> Identity:
    async with aio.secure_channel(address, tls.channel_credentials(mine), options=tls.channel_options(name)) as channel:
        return await ca_pb2_grpc.CAStub(channel).Renew(RenewRequest(), timeout=5)


async def test_peers_are_known_by_their_certificates(authority: Authority) -> None:
    async with served([credentials(authority, "m1", tls.MANAGER_NAME)]) as address:
        assert (await call(address, credentials(authority, "w1"))).node_id == "w1"


async def test_a_certificate_of_another_root_is_rejected(authority: Authority) -> None:
    other = credentials(Authority.create("root", "cluster1"), "w1")
    mixed = tls.Credentials(other.certificate, other.key, authority.certificate)
    async with served([credentials(authority, "m1", tls.MANAGER_NAME)]) as address:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(address, mixed)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_worker_can_t_pose_as_a_manager(authority: Authority) -> None:
    async with served([credentials(authority, "w1")]) as address:
        with pytest.raises(grpc.aio.AioRpcError):
            await call(address, credentials(authority, "w2"))


async def test_a_renewed_certificate_is_served_without_a_restart(authority: Authority) -> None:
    holder = [credentials(authority, "m1", tls.MANAGER_NAME)]
    async with served(holder) as address:
        await call(address, credentials(authority, "w1"), "m1")
        holder[0] = credentials(authority, "m2", tls.MANAGER_NAME)
        await call(address, credentials(authority, "w1"), "m2")


def test_https_contexts_speak_only_tls_1_3(authority: Authority, tmp_path: Path) -> None:
    mine = credentials(authority, "m1", tls.MANAGER_NAME)
    certificate, key = tmp_path / "crt", tmp_path / "key"
    certificate.write_bytes(mine.certificate)
    key.write_bytes(mine.key)
    assert tls.https_server_context(certificate, key).minimum_version == ssl.TLSVersion.TLSv1_3
    client = tls.https_client_context(authority.certificate)
    assert client.check_hostname
    assert len(client.get_ca_certs()) == 1
