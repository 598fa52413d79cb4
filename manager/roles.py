"""Keeps the store's members and the nodes' manager status true to the nodes' roles.

    promoted     the node renews its certificate, starts a manager, which joins etcd by itself (main.py)
    demoted      here: its member is taken out of etcd, then `etcd_member_id` becomes 0, and the node stops its manager;
                 if it leads, it resigns first, and the next leader does this
    removed      only workers can be: a manager is demoted first (control/nodes.py)
    gone         what departures.py finds is undone: members without a manager, managers without their member

**Invariant:** a member is only taken out while a majority of those that stay answers.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from swarmd.manager.departures import StoreMember, false_managers, strays
from swarmd.manager.quorum import answering
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Commit, LeadershipLost, Store, Tx
from swarmd.proto.clock import Clock
from swarmd.proto.errors import Unavailable
from swarmd.proto.objects_pb2 import (
    NODE_ROLE_MANAGER,
    NODE_ROLE_WORKER,
    REACHABILITY_REACHABLE,
    REACHABILITY_UNREACHABLE,
    ManagerStatus,
    Node,
)

log = logging.getLogger(__name__)
PERIOD = 1.0  # s, between looks at who answers
# s that nodes and members have to differ: the two lists are not of the same moment, and a node is written first.
SURE = 3.0


class Members(Protocol):
    """etcd's own list of members."""

    async def present(self) -> Sequence[StoreMember]: ...

    async def remove(self, member_id: int) -> None: ...


class Roles:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        node_id: str,
        members: Members,
        probe: Callable[[list[str]], Awaitable[list[bool]]] = answering,
    ) -> None:
        self._store = store
        self._clock = clock
        self._node_id = node_id
        self._members = members
        self._probe = probe
        self._changed = asyncio.Event()
        self._differing: dict[int | str, float] = {}  # a stray's or a false manager's id, since when

    async def run(self) -> None:
        async with self._store.view_and_watch() as (_, commits), asyncio.TaskGroup() as group:
            group.create_task(self._follow(commits))
            while True:
                try:
                    await self._reconcile()
                except Unavailable as error:
                    log.info("members not looked after: %s", error)
                self._changed.clear()
                await self._pause()

    async def _follow(self, commits: AsyncIterator[Commit]) -> None:
        async for commit in commits:
            if any(isinstance(change.obj, Node) for change in commit.changes):
                self._changed.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(PERIOD):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _reconcile(self) -> None:
        managers = [node for node in self._store.view().find(Node) if node.manager_status.addr]
        reachable = await self._probe([node.manager_status.addr for node in managers])
        up = {node.id for node, answered in zip(managers, reachable, strict=True) if answered}
        for node in managers:
            wanted = ManagerStatus(
                leader=node.id == self._node_id,
                reachability=REACHABILITY_REACHABLE if node.id in up else REACHABILITY_UNREACHABLE,
                addr=node.manager_status.addr,
            )
            stays = node.spec.role == NODE_ROLE_MANAGER
            if node.manager_status != wanted and (stays or node.manager_status.leader):
                await self._store.transact(partial(_note_status, node.id, wanted))
        nodes = self._store.view().find(Node)
        self._resign_if_demoted(nodes, up)
        members = await self._members.present()
        await self._expel(nodes, up, {member.id for member in members})
        await self._tidy(nodes, up, members)

    def _resign_if_demoted(self, nodes: Sequence[Node], up: set[str]) -> None:
        """Who took out the member that it leads by would leave the cluster without a leader until its lease ended."""
        demoted = any(node.id == self._node_id and node.spec.role != NODE_ROLE_MANAGER for node in nodes)
        if demoted and any(node.id in up and node.spec.role == NODE_ROLE_MANAGER for node in nodes):
            raise LeadershipLost("it was demoted")

    async def _expel(self, nodes: Sequence[Node], up: set[str], known: set[int]) -> None:
        """Take out one member that no manager has any more; the next pass takes the next."""
        keepers = {node.etcd_member_id for node in nodes if node.spec.role == NODE_ROLE_MANAGER}
        healthy = {node.etcd_member_id for node in nodes if node.id in up}
        demoted = [node for node in nodes if node.spec.role != NODE_ROLE_MANAGER and is_manager_still(node)]
        for node in demoted:
            if node.etcd_member_id in known:
                if not may_leave(node.etcd_member_id, known & keepers, healthy):
                    log.warning("node %s stays a member: too few of the other managers answer", node.id)
                    continue
                await self._members.remove(node.etcd_member_id)
                log.info("node %s is no member of the store any more", node.id)
            await self._store.transact(partial(_note_left, node.id))
            return

    async def _tidy(self, nodes: Sequence[Node], up: set[str], members: Sequence[StoreMember]) -> None:
        now = self._clock.monotonic()
        found = strays(members, nodes) | (false_managers(members, nodes) - {self._node_id})
        self._differing = {id: self._differing.get(id, now) for id in found}
        staying = {node.etcd_member_id for node in nodes if node.spec.role == NODE_ROLE_MANAGER}
        staying &= {member.id for member in members}
        healthy = {node.etcd_member_id for node in nodes if node.id in up}
        for id, since in self._differing.items():
            if now - since < SURE:
                continue
            if isinstance(id, str):
                await self._store.transact(partial(_note_false, id))
                log.warning("node %s is a worker from now on: its manager is no member of the store any more", id)
            elif may_leave(id, staying, healthy):
                await self._members.remove(id)
                log.info("member %x of the store was left by a manager that is gone: taken out", id)


def is_manager_still(node: Node) -> bool:
    """With an external etcd, managers have no members of their own."""
    return bool(node.etcd_member_id or node.manager_status.addr)


def may_leave(member_id: int, staying: set[int], healthy: set[int]) -> bool:
    """Whether those that stay have a majority that answers."""
    others = staying - {member_id}
    return len(others & healthy) * 2 > len(others)


def _note_status(node_id: str, status: ManagerStatus, tx: Tx) -> None:
    node = tx.get(Node, node_id)
    if node is None or not node.manager_status.addr or node.manager_status == status:
        return
    node = edited(node)
    node.manager_status.CopyFrom(status)
    tx.put(node)


def _note_false(node_id: str, tx: Tx) -> None:
    node = tx.get(Node, node_id)
    if node is not None and node.spec.role == NODE_ROLE_MANAGER:
        node = edited(node)
        node.spec.role = NODE_ROLE_WORKER
        tx.put(node)
    _note_left(node_id, tx)


def _note_left(node_id: str, tx: Tx) -> None:
    node = tx.get(Node, node_id)
    if node is None or not is_manager_still(node):
        return
    node = edited(node)
    node.etcd_member_id = 0
    node.ClearField("manager_status")
    tx.put(node)
