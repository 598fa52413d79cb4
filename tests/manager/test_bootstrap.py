"""What a new cluster begins with, and what it is refused."""

from pathlib import Path

import pytest

from swarmd.manager import bootstrap
from swarmd.proto.errors import Invalid
from swarmd.proto.identity import IdentityFiles
from swarmd.proto.ids import new_id
from swarmd.proto.objects_pb2 import NODE_AVAILABILITY_ACTIVE, NODE_ROLE_MANAGER, Cluster, ClusterSpec, Network, Node


def prepare(directory: Path, pools: tuple[str, ...] = (), subnet_size: int = 0) -> list[bootstrap.Begin]:
    files = IdentityFiles(directory)
    spec = ClusterSpec()
    return bootstrap.prepare(files, new_id, spec, "one", "10.0.0.1", NODE_AVAILABILITY_ACTIVE, pools, subnet_size)


def test_a_cluster_begins_with_itself_a_manager_and_the_ingress_network(tmp_path: Path) -> None:
    cluster, node, ingress = prepare(tmp_path / "cluster")
    identity = IdentityFiles(tmp_path / "cluster").load()
    assert identity is not None
    assert isinstance(cluster, Cluster)
    assert list(cluster.default_addr_pool) == ["10.0.0.0/8"]
    assert isinstance(node, Node)
    assert (identity.cluster_id, identity.node_id, identity.role) == (cluster.id, node.id, NODE_ROLE_MANAGER)
    assert identity.etcd_certificate
    assert isinstance(ingress, Network)
    assert ingress.spec.ingress


@pytest.mark.parametrize(
    ("pools", "size", "sentence"), [(("10.0.0.1/8",), 24, "CIDR form"), (("10.0.0.0/24",), 20, "from 24 to 29")]
)
def test_pools_that_can_t_be_cut_leave_nothing(
    tmp_path: Path, pools: tuple[str, ...], size: int, sentence: str
) -> None:
    with pytest.raises(Invalid, match=sentence):
        prepare(tmp_path / "cluster", pools, size)
    assert not (tmp_path / "cluster").exists()
