"""The part of a node that does a cluster's work: session with a manager, worker, what other nodes ask it for."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from grpc import aio

from swarmd.agent.content.images import ClusterImages
from swarmd.agent.content.inventory import Inventory
from swarmd.agent.content.managers import Managers
from swarmd.agent.content.reading import Cluster
from swarmd.agent.content.service import ContentService
from swarmd.agent.executor import Executor
from swarmd.agent.log_service import LogService
from swarmd.agent.reporter import Reporter
from swarmd.agent.session import Session
from swarmd.agent.worker import Worker
from swarmd.proto import content_pb2_grpc, control_pb2_grpc
from swarmd.proto.clock import SystemClock
from swarmd.proto.dispatcher_pb2 import ManagerPeer, NodeInfo
from swarmd.proto.objects_pb2 import NodeDescription
from swarmd.runtime.engine import Engine


class ClusterAgent:
    def __init__(
        self,
        engine: Engine,
        node_id: str,
        cluster_id: str,
        state_dir: Path,
        channel_credentials: Callable[[], grpc.ChannelCredentials],
        managers: Sequence[ManagerPeer],
        describe: Callable[[], NodeDescription],
        on_node_info: Callable[[NodeInfo], None],
    ) -> None:
        reporter = Reporter()
        self._node_id, self._cluster_id = node_id, cluster_id
        self._store = engine.images
        inventory, clock = Inventory(engine.images), SystemClock()
        ask = Managers(lambda: self._session.managers(), channel_credentials)
        self.content = Cluster(ask, node_id, channel_credentials, clock)
        self.images = ClusterImages(
            engine.images, engine.registries, inventory, ask, node_id, channel_credentials, clock
        )
        self._executor = Executor(engine, describe().hostname, self.images)
        self._worker = Worker(self._executor, state_dir, node_id, reporter, clock)
        self._session = Session(
            *(managers, channel_credentials, describe, reporter, self._worker.tell, on_node_info), inventory.after
        )

    async def run(self) -> None:
        """Until cancelled: containers go on."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._worker.run())
            group.create_task(self._session.run())

    def add_services(self, server: aio.Server) -> None:
        content = ContentService(self._store, self.images, self._cluster_id)
        content_pb2_grpc.add_ContentServicer_to_server(content, server)
        control_pb2_grpc.add_AgentServicer_to_server(LogService(self._executor, self._node_id, SystemClock()), server)

    async def leave(self) -> None:
        """Stop and remove the containers of all tasks, then say so; call it once `run` was cancelled."""
        await self._worker.stop_all()
        await self._session.goodbye()
