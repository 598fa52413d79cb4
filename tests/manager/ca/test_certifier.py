"""Who is admitted, in which role, and who is not."""

import pytest
from cryptography import x509

from swarmd.manager.ca.certifier import Certifier, new_root_ca
from swarmd.manager.store.edit import edited
from swarmd.proto import join_token, tls
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.ca_pb2 import Identity, JoinRequest, RenewRequest
from swarmd.proto.errors import Denied, Invalid
from tests.manager.records import Records, node


@pytest.fixture
def records() -> Records:
    return Records(pb.Cluster(id="c1", root_ca=new_root_ca("c1")), node("n1", manager=True, member=7))


@pytest.fixture
def certifier(records: Records) -> Certifier:
    return Certifier(records, lambda: "new")  # type: ignore[arg-type]


def cluster(records: Records) -> pb.Cluster:
    (found,) = records.find(pb.Cluster)
    return found


def request(token: str, addr: str = "10.0.0.2") -> JoinRequest:
    csr = tls.signing_request(tls.new_key())
    return JoinRequest(token=token, csr=csr, etcd_csr=csr, hostname="two", addr=addr)


def issuer(certificate: bytes) -> str:
    return x509.load_pem_x509_certificate(certificate).issuer.rfc4514_string()


async def test_the_token_gives_the_role(records: Records, certifier: Certifier) -> None:
    worker = await certifier.admit(request(cluster(records).root_ca.worker_token))
    assert tls.certificate_identity(worker.certificate) == tls.Identity("new", pb.NODE_ROLE_WORKER, "c1")
    assert not worker.etcd_certificate
    assert [peer.addr for peer in worker.managers] == ["n1:2378"]
    manager = await certifier.admit(request(cluster(records).root_ca.manager_token))
    assert manager.role == pb.NODE_ROLE_MANAGER
    assert list(manager.etcd_endpoints) == ["https://10.0.0.1:2379"]
    assert issuer(manager.etcd_certificate) != issuer(manager.certificate)
    joined = records.get(pb.Node, "new")
    assert joined is not None
    assert (joined.description.hostname, joined.description.addr) == ("two", "10.0.0.2")


async def test_wrong_foreign_and_revoked_tokens_add_no_node(records: Records, certifier: Certifier) -> None:
    valid = cluster(records).root_ca.worker_token
    for token, sentence in (
        (str(join_token.new(cluster(records).root_ca.certificate)), "wrong, or was revoked"),
        (str(join_token.new(b"another root")), "of another cluster"),
    ):
        with pytest.raises(Denied, match=sentence):
            await certifier.admit(request(token))
    with pytest.raises(Invalid, match="by which IP address"):
        await certifier.admit(request(valid, addr="two.example"))
    assert [found.id for found in records.find(pb.Node)] == ["n1"]


async def renewed(certifier: Certifier) -> Identity:
    csr = tls.signing_request(tls.new_key())
    return await certifier.renew("n1", RenewRequest(csr=csr, etcd_csr=csr))


async def test_renewal_follows_the_role_the_node_has_now(records: Records, certifier: Certifier) -> None:
    assert (await renewed(certifier)).role == pb.NODE_ROLE_MANAGER
    demoted = edited(records.find(pb.Node)[0])
    demoted.spec.role = pb.NODE_ROLE_WORKER
    records.put(demoted)
    assert not (await renewed(certifier)).etcd_certificate
    assert records.find(pb.Node)[0].certified_role == pb.NODE_ROLE_WORKER


async def test_a_removed_node_is_not_certified_again(records: Records, certifier: Certifier) -> None:
    records.delete(records.find(pb.Node)[0])
    with pytest.raises(Denied, match="was removed"):
        await renewed(certifier)
