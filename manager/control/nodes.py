"""Update and remove nodes: role, availability, labels; never the last manager.

A changed role is only a wish here: roles.py takes the node out of etcd, the node itself renews its certificate.
"""

from swarmd.manager.control.refs import resolve
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Tx, View
from swarmd.proto.errors import Conflict, FailedPrecondition, Invalid
from swarmd.proto.objects_pb2 import (
    NODE_ROLE_MANAGER,
    NODE_ROLE_WORKER,
    NODE_STATE_DOWN,
    NODE_STATE_UNKNOWN,
    REACHABILITY_REACHABLE,
    Holdings,
    Node,
    NodeAvailability,
    NodeRole,
)


def update(tx: Tx, wanted: Node, rollback: bool, now: int) -> Node:
    if rollback:
        raise Invalid("nodes have no rollback")
    node = resolve(tx, Node, wanted.id)
    if wanted.version.index != node.version.index:
        raise Conflict(f"update out of sequence: node {_called(node)} was changed meanwhile; read it again")
    if wanted.spec.role not in NodeRole.values() or wanted.spec.availability not in NodeAvailability.values():
        raise Invalid("a node's role is worker or manager, its availability active, pause or drain")
    if "" in wanted.spec.labels:
        raise Invalid("a node label needs a name")
    if node.spec.role == NODE_ROLE_MANAGER and wanted.spec.role == NODE_ROLE_WORKER:
        _check_demotion(tx, node)
    changed = edited(node)
    changed.spec.CopyFrom(wanted.spec)
    tx.put(changed)
    return changed


def remove(tx: Tx, ref: str, force: bool) -> str:
    node = resolve(tx, Node, ref)
    if node.spec.role == NODE_ROLE_WORKER and node.etcd_member_id:
        raise FailedPrecondition(
            f"node {_called(node)} is still being demoted: it can be removed once the other managers, a majority of "
            "whom is needed for it, have taken its member out of the store; try again in a moment"
        )
    if node.spec.role == NODE_ROLE_MANAGER:
        raise FailedPrecondition(
            f"node {_called(node)} is a manager: demote it first with 'swarmctl node demote {_called(node)}'"
        )
    # Unknown: it joined, but never reported.
    if node.status.state not in (NODE_STATE_DOWN, NODE_STATE_UNKNOWN) and not force:
        raise FailedPrecondition(
            f"node {_called(node)} is not down: let it leave with 'swarmctl swarm leave' there, or use --force"
        )
    tx.delete(node)
    if holdings := tx.get(Holdings, node.id):
        tx.delete(holdings)
    return node.id


def _check_demotion(tx: View, node: Node) -> None:
    managers = [other for other in tx.find(Node) if other.spec.role == NODE_ROLE_MANAGER and other.id != node.id]
    if not managers:
        raise FailedPrecondition(
            f"node {_called(node)} is the only manager: promote another node first, or the cluster's state is lost"
        )
    reachable = sum(other.manager_status.reachability == REACHABILITY_REACHABLE for other in managers)
    if reachable <= len(managers) // 2:
        raise FailedPrecondition(
            f"demoting node {_called(node)} would lose the quorum: "
            f"only {reachable} of the {len(managers)} managers that would stay can be reached"
        )


def _called(node: Node) -> str:
    return node.description.hostname or node.id
