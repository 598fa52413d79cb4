"""An etcd that is not the managers' own, as a real process over mTLS: what is checked, and the store below a prefix."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from swarmd.manager import backend, bootstrap, external_etcd
from swarmd.manager.store.etcd import open_store
from swarmd.manager.store.etcd_client import EtcdClient
from swarmd.manager.store.interface import Tx
from swarmd.proto.clock import SystemClock
from swarmd.proto.errors import AlreadyExists, FailedPrecondition, Invalid, Unavailable
from swarmd.proto.identity import IdentityFiles
from swarmd.proto.ids import new_id
from swarmd.proto.objects_pb2 import NODE_AVAILABILITY_ACTIVE, Cluster, ClusterSpec, ExternalEtcd, Service
from tests.contracts.etcd_server import EtcdCluster, one_member


def described(cluster: EtcdCluster, *urls: str, prefix: str = "/swarmd") -> ExternalEtcd:
    tls = cluster.tls
    return ExternalEtcd(
        endpoints=urls, root_certificate=tls.root, certificate=tls.certificate, key=tls.key, prefix=prefix
    )


def place(directory: Path, begin: bool) -> SimpleNamespace:
    return SimpleNamespace(directory=directory, address="127.0.0.1", bootstrap={} if begin else None)


async def test_two_managers_use_one_store_and_a_second_cluster_is_refused_by_name(tmp_path: Path) -> None:
    async with one_member(tmp_path) as (cluster, member, _):
        files = IdentityFiles(tmp_path / "node")
        etcd = described(cluster, member.client_url, prefix="/here/it.is")
        begin = bootstrap.prepare(files, new_id, ClusterSpec(), "one", "127.0.0.1", NODE_AVAILABILITY_ACTIVE, etcd=etcd)
        identity = files.load()
        assert identity is not None
        assert identity.external_etcd == etcd
        async with (
            backend.opened(place(tmp_path, True), files, identity, SystemClock()) as first,
            first.election.campaign("one"),
        ):
            await bootstrap.settle(first.store, begin)
            async with backend.opened(place(tmp_path, False), files, identity, SystemClock()) as second:
                assert [found.id for found in second.store.view().find(Cluster)] == [identity.cluster_id]
                assert await second.election.leader() == "one"
        with pytest.raises(AlreadyExists, match=f"already holds cluster {identity.cluster_id} under /here/it.is"):
            async with backend.opened(place(tmp_path, True), files, identity, SystemClock()):
                raise AssertionError("a second cluster began")


async def test_prefixes_keep_stores_apart(tmp_path: Path) -> None:
    async with (
        one_member(tmp_path) as (_, _, client),
        open_store(client, SystemClock(), prefix="/a") as a,
        open_store(client, SystemClock(), prefix="/ab") as ab,
    ):

        def put(tx: Tx) -> None:
            tx.put(Service(id="one"))

        await a.transact(put)
        assert [service.id for service in a.view().find(Service)] == ["one"]
        await external_etcd.refuse_inhabited(client, "/ab")
        assert not ab.view().find(Service)


async def test_endpoints_that_do_not_answer_are_named(tmp_path: Path) -> None:
    cluster = EtcdCluster(tmp_path)
    silent = cluster.member(9).client_url
    async with EtcdClient([silent], cluster.tls) as client:
        with pytest.raises(Unavailable, match=f"external etcd does not answer at {silent}"):
            await external_etcd.check(client)


async def test_one_endpoint_of_two_is_enough_unless_its_version_corrupts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with one_member(tmp_path) as (cluster, member, _):
        silent = cluster.member(9).client_url
        async with EtcdClient([silent, member.client_url], cluster.tls) as client:
            await external_etcd.check(client)

            async def corrupting(url: str) -> SimpleNamespace:
                return SimpleNamespace(version="3.5.1")

            monkeypatch.setattr(client, "status", corrupting)
            with pytest.raises(FailedPrecondition, match=r"etcd 3\.5\.1 can corrupt data"):
                await external_etcd.check(client)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("endpoints", [], "needs endpoints"),
        ("endpoints", ["http://127.0.0.1:2379"], "must be https://HOST:PORT"),
        ("prefix", "/swarmd/", "must be like /swarmd"),
        ("certificate", b"", "certificate of the external etcd is missing or not PEM"),
        ("key", b"", "key of the external etcd is missing"),
    ],
)
def test_what_can_t_be_used_is_refused_by_name(tmp_path: Path, field: str, value: object, sentence: str) -> None:
    cluster = EtcdCluster(tmp_path)
    etcd = described(cluster, cluster.member(1).client_url)
    external_etcd.validate(etcd)
    etcd.ClearField(field)  # type: ignore[arg-type]
    if isinstance(value, list):
        etcd.endpoints.extend(value)
    else:
        setattr(etcd, field, value)
    with pytest.raises(Invalid, match=sentence):
        external_etcd.validate(etcd)
