"""Logs of this node's tasks, for managers: gRPC on the agent's own port."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from swarmd.agent.executor import Executor
from swarmd.agent.task_config import SERVICE_ID
from swarmd.proto import control_pb2 as pb
from swarmd.proto import control_pb2_grpc
from swarmd.proto.clock import Clock, nanoseconds, timestamp
from swarmd.proto.errors import SwarmdError
from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER
from swarmd.proto.tls import peer_identity
from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.model import ContainerState

BATCH = 100  # entries
BUFFER = 1000  # entries read ahead of a slow reader
STREAMS = {"stdout": pb.LOG_STREAM_STDOUT, "stderr": pb.LOG_STREAM_STDERR}


class LogService(control_pb2_grpc.AgentServicer):
    def __init__(self, executor: Executor, node_id: str, clock: Clock) -> None:
        self._executor = executor
        self._node_id = node_id
        self._clock = clock

    async def Logs(
        self, request: pb.LogsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.LogBatch]:
        try:
            identity = peer_identity(context)
        except SwarmdError as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        if identity.role != NODE_ROLE_MANAGER:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "only managers may read logs")
        async for batch in self.batches(request):
            yield batch

    async def batches(self, request: pb.LogsRequest) -> AsyncIterator[pb.LogBatch]:
        queue: asyncio.Queue[pb.LogEntry | None] = asyncio.Queue(BUFFER)
        # Not a TaskGroup: a generator that is closed at a yield must not be met by a group's own exception.
        reading = asyncio.ensure_future(self._read_all(request, queue))
        try:
            ended = False
            while not ended:
                entries = [await queue.get()]
                while not queue.empty() and len(entries) < BATCH:
                    entries.append(queue.get_nowait())
                ended = entries[-1] is None
                if batch := [entry for entry in entries if entry is not None]:
                    yield pb.LogBatch(entries=batch)
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def _read_all(self, request: pb.LogsRequest, queue: asyncio.Queue[pb.LogEntry | None]) -> None:
        containers = self._executor.containers()
        async with asyncio.TaskGroup() as group:
            for task_id in request.task_ids:
                if (state := containers.get(task_id)) is not None:
                    group.create_task(self._read(task_id, state, request, queue))
                else:
                    host = self._executor.hostname
                    text = f"the log of task {task_id} is gone: its container is not on node {host} any more"
                    await queue.put(self._notice(text))
        await queue.put(None)

    async def _read(
        self, task_id: str, state: ContainerState, request: pb.LogsRequest, queue: asyncio.Queue[pb.LogEntry | None]
    ) -> None:
        service_id = state.config.labels.get(SERVICE_ID, "")
        lines = self._executor.engine.logs(
            state.id,
            follow=request.follow,
            since=nanoseconds(request.since),
            until=nanoseconds(request.until),
            tail=request.tail if request.HasField("tail") else None,
            stdout=request.stdout,
            stderr=request.stderr,
        )
        try:
            async for line in lines:
                entry = pb.LogEntry(
                    service_id=service_id,
                    task_id=task_id,
                    node_id=self._node_id,
                    timestamp=timestamp(line.at),
                    stream=STREAMS[line.stream],
                    data=line.data,
                    attributes=line.attributes,
                )
                await queue.put(entry)
        except RuntimeFault as fault:
            await queue.put(self._notice(f"the log of task {task_id} ends here: {fault}"))

    def _notice(self, text: str) -> pb.LogEntry:
        """From no task: it is not what a program wrote."""
        return pb.LogEntry(
            node_id=self._node_id,
            timestamp=timestamp(self._clock.now()),
            stream=pb.LOG_STREAM_NOTICE,
            data=f"{text}\n".encode(),
        )
