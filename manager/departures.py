"""What a manager that is gone for ever may leave behind: a member of the store without a node, or the reverse.

    a stray          a member that no manager has: its node was removed, or demoted before it announced its member
    a false manager  a node that counts as a manager, but whose member is no member any more: the store was made anew
                     of one manager (backend.py), or its member was taken out by hand

roles.py undoes both.  A member is tied to its node by its name, which is the node's id; one that was added but never
started has no name yet, only its address.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER, Node


@dataclass(frozen=True, slots=True)
class StoreMember:
    id: int
    name: str  # '' until it has started
    hosts: tuple[str, ...]  # IP addresses of its peer URLs


def strays(members: Iterable[StoreMember], nodes: Sequence[Node]) -> set[int]:
    """Ids of members."""
    managers = [node for node in nodes if node.spec.role == NODE_ROLE_MANAGER]
    ids, hosts = {node.id for node in managers}, {node.description.addr for node in managers}
    return {
        member.id
        for member in members
        if not (member.name in ids if member.name else any(host in hosts for host in member.hosts))
    }


def false_managers(members: Iterable[StoreMember], nodes: Iterable[Node]) -> set[str]:
    """Ids of nodes."""
    present = {member.id for member in members}
    return {
        node.id
        for node in nodes
        if node.spec.role == NODE_ROLE_MANAGER and node.etcd_member_id and node.etcd_member_id not in present
    }
