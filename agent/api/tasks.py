"""The cluster's tasks: one attempt each at running a container of a service."""

from aiohttp import web

from swarmd.agent.api import objects, query
from swarmd.agent.api.cluster_logs import service_logs
from swarmd.agent.api.streams import answer
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.codec import encode


async def listing(request: web.Request) -> web.Response:
    tasks = await objects.everything(request, control_pb.KIND_TASK, query.filters(request))
    return answer([encode(obj.task) for obj in tasks])


async def inspect(request: web.Request) -> web.Response:
    return answer(encode(await _find(request)))


async def logs(request: web.Request) -> web.StreamResponse:
    return await service_logs(request, control_pb.LogsRequest(task_ids=[(await _find(request)).id]))


async def _find(request: web.Request) -> pb.Task:
    return (await objects.get(request, control_pb.KIND_TASK, request.match_info["id"])).task
