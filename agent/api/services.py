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
from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import credentials_from_header


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
    _give_login(request, spec, None)
    warnings = await pin(request, spec) if query.flag(request, "resolve") else []
    written = await objects.create(request, pb.Object(service=pb.Service(spec=spec)))
    shown: dict[str, Any] = {"ID": written.object.service.id, "Warnings": [*warnings, *written.warnings] or None}
    return answer(shown, status=201)


def _give_login(request: web.Request, spec: pb.ServiceSpec, former: pb.ServiceSpec | None) -> None:
    """Put the login of the image's registry into the spec, for nodes that must ask there; it stays when none comes.

    One that comes with `resolve` is for finding the digest, unless `withRegistryAuth` says that it is for nodes too.
    """
    header = request.headers.get("X-Registry-Auth", "")
    credentials_from_header(header)  # refuses one that can't be read
    container = spec.task.container
    if header and (not query.flag(request, "resolve") or query.flag(request, "withRegistryAuth")):
        container.registry_auth = header
    elif former is not None and _registry(former.task.container.image) == _registry(container.image):
        container.registry_auth = former.task.container.registry_auth


def _registry(image: str) -> str:
    """Of an image's name: a login must never go to another; "" for an id."""
    try:
        return Reference.parse(image).domain
    except RuntimeFault:
        return ""


async def inspect(request: web.Request) -> web.Response:
    return answer(encode(await _find(request)))


async def update(request: web.Request) -> web.Response:
    rollback = request.query.get("rollback", "")
    if rollback not in ("", "previous"):
        raise Invalid(f"query parameter rollback must be previous, not {rollback!r}")
    spec = decode(pb.ServiceSpec, await body(request))
    version, service = query.version(request), await _find(request)
    source = request.query.get("registryAuthFrom", "spec")
    if source not in ("spec", "previous-spec"):
        raise Invalid(f"query parameter registryAuthFrom must be spec or previous-spec, not {source!r}")
    _give_login(request, spec, service.spec if source == "spec" else service.previous_spec)
    warnings = await pin(request, spec) if query.flag(request, "resolve") and not rollback else []
    changed = pb.Service(id=service.id, version=version, spec=spec)
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
