"""The first manager of a new cluster: its authorities, its own certificates, and the objects every cluster begins with.

`prepare` writes the identity files before etcd starts, since etcd needs certificates; `settle` writes the objects
once the store answers.
"""

import ipaddress
from collections.abc import Callable

from swarmd.manager import external_etcd
from swarmd.manager.ca.certifier import certify, new_root_ca
from swarmd.manager.store.interface import Store, Tx
from swarmd.proto.ca_pb2 import RenewRequest
from swarmd.proto.errors import Invalid
from swarmd.proto.identity import IdentityFiles
from swarmd.proto.objects_pb2 import (
    NODE_ROLE_MANAGER,
    Cluster,
    ClusterSpec,
    ExternalEtcd,
    Network,
    NetworkSpec,
    Node,
    NodeAvailability,
    NodeDescription,
    NodeSpec,
    NodeStatus,
)

Begin = Cluster | Node | Network
DEFAULT_POOL = "10.0.0.0/8"
DEFAULT_SUBNET_SIZE = 20
DEFAULT_DATA_PATH_PORT = 4789
SMALLEST_SUBNET = 29


def prepare(
    files: IdentityFiles,
    new_id: Callable[[], str],
    spec: ClusterSpec,
    hostname: str,
    address: str,
    availability: NodeAvailability.ValueType,
    pools: tuple[str, ...] = (),
    subnet_size: int = 0,
    etcd: ExternalEtcd | None = None,
) -> list[Begin]:
    """Make the cluster's authorities and this node's identity; return the objects to settle in the store."""
    _check_pools(pools, subnet_size or DEFAULT_SUBNET_SIZE)
    cluster = Cluster(id=new_id(), spec=spec, default_addr_pool=pools or (DEFAULT_POOL,))
    cluster.spec.name = "default"
    cluster.subnet_size = subnet_size or DEFAULT_SUBNET_SIZE
    cluster.data_path_port = DEFAULT_DATA_PATH_PORT
    cluster.root_ca.CopyFrom(new_root_ca(cluster.id))
    if etcd is not None:
        external_etcd.validate(etcd)
        cluster.external_etcd.CopyFrom(etcd)
    node = Node(
        id=new_id(),
        spec=NodeSpec(role=NODE_ROLE_MANAGER, availability=availability),
        description=NodeDescription(hostname=hostname, addr=address),
        status=NodeStatus(addr=address),
        certified_role=NODE_ROLE_MANAGER,
    )
    ingress = Network(id=new_id(), spec=NetworkSpec(name="ingress", driver="overlay", ingress=True))
    request = RenewRequest()
    files.sign_requests(request)
    files.save(certify(cluster, node, request, ()))
    return [cluster, node, ingress]


def _check_pools(pools: tuple[str, ...], subnet_size: int) -> None:
    for pool in pools:
        try:
            network = ipaddress.IPv4Network(pool)
        except ValueError:
            raise Invalid(f"address pool {pool!r} is not an IPv4 network in CIDR form, such as 10.0.0.0/8") from None
        if not network.prefixlen <= subnet_size <= SMALLEST_SUBNET:
            raise Invalid(
                f"subnets of /{subnet_size} can't be cut from address pool {pool}: "
                f"choose a size from {network.prefixlen} to {SMALLEST_SUBNET}"
            )


async def settle(store: Store, objects: list[Begin]) -> None:
    def put(tx: Tx) -> None:
        for obj in objects:
            tx.put(obj)

    await store.transact(put)
