"""Decides who gets which certificate: admits joining nodes, renews those of members.

The node's role comes from its token when it joins and from `Node.spec.role` ever after.  Served to joining nodes by
join.py, to members by service.py.
"""

import hmac
import ipaddress
from collections.abc import Callable, Iterable
from datetime import timedelta

from swarmd.manager.ca.authority import DEFAULT_NODE_VALIDITY, Authority, Subject
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Store, Tx, View
from swarmd.proto import join_token
from swarmd.proto.ca_pb2 import Identity, JoinRequest, RenewRequest
from swarmd.proto.dispatcher_pb2 import ManagerPeer
from swarmd.proto.errors import Denied, Invalid, Unavailable
from swarmd.proto.objects_pb2 import (
    NODE_ROLE_MANAGER,
    NODE_ROLE_WORKER,
    Cluster,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeStatus,
    RootCA,
)
from swarmd.proto.tls import ROLE_NAMES

ETCD_PORT = 2379


class Certifier:
    def __init__(self, store: Store, new_id: Callable[[], str]) -> None:
        self._store = store
        self._new_id = new_id

    def root_certificate(self) -> bytes:
        return the_cluster(self._store.view()).root_ca.certificate

    async def admit(self, request: JoinRequest) -> Identity:
        """Make a joining node a member, in the role that its token is for."""
        node_id = self._new_id()
        address = _address(request.addr)

        def add(tx: Tx) -> Node:
            node = Node(
                id=node_id,
                spec=NodeSpec(role=_role(request.token, the_cluster(tx)), availability=request.availability),
                description=NodeDescription(hostname=request.hostname, addr=address),
                status=NodeStatus(addr=address),
            )
            node.certified_role = node.spec.role
            tx.put(node)
            return node

        return self._certify(await self._store.transact(add), request)

    async def renew(self, node_id: str, request: RenewRequest) -> Identity:
        """Certify a member again, in the role that it now has."""

        def note(tx: Tx) -> Node:
            node = tx.get(Node, node_id)
            if node is None:
                raise Denied(
                    f"node {node_id} was removed from the cluster: run 'swarmctl swarm leave --force' there, then join"
                )
            if node.certified_role != node.spec.role:
                node = edited(node)
                node.certified_role = node.spec.role
                tx.put(node)
            return node

        return self._certify(await self._store.transact(note), request)

    def _certify(self, node: Node, request: JoinRequest | RenewRequest) -> Identity:
        view = self._store.view()
        return certify(the_cluster(view), node, request, view.find(Node))


def certify(cluster: Cluster, node: Node, request: JoinRequest | RenewRequest, members: Iterable[Node]) -> Identity:
    """Sign the keys of a node; those for etcd only if it is a manager."""
    ca = cluster.root_ca
    role, address = node.spec.role, node.description.addr
    names = (node.id, ROLE_NAMES[role])
    subject = Subject(node.id, ROLE_NAMES[role], cluster.id, names, (address,))
    validity = node_validity(cluster)
    identity = Identity(
        cluster_id=cluster.id,
        node_id=node.id,
        role=role,
        certificate=Authority(ca.certificate, ca.key).certify(request.csr, subject, validity),
        root_certificate=ca.certificate,
    )
    managers = [member for member in members if member.manager_status.addr]
    identity.managers.extend(ManagerPeer(node_id=member.id, addr=member.manager_status.addr) for member in managers)
    if role == NODE_ROLE_MANAGER:
        # etcd, a Go program, dials itself and its clients by these addresses.
        etcd = Subject(node.id, "", cluster.id, (node.id, "localhost"), tuple({address: 0, "127.0.0.1": 0}))
        identity.etcd_certificate = Authority(ca.etcd_certificate, ca.etcd_key).certify(
            request.etcd_csr, etcd, validity
        )
        identity.etcd_root_certificate = ca.etcd_certificate
        if cluster.HasField("external_etcd"):
            identity.external_etcd.CopyFrom(cluster.external_etcd)
        hosts = [member.description.addr for member in managers if member.etcd_member_id]
        identity.etcd_endpoints.extend(f"https://{host_port(host, ETCD_PORT)}" for host in hosts)
    return identity


def node_validity(cluster: Cluster) -> timedelta:
    config = cluster.spec.ca_config
    if not config.HasField("node_cert_expiry"):
        return DEFAULT_NODE_VALIDITY
    return timedelta(microseconds=config.node_cert_expiry // 1000)


def new_root_ca(cluster_id: str) -> RootCA:
    """The authorities of a new cluster and its join tokens."""
    root = Authority.create("swarmd-root", cluster_id)
    etcd = Authority.create("swarmd-etcd-root", cluster_id)
    return RootCA(
        certificate=root.certificate,
        key=root.key,
        etcd_certificate=etcd.certificate,
        etcd_key=etcd.key,
        worker_token=str(join_token.new(root.certificate)),
        manager_token=str(join_token.new(root.certificate)),
    )


def the_cluster(view: View) -> Cluster:
    """The one cluster object; Unavailable while this manager has not yet read it."""
    for cluster in view.find(Cluster):
        return cluster
    raise Unavailable("this manager has not yet read the cluster's state: try again in a moment")


def host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _role(token: str, cluster: Cluster) -> NodeRole.ValueType:
    presented = join_token.parse(token)
    if not presented.pins(cluster.root_ca.certificate):
        raise Denied("the join token is of another cluster: use one that this cluster's managers print")
    for role, valid in (
        (NODE_ROLE_WORKER, cluster.root_ca.worker_token),
        (NODE_ROLE_MANAGER, cluster.root_ca.manager_token),
    ):
        if hmac.compare_digest(str(presented), valid):
            return role
    raise Denied(
        "the join token is wrong, or was revoked by a rotation: "
        "'swarmctl swarm join-token worker' or 'manager' on a manager prints the valid one"
    )


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Invalid(f"a joining node must say by which IP address it is reached, not {text!r}") from None
