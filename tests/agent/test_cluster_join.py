"""A node joins over HTTPS: what it checks before it trusts, and what a refusal reads like."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from swarmd.agent import join as joining
from swarmd.manager.ca.certifier import Certifier, certify, new_root_ca
from swarmd.manager.ca.join import BURST, join_app
from swarmd.proto import objects_pb2 as pb
from swarmd.proto import tls
from swarmd.proto.ca_pb2 import Identity, JoinRequest, RenewRequest
from swarmd.proto.errors import Denied, Exhausted, FailedPrecondition, Invalid, SwarmdError, Unavailable
from swarmd.proto.identity import IdentityFiles
from swarmd.proto.ids import new_id
from tests.manager.records import Records, node


@pytest.fixture
def cluster() -> pb.Cluster:
    return pb.Cluster(id="c1", root_ca=new_root_ca("c1"))


@pytest.fixture
async def manager(cluster: pb.Cluster, tmp_path: Path) -> AsyncIterator[str]:
    """host:port of a manager's join endpoint."""
    first = node("n1", manager=True)
    files, request = IdentityFiles(tmp_path / "manager"), RenewRequest()
    files.sign_requests(request)
    files.save(certify(cluster, first, request, ()))
    certifier = Certifier(Records(cluster, first), new_id)  # type: ignore[arg-type]
    runner = web.AppRunner(join_app(certifier))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.https_server_context(files.certificate, files.key))
    await site.start()
    yield "127.0.0.1:{1}".format(*runner.addresses[0])
    await runner.cleanup()


@pytest.fixture
def files(tmp_path: Path) -> IdentityFiles:
    return IdentityFiles(tmp_path / "node")


async def join(remotes: list[str], files: IdentityFiles, token: str) -> Identity:
    request = JoinRequest(token=token, hostname="two", addr="10.0.0.2")
    files.sign_requests(request)
    return await joining.join(remotes, request)


async def test_a_node_joins_and_keeps_its_identity(manager: str, files: IdentityFiles, cluster: pb.Cluster) -> None:
    identity = await join([manager], files, cluster.root_ca.worker_token)
    files.save(identity)
    assert files.load() == identity
    held = files.credentials()
    assert tls.certificate_identity(held.certificate).node_id == identity.node_id
    tls.channel_credentials(held)
    assert {path.stat().st_mode & 0o777 for path in files.directory.iterdir()} == {0o600}


async def test_a_manager_that_does_not_answer_is_passed_over(
    manager: str, files: IdentityFiles, cluster: pb.Cluster
) -> None:
    assert (await join(["127.0.0.1:1", manager], files, cluster.root_ca.worker_token)).node_id
    with pytest.raises(Unavailable, match=r"can't join by 127\.0\.0\.1:1: connection refused"):
        await join(["127.0.0.1:1"], files, cluster.root_ca.worker_token)


async def test_a_token_of_another_cluster_never_reaches_this_one(
    manager: str, files: IdentityFiles, cluster: pb.Cluster
) -> None:
    with pytest.raises(Denied, match="of another cluster"):
        await join([manager], files, new_root_ca("c2").worker_token)


@pytest.mark.parametrize("token", ["", "nonsense"])
async def test_a_malformed_token_is_not_sent(files: IdentityFiles, token: str) -> None:
    with pytest.raises(Invalid, match="malformed"):
        await join(["127.0.0.1:1"], files, token)


@pytest.mark.parametrize(
    ("offset", "sentence"), [(3600, "1 h ahead of"), (-5400, "1 h 30 min behind"), (86400 * 3 + 7200, "3 d 2 h ahead")]
)
async def test_a_clock_that_is_off_is_named(
    manager: str,
    files: IdentityFiles,
    cluster: pb.Cluster,
    monkeypatch: pytest.MonkeyPatch,
    offset: int,
    sentence: str,
) -> None:
    real = time.time
    monkeypatch.setattr(joining, "now", lambda: real() + offset)
    with pytest.raises(FailedPrecondition, match=sentence):
        await join([manager], files, cluster.root_ca.worker_token)


async def test_guessing_is_slowed_down(
    manager: str, files: IdentityFiles, cluster: pb.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmd.manager.ca.join.REFILL", 1e-6)  # however long these take
    wrong = cluster.root_ca.worker_token[:-5] + "00000"
    refusals: list[type[SwarmdError]] = []
    for _ in range(int(BURST) + 2):
        with pytest.raises(SwarmdError) as refused:
            await join([manager], files, wrong)
        refusals.append(refused.type)
    assert refusals[0] is Denied
    assert refusals[-1] is Exhausted
