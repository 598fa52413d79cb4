"""Logs of services: asks the agent of each task's node, and merges what they send.

A node that can't be reached is a notice among the lines, not an error.  Following picks up tasks as they appear.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
from grpc import aio

from swarmd.manager.ca.certifier import host_port
from swarmd.manager.control.refs import resolve
from swarmd.manager.store.interface import Store, View
from swarmd.proto import control_pb2 as pb
from swarmd.proto import control_pb2_grpc
from swarmd.proto.clock import Clock, timestamp
from swarmd.proto.errors import SwarmdError
from swarmd.proto.objects_pb2 import Node, Service, Task
from swarmd.proto.rpc import mapped
from swarmd.proto.tls import Credentials, channel_credentials, channel_options

READY = 5.0  # s, for an agent to answer
BUFFER = 64  # batches read ahead of a slow reader


class LogMerger:
    def __init__(self, store: Store, clock: Clock, credentials: Callable[[], Credentials]) -> None:
        self._store = store
        self._clock = clock
        self._credentials = credentials

    async def merged(self, request: pb.LogsRequest) -> AsyncIterator[pb.LogBatch]:
        """Batches of all tasks asked for, each task's in order; ends when all have ended, unless following."""
        queue: asyncio.Queue[pb.LogBatch | None] = asyncio.Queue(BUFFER)
        view = self._store.view()
        services = {resolve(view, Service, ref).id for ref in request.service_refs}
        tasks = {resolve(view, Task, ref).id for ref in request.task_ids}
        # Not a TaskGroup: a generator that is closed at a yield must not be met by a group's own exception.
        feeder = asyncio.ensure_future(self._feed_all(request, services, tasks, queue))
        try:
            while (batch := await queue.get()) is not None:
                yield batch
            await feeder
        finally:
            feeder.cancel()
            await asyncio.wait({feeder})

    async def _feed_all(
        self, request: pb.LogsRequest, services: set[str], tasks: set[str], queue: asyncio.Queue[pb.LogBatch | None]
    ) -> None:
        try:
            await self._feed(request, services, tasks, queue)
        except Exception:
            await queue.put(None)
            raise
        await queue.put(None)

    async def _feed(
        self, request: pb.LogsRequest, services: set[str], tasks: set[str], queue: asyncio.Queue[pb.LogBatch | None]
    ) -> None:
        asked: set[str] = set()
        async with self._store.view_and_watch() as (view, commits), asyncio.TaskGroup() as readers:

            def start(view: View) -> None:
                for node_id, task_ids in self._placed(view, services, tasks, asked).items():
                    asked.update(task_ids)
                    readers.create_task(self._read(view.get(Node, node_id), node_id, task_ids, request, queue))

            start(view)
            if request.follow:
                async for _ in commits:
                    start(self._store.view())

    def _placed(self, view: View, services: set[str], tasks: set[str], asked: set[str]) -> dict[str, list[str]]:
        """Tasks not yet asked for, by node: those that had a container; others have nothing to show yet, or never."""
        found = {id: task for id in tasks if (task := view.get(Task, id)) is not None}
        found |= {task.id: task for id in services for task in view.find(Task, service_id=id)}
        by_node: dict[str, list[str]] = {}
        for task in found.values():
            if task.id not in asked and task.node_id and task.status.container.container_id:
                by_node.setdefault(task.node_id, []).append(task.id)
        return by_node

    async def _read(
        self,
        node: Node | None,
        node_id: str,
        task_ids: list[str],
        request: pb.LogsRequest,
        queue: asyncio.Queue[pb.LogBatch | None],
    ) -> None:
        called = node.description.hostname if node is not None else node_id
        if node is None:
            await queue.put(self._notice(node_id, f"node {called} was removed, and the logs of its tasks with it"))
            return
        asked = pb.LogsRequest()
        asked.CopyFrom(request)
        asked.ClearField("service_refs")
        asked.ClearField("task_ids")
        asked.task_ids.extend(task_ids)
        address = host_port(node.description.addr, node.description.agent_port)
        credentials = channel_credentials(self._credentials())
        try:
            async with aio.secure_channel(address, credentials, options=channel_options(node_id)) as channel:
                await asyncio.wait_for(channel.channel_ready(), READY)
                async for batch in control_pb2_grpc.AgentStub(channel).Logs(asked):
                    await queue.put(batch)
        except TimeoutError:
            await queue.put(self._notice(node_id, f"node {called} can't be reached at {address}: its logs are missing"))
        except grpc.aio.AioRpcError as error:
            await queue.put(self._notice(node_id, self._sentence(mapped(error, f"node {called}"))))

    @staticmethod
    def _sentence(error: SwarmdError) -> str:
        return f"{error}; its logs are incomplete"

    def _notice(self, node_id: str, text: str) -> pb.LogBatch:
        entry = pb.LogEntry(
            node_id=node_id,
            timestamp=timestamp(self._clock.now()),
            stream=pb.LOG_STREAM_NOTICE,
            data=f"{text}\n".encode(),
        )
        return pb.LogBatch(entries=[entry])
