"""The cluster's services."""

from collections import Counter
from typing import Any

from aiohttp import web

from swarmd.agent.api import objects, query
from swarmd.agent.api.cluster_images import pin
from swarmd.agent.api.cluster_logs import service_logs
from swarmd.agent.api.fields import body
from swarmd.agent.api.streams import answer
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb
from swarmd.proto import task_states as states
from swarmd.proto.codec import decode, encode
from swarmd.proto.errors import Invalid


async def listing(request: web.Request) -> web.Response:
    listed = await objects.everything(request, control_pb.KIND_SERVICE, query.filters(request))
    found = [obj.service for obj in listed]
    shown = [encode(service) for service in found]
    if query.flag(request, "status"):
        counts = await _counts(request)
        for service, json in zip(found, shown, strict=True):
            json["ServiceStatus"] = _status(service, counts)
    return answer(shown)


async def _counts(request: web.Request) -> Counter[tuple[str, str]]:
    """How many tasks of each service run, and have completed."""
    counts: Counter[tuple[str, str]] = Counter()
    up = {
        obj.node.id
        for obj in await objects.everything(request, control_pb.KIND_NODE)
        if obj.node.status.state != pb.NODE_STATE_DOWN
    }
    for obj in await objects.everything(request, control_pb.KIND_TASK):
        task = obj.task
        wanted = task.desired_state == states.RUNNING
        counts[task.service_id, "running"] += wanted and task.status.state == states.RUNNING and task.node_id in up
        counts[task.service_id, "completed"] += task.status.state == states.COMPLETE
    return counts


def _status(service: pb.Service, counts: Counter[tuple[str, str]]) -> dict[str, int]:
    replicated = service.spec.mode.replicated
    return {
        "RunningTasks": counts[service.id, "running"],
        "DesiredTasks": replicated.replicas if replicated.HasField("replicas") else 1,
        "CompletedTasks": counts[service.id, "completed"],
    }


async def create(request: web.Request) -> web.Response:
    """resolve: put the digest of its image into the spec; Docker's own client asks for it first, and puts it there."""
    spec = decode(pb.ServiceSpec, await body(request))
    warnings = await pin(request, spec) if query.flag(request, "resolve") else []
    written = await objects.create(request, pb.Object(service=pb.Service(spec=spec)))
    shown: dict[str, Any] = {"ID": written.object.service.id, "Warnings": [*warnings, *written.warnings] or None}
    return answer(shown, status=201)


async def inspect(request: web.Request) -> web.Response:
    return answer(encode(await _find(request)))


async def update(request: web.Request) -> web.Response:
    rollback = request.query.get("rollback", "")
    if rollback not in ("", "previous"):
        raise Invalid(f"query parameter rollback must be previous, not {rollback!r}")
    spec = decode(pb.ServiceSpec, await body(request))
    version = query.version(request)
    warnings = await pin(request, spec) if query.flag(request, "resolve") and not rollback else []
    changed = pb.Service(id=(await _find(request)).id, version=version, spec=spec)
    written = await objects.update(request, pb.Object(service=changed), rollback=bool(rollback))
    return answer({"Warnings": [*warnings, *written.warnings] or None})


async def remove(request: web.Request) -> web.Response:
    await objects.remove(request, control_pb.KIND_SERVICE, request.match_info["id"])
    return web.Response()


async def logs(request: web.Request) -> web.StreamResponse:
    service = await _find(request)
    return await service_logs(request, control_pb.LogsRequest(service_refs=[service.id]))


async def _find(request: web.Request) -> pb.Service:
    return (await objects.get(request, control_pb.KIND_SERVICE, request.match_info["id"])).service
