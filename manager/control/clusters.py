"""The one cluster object: its settings, and the rotation of join tokens.  Its keys never leave by the API."""

from swarmd.manager.ca.authority import MINIMUM_NODE_VALIDITY
from swarmd.manager.ca.certifier import the_cluster
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Tx
from swarmd.proto import join_token
from swarmd.proto.errors import Conflict, Invalid
from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER, Cluster, ClusterSpec, NodeRole

MIN_HEARTBEAT = 100_000_000  # ns
MIN_NODE_VALIDITY = int(MINIMUM_NODE_VALIDITY.total_seconds()) * 1_000_000_000


def update(tx: Tx, wanted: Cluster, rollback: bool, now: int) -> Cluster:
    if rollback:
        raise Invalid("the cluster has no rollback")
    cluster = the_cluster(tx)
    if wanted.version.index != cluster.version.index:
        raise Conflict("update out of sequence: the cluster was changed meanwhile; read it again")
    validate(wanted.spec)
    changed = edited(cluster)
    changed.spec.CopyFrom(wanted.spec)
    tx.put(changed)
    return changed


def validate(spec: ClusterSpec) -> None:
    if spec.name not in ("", "default"):
        raise Invalid(f"the cluster is always named default, not {spec.name!r}")
    if spec.dispatcher.HasField("heartbeat_period") and spec.dispatcher.heartbeat_period < MIN_HEARTBEAT:
        raise Invalid("the heartbeat period is too short: at least 100 ms")
    if spec.ca_config.HasField("node_cert_expiry") and spec.ca_config.node_cert_expiry < MIN_NODE_VALIDITY:
        raise Invalid("the expiry of node certificates is too short: at least 1 h")


def rotate(tx: Tx, role: NodeRole.ValueType) -> Cluster:
    """Give the cluster a new token for a role; the old one is worth nothing from then on."""
    cluster = edited(the_cluster(tx))
    token = str(join_token.new(cluster.root_ca.certificate))
    if role == NODE_ROLE_MANAGER:
        cluster.root_ca.manager_token = token
    else:
        cluster.root_ca.worker_token = token
    tx.put(cluster)
    return cluster


def shown(cluster: Cluster) -> Cluster:
    copy = edited(cluster)
    copy.root_ca.ClearField("key")
    copy.root_ca.ClearField("etcd_key")
    return copy
