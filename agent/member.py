"""Everything a node runs while it is a member: the agent and its services, renewal, and a manager while it is one.

The parts are tasks of one scope.  What managers say of this node (`NodeInfo`) is only noted; `_follow_role` reacts:

    promoted    renew (now certified as a manager) ─▶ manager and control client start
    demoted     wait until the store's member list is rid of us (Node.etcd_member_id is 0) ─▶ renew ─▶ manager stops
"""

import asyncio
import json
import logging
import random
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grpc import aio

from swarmd.agent import renewal
from swarmd.agent.cluster_agent import ClusterAgent
from swarmd.agent.control_client import ControlClient
from swarmd.agent.host import AGENT_PORT, CLUSTER_PORT, describe
from swarmd.agent.manager_process import ManagerProcess, ManagerState, supervise
from swarmd.proto.backoff import Backoff
from swarmd.proto.ca_pb2 import Identity
from swarmd.proto.dispatcher_pb2 import ManagerPeer, NodeInfo
from swarmd.proto.errors import SwarmdError, Unavailable
from swarmd.proto.identity import IdentityFiles, write_atomically
from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER, NodeDescription
from swarmd.proto.tls import SERVER_OPTIONS, channel_credentials, server_credentials
from swarmd.runtime.engine import Engine

log = logging.getLogger(__name__)
LOOK = 60.0  # s, between looks at the certificate: clocks step, and it is renewed on a change of role too


@dataclass(frozen=True, slots=True)
class Settings:
    """What was decided when this node became a member."""

    address: str
    hostname: str

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Settings":
        return cls(**json.loads(text))

    def write_manager_config(self, directory: Path, bootstrap: dict[str, Any] | None, *, alone: bool = False) -> Path:
        """The file that the manager process is started with.

        `bootstrap`: make a new cluster; `alone`: go on with the old one, as its only manager.
        """
        config = {"directory": str(directory), **asdict(self), "bootstrap": bootstrap, "alone": alone}
        path = directory / "manager.json"
        write_atomically(path, json.dumps(config).encode())
        return path


class Member:
    def __init__(
        self, engine: Engine, files: IdentityFiles, settings: Settings, manager: ManagerProcess | None = None
    ) -> None:
        """`manager`: one that runs already."""
        self.settings = settings
        self.manager = ManagerState()
        self.control: ControlClient | None = None
        self._engine = engine
        self._files = files
        self._first_manager = manager
        identity = files.load()
        assert identity is not None
        self._identity = identity
        self._info: NodeInfo | None = None
        self._heard = asyncio.Event()
        self._role_changed = asyncio.Event()
        self._expelled = False  # from the store's members: a manager needs a newer certificate to run again
        self._renewed = asyncio.Event()
        self._agent = ClusterAgent(
            self._engine,
            node_id=self._identity.node_id,
            cluster_id=self._identity.cluster_id,
            state_dir=self._files.directory,
            channel_credentials=lambda: channel_credentials(self._files.credentials()),
            managers=self._managers(),
            describe=self._describe,
            on_node_info=self._note,
        )
        self.content = self._agent.content
        if self.is_manager:
            self._open_control()

    @property
    def is_manager(self) -> bool:
        return self._identity.role == NODE_ROLE_MANAGER

    async def run(self) -> None:
        """Until cancelled: containers go on."""
        agent = self._agent
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(agent.run())
                group.create_task(self._serve_nodes(agent))
                group.create_task(self._run_manager())
                group.create_task(self._follow_role())
                group.create_task(self._renew_in_time())
        finally:
            if self.control is not None:
                control, self.control = self.control, None
                await control.close(0)

    async def leave(self) -> None:
        """Give back what the cluster's tasks hold on this host; call it once `run` was cancelled."""
        await self._agent.leave()

    async def until_role_changes(self) -> None:
        """Return once this node has a certificate in another role."""
        await self._role_changed.wait()

    def _managers(self) -> list[ManagerPeer]:
        """Those it was told of; the first manager of a cluster was told of none, and is one itself."""
        own = ManagerPeer(node_id=self._identity.node_id, addr=f"{self.settings.address}:{CLUSTER_PORT}")
        return list(self._identity.managers) or [own]

    # ------------------------------------------------------------ what managers say

    def _describe(self) -> NodeDescription:
        return describe(self.settings.hostname, self.settings.address)

    def _note(self, info: NodeInfo) -> None:
        self._info = info
        self._heard.set()

    async def _follow_role(self) -> None:
        backoff = Backoff(base=0.2, cap=5.0)
        while True:
            await self._heard.wait()
            self._heard.clear()
            assert self._info is not None
            self._keep_managers(self._info)
            node = self._info.node
            readmitted = self._expelled and node.spec.role == NODE_ROLE_MANAGER and not node.etcd_member_id
            if not readmitted and (node.spec.role == self._identity.role or (self.is_manager and node.etcd_member_id)):
                continue
            try:
                await self._renew()
                backoff.reset()
            except SwarmdError as error:
                log.warning("this node's new role has to wait: %s", error)
                await asyncio.sleep(backoff.next())
                self._heard.set()

    def _keep_managers(self, info: NodeInfo) -> None:
        """Remember where the managers are, for the next start."""
        if info.managers and list(info.managers) != list(self._identity.managers):
            identity = Identity()
            identity.CopyFrom(self._identity)
            identity.ClearField("managers")
            identity.managers.extend(info.managers)
            self._files.save(identity)
            self._identity = identity

    # ------------------------------------------------------------ certificate

    async def _renew_in_time(self) -> None:
        backoff, rng = Backoff(base=5.0, cap=600.0), random.Random()
        certificate, when = b"", 0.0
        while True:
            if self._identity.certificate != certificate:
                certificate = self._identity.certificate
                when = renewal.due(certificate, rng)
            await asyncio.sleep(min(LOOK, max(when - time.time(), 0.0)))
            renewal.check_valid(self._identity)
            if time.time() < when:
                continue
            try:
                await self._renew()
                backoff.reset()
            except SwarmdError as error:
                log.warning("this node's certificate was not renewed: %s", error)
                await asyncio.sleep(backoff.next())

    async def _renew(self) -> None:
        was_manager = self.is_manager
        self._identity = await renewal.renew(self._files, self._managers())
        if self.control is not None:
            # A channel shows the certificate it was made with; calls under way get time to end.
            outdated, self.control = self.control, None
            self._open_control()
            await outdated.close(ControlClient.TIMEOUT)
        self._expelled = False
        self._renewed.set()
        if self.is_manager != was_manager:
            self._role_changed.set()

    # ------------------------------------------------------------ manager

    async def _run_manager(self) -> None:
        """Keep a manager running while this node is one."""
        while True:
            self._role_changed.clear()
            if not self.is_manager:
                await self._role_changed.wait()
                continue
            self._open_control()
            config = self.settings.write_manager_config(self._files.directory, None)
            first, self._first_manager = self._first_manager, None
            async with asyncio.TaskGroup() as group:
                manager = group.create_task(self._keep_manager(config, first))
                await self._role_changed.wait()
                manager.cancel()
            await self._end_manager()

    async def _keep_manager(self, config: Path, running: ManagerProcess | None) -> None:
        """Once its member of the store is gone, wait to hear of this node's role: a worker, or a manager once more."""
        while True:
            await supervise(config, running, self.manager)
            log.info("this node's manager has ended: %s", self.manager.problem)
            running = None
            self._renewed.clear()
            self._expelled = True
            self._heard.set() if self._info is not None else None
            await self._renewed.wait()

    def _open_control(self) -> None:
        if self.control is None:
            address = f"{self.settings.address}:{CLUSTER_PORT}"
            self.control = ControlClient(address, self._files.credentials(), self.manager)

    async def _end_manager(self) -> None:
        """What is left of a manager that this node no longer is: nothing, its copy of the cluster's state included."""
        if self.control is not None:
            await self.control.close(0)
        self.control, self.manager.start, self.manager.problem = None, None, ""
        shutil.rmtree(self._files.directory / "manager", ignore_errors=True)

    # ------------------------------------------------------------ for other nodes

    async def _serve_nodes(self, agent: ClusterAgent) -> None:
        """The agent's own port: managers ask here for the logs of tasks, all nodes for content."""
        server = aio.server(options=SERVER_OPTIONS)
        agent.add_services(server)
        address = f"{self.settings.address}:{AGENT_PORT}"
        try:
            server.add_secure_port(address, server_credentials(self._files.credentials))
        except RuntimeError:
            raise Unavailable(f"can't listen on {address}: is another program using the port?") from None
        await server.start()
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(0)
