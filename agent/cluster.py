"""This node's membership in a cluster: `init`, `join`, `leave`, and the way back in after a restart.

    INACTIVE ── init, join ──▶ PENDING ──▶ ACTIVE ── leave ──▶ INACTIVE      ERROR: a member that can't take part

**Invariant:** D/cluster/settings.json is written last, and a directory without it is of an init or join that never
finished: it is wiped.  What a member runs while it is one is in member.py.
"""

import asyncio
import logging
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from swarmd.agent import join as joining
from swarmd.agent.content.prefetch import fetch_on
from swarmd.agent.content.reading import Cluster
from swarmd.agent.control_client import ControlClient
from swarmd.agent.departures import has_quorum, managers, step_down
from swarmd.agent.host import choose_address
from swarmd.agent.manager_process import ManagerProcess
from swarmd.agent.member import Member, Settings
from swarmd.agent.renewal import check_valid
from swarmd.proto.ca_pb2 import JoinRequest
from swarmd.proto.content_pb2 import FetchProgress
from swarmd.proto.errors import FailedPrecondition, SwarmdError
from swarmd.proto.identity import IdentityFiles, write_atomically
from swarmd.proto.objects_pb2 import (
    NODE_AVAILABILITY_ACTIVE,
    NODE_ROLE_MANAGER,
    ClusterSpec,
    ExternalEtcd,
    Node,
    NodeAvailability,
)
from swarmd.proto.tls import channel_credentials
from swarmd.runtime.engine import Engine

log = logging.getLogger(__name__)


class LocalNodeState(StrEnum):
    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SwarmInfo:
    """What `swarmctl info` says of it; `control_available`: this node is a manager, and it answers."""

    state: LocalNodeState = LocalNodeState.INACTIVE
    error: str = ""
    node_id: str = ""
    node_addr: str = ""
    cluster_id: str = ""
    control_available: bool = False
    remote_managers: tuple[tuple[str, str], ...] = ()  # node id, host:port


class ClusterMembership:
    def __init__(
        self, engine: Engine, data_root: Path, run_root: Path, hostname: str, group: asyncio.TaskGroup
    ) -> None:
        self._engine = engine
        self._directory = data_root / "cluster"
        self._run_root = run_root
        self._hostname = hostname or socket.gethostname()
        self._files = IdentityFiles(self._directory)
        self._group = group
        self._changing = asyncio.Lock()
        self._state = LocalNodeState.INACTIVE
        self._error = ""
        self._member: Member | None = None
        self._running: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, engine: Engine, data_root: Path, run_root: Path, *, hostname: str = ""
    ) -> AsyncIterator["ClusterMembership"]:
        """Resume what this node was; leaving the context ends its part in the cluster, but no container."""
        async with asyncio.TaskGroup() as group:
            membership = cls(engine, data_root, run_root, hostname, group)
            membership._resume()
            try:
                yield membership
            finally:
                await membership._stop()

    # ------------------------------------------------------------ what the Engine API calls

    async def init(
        self,
        *,
        listen_addr: str = "",
        advertise_addr: str = "",
        spec: ClusterSpec | None = None,
        availability: NodeAvailability.ValueType = NODE_AVAILABILITY_ACTIVE,
        default_addr_pool: Sequence[str] = (),
        subnet_size: int = 0,
        etcd: ExternalEtcd | None = None,
    ) -> str:
        """Make a new cluster of this node, with an etcd of its own or that one; return the node's id."""
        async with self._entering():
            address = choose_address(listen_addr, advertise_addr)
            bootstrap = {
                "spec": (spec or ClusterSpec()).SerializeToString().hex(),
                "availability": int(availability),
                "pools": list(default_addr_pool),
                "subnet_size": subnet_size,
                "etcd": etcd.SerializeToString().hex() if etcd is not None else "",
            }
            return await self._become(Settings(address, self._hostname), bootstrap)

    async def join(
        self,
        remote_addrs: Sequence[str],
        token: str,
        *,
        listen_addr: str = "",
        advertise_addr: str = "",
        availability: NodeAvailability.ValueType = NODE_AVAILABILITY_ACTIVE,
    ) -> str:
        """Join the cluster of one of those managers, in the role that the token is for; return the node's id."""
        async with self._entering():
            address = choose_address(listen_addr, advertise_addr)
            request = JoinRequest(token=token, hostname=self._hostname, addr=address, availability=availability)
            self._files.sign_requests(request)
            self._files.save(await joining.join(remote_addrs, request))
            return await self._become(Settings(address, self._hostname), None)

    async def init_alone(self) -> str:
        """Go on with this manager's copy of the cluster, whose quorum is lost for ever; return the node's id.

        Killed on the way, this node is a manager as before, or the only one: either way this can be done again, or has
        nothing left to do.
        """
        async with self._changing:
            identity, member = self._files.load(), self._member
            if identity is None or member is None or member.control is None:
                raise FailedPrecondition(
                    "this node is not a swarm manager: --force-new-cluster goes on with the state that a manager holds"
                )
            if identity.external_etcd.endpoints:
                raise FailedPrecondition(
                    "the state of this cluster is in an external etcd: restore the quorum there, "
                    "--force-new-cluster is for managers that keep the state themselves"
                )
            if await has_quorum(member.control):
                raise FailedPrecondition(
                    "the managers of this cluster have their quorum: remove those that are lost with "
                    "'swarmctl node demote' and 'swarmctl node rm'; --force-new-cluster is for a quorum that is lost"
                )
            settings, manager = member.settings, None
            await self._stop()
            try:
                manager = await ManagerProcess.start(settings.write_manager_config(self._directory, None, alone=True))
            finally:
                self._start(settings, manager)
            return identity.node_id

    async def leave(self, force: bool = False) -> str:
        """Return '' or, in a sentence, what stays behind in the cluster."""
        async with self._changing:
            if self._state == LocalNodeState.INACTIVE:
                raise FailedPrecondition("this node is not part of a swarm")
            if self._is_manager() and not force:
                raise FailedPrecondition(await self._what_is_lost())
            member, identity = self._member, self._files.load()
            left_behind = ""
            if member is not None and identity is not None and member.is_manager:
                left_behind = await step_down(member, identity.node_id)
            await self._stop()
            if member is not None:
                await member.leave()
            self._wipe()
            return left_behind

    def info(self) -> SwarmInfo:
        identity, member = self._files.load(), self._member
        if identity is None or self._state in (LocalNodeState.INACTIVE, LocalNodeState.PENDING):
            return SwarmInfo(self._state, self._error)
        return SwarmInfo(
            state=self._state,
            error=self._error or (member.manager.problem if member is not None else ""),
            node_id=identity.node_id,
            node_addr=member.settings.address if member is not None else "",
            cluster_id=identity.cluster_id,
            control_available=member is not None and member.is_manager,
            remote_managers=tuple((peer.node_id, peer.addr) for peer in identity.managers),
        )

    def control(self) -> ControlClient:
        """The control API of this node's manager; FailedPrecondition where there is none."""
        if self._member is not None and self._member.control is not None:
            return self._member.control
        if self._state == LocalNodeState.ERROR:
            raise FailedPrecondition(self._error)
        if self._state != LocalNodeState.ACTIVE:
            raise FailedPrecondition(
                "this node is not a swarm manager: use 'swarmctl swarm init' or 'swarmctl swarm join' "
                "to connect it to a swarm and try again"
            )
        raise FailedPrecondition(
            "this node is not a swarm manager: worker nodes can't view or change cluster state; "
            "run this on a manager or promote this node"
        )

    def fetch_on(self, node: Node, image: str, name: str, registry_auth: str) -> AsyncIterator[FetchProgress]:
        """Have a node fetch an image; see content/prefetch.py."""
        return fetch_on(node, image, name, registry_auth, lambda: channel_credentials(self._files.credentials()))

    def cluster_content(self) -> Cluster | None:
        """What other nodes' content is read with; None outside of a cluster."""
        return self._member.content if self._member is not None else None

    # ------------------------------------------------------------ in and out

    @asynccontextmanager
    async def _entering(self) -> AsyncIterator[None]:
        """One at a time, from INACTIVE; what fails or is cancelled leaves nothing behind."""
        if self._state != LocalNodeState.INACTIVE:
            raise FailedPrecondition(
                "this node is already part of a swarm: use 'swarmctl swarm leave' to leave it and try again"
            )
        async with self._changing:
            self._state = LocalNodeState.PENDING
            try:
                yield
            except BaseException:
                self._wipe()
                raise

    async def _become(self, settings: Settings, bootstrap: dict[str, Any] | None) -> str:
        """Start the manager, if this node is to be one, and then all of a member."""
        manager: ManagerProcess | None = None
        identity = self._files.load()
        if bootstrap is not None or (identity is not None and identity.role == NODE_ROLE_MANAGER):
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            manager = await ManagerProcess.start(settings.write_manager_config(self._directory, bootstrap))
        settings.write_manager_config(self._directory, None)
        write_atomically(self._directory / "settings.json", settings.to_json())
        self._start(settings, manager)
        loaded = self._files.load()
        assert loaded is not None
        return loaded.node_id

    def _resume(self) -> None:
        try:
            settings = Settings.from_json((self._directory / "settings.json").read_bytes())
        except FileNotFoundError:
            self._wipe()
            return
        self._start(settings, None)

    def _start(self, settings: Settings, manager: ManagerProcess | None) -> None:
        self._member = Member(self._engine, self._files, settings, manager)
        self._state = LocalNodeState.ACTIVE
        self._running = self._group.create_task(self._run(self._member))

    async def _run(self, member: Member) -> None:
        try:
            identity = self._files.load()
            assert identity is not None, "settings.json is written after identity.pb"
            check_valid(identity)
            await member.run()
        except* SwarmdError as problem:
            error: BaseException = problem
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            log.error("this node can't take part in its cluster: %s", error)
            self._state, self._error = LocalNodeState.ERROR, str(error)
        except* Exception as defect:
            # The engine and its containers must not go down with the membership.
            log.exception("the membership in the cluster failed")
            self._state, self._error = LocalNodeState.ERROR, f"a defect ended the membership: {defect.exceptions[0]!r}"

    async def _stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        self._running = self._member = None

    def _wipe(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._state, self._error = LocalNodeState.INACTIVE, ""

    # ------------------------------------------------------------ managers leaving

    def _is_manager(self) -> bool:
        identity = self._files.load()
        return identity is not None and identity.role == NODE_ROLE_MANAGER

    async def _what_is_lost(self) -> str:
        try:
            count = len(await managers(self.control()))
        except SwarmdError:
            return "this node is a manager, and its cluster does not answer: leaving may lose the cluster; use --force"
        if count == 1:
            return (
                "this node is the last manager: leaving erases the whole state of the swarm, "
                "its services and join tokens included; use --force to do so"
            )
        return (
            f"this node is one of {count} managers: demote it first with 'swarmctl node demote', so that the others "
            "keep their quorum, or use --force"
        )
