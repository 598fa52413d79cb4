"""Logs of services and tasks, from whichever nodes have them, as Docker's frames.

A line is "[time ]details message": with `details`, the node, service and task that wrote it, which clients read to
name the source, and what the log driver was told to add.  Notices (a node that cannot be reached) are lines of stderr
from nobody's program.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from swarmd.agent.api import objects, query
from swarmd.agent.api.streams import MULTIPLEXED, details_of, frame, respond
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto.clock import timestamp
from swarmd.proto.codec import rfc3339
from swarmd.proto.errors import Invalid

_STREAMS = {
    control_pb.LOG_STREAM_STDOUT: "stdout",
    control_pb.LOG_STREAM_STDERR: "stderr",
    control_pb.LOG_STREAM_NOTICE: "stderr",
}


async def service_logs(request: web.Request, wanted: control_pb.LogsRequest) -> web.StreamResponse:
    """Complete `wanted`, which names the services or tasks, from the query, and stream the answer."""
    wanted.follow = query.flag(request, "follow")
    wanted.stdout, wanted.stderr = query.flag(request, "stdout"), query.flag(request, "stderr")
    if not (wanted.stdout or wanted.stderr):
        raise Invalid("ask for stdout, stderr or both")
    for name, field in (("since", wanted.since), ("until", wanted.until)):
        if at := query.moment(request, name):
            field.CopyFrom(timestamp(at))
    if (tail := query.tail(request)) is not None:
        wanted.tail = tail
    batches = objects.control(request).Logs(wanted)
    details, timestamps = query.flag(request, "details"), query.flag(request, "timestamps")
    return await respond(request, MULTIPLEXED, _frames(batches, details=details, timestamps=timestamps))


async def _frames(
    batches: AsyncIterator[control_pb.LogBatch], *, details: bool, timestamps: bool
) -> AsyncIterator[bytes]:
    async with aclosing(cast("Any", batches)):
        async for batch in batches:
            for entry in batch.entries:
                head = f"{rfc3339(entry.timestamp)} " if timestamps else ""
                head += f"{_details(entry)} " if details else ""
                yield frame(_STREAMS[entry.stream], head.encode() + entry.data)


def _details(entry: control_pb.LogEntry) -> str:
    source = {"node": entry.node_id, "service": entry.service_id, "task": entry.task_id}
    facts = {f"com.docker.swarm.{name}.id": value for name, value in source.items()}
    return details_of({**entry.attributes, **facts})
