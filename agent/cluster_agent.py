"""The part of a node that does a cluster's work: the session with a manager, the worker, the log service."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from grpc import aio

from swarmd.agent.executor import Executor
from swarmd.agent.log_service import LogService
from swarmd.agent.reporter import Reporter
from swarmd.agent.session import Session
from swarmd.agent.worker import Worker
from swarmd.proto import control_pb2_grpc
from swarmd.proto.clock import SystemClock
from swarmd.proto.dispatcher_pb2 import ManagerPeer, NodeInfo
from swarmd.proto.objects_pb2 import NodeDescription
from swarmd.runtime.engine import Engine


class ClusterAgent:
    def __init__(
        self,
        engine: Engine,
        node_id: str,
        state_dir: Path,
        channel_credentials: Callable[[], grpc.ChannelCredentials],
        managers: Sequence[ManagerPeer],
        describe: Callable[[], NodeDescription],
        on_node_info: Callable[[NodeInfo], None],
    ) -> None:
        reporter = Reporter()
        self._node_id = node_id
        self._executor = Executor(engine, describe().hostname)
        self._worker = Worker(self._executor, state_dir, node_id, reporter, SystemClock())
        self._session = Session(managers, channel_credentials, describe, reporter, self._worker.tell, on_node_info)

    async def run(self) -> None:
        """Until cancelled: containers go on."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._worker.run())
            group.create_task(self._session.run())

    def add_log_service(self, server: aio.Server) -> None:
        control_pb2_grpc.add_AgentServicer_to_server(LogService(self._executor, self._node_id, SystemClock()), server)

    async def leave(self) -> None:
        """Stop and remove the containers of all tasks, then say so; call it once `run` was cancelled."""
        await self._worker.stop_all()
        await self._session.goodbye()
