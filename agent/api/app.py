"""The Engine API as one aiohttp application: the list of routes, versions, and errors as {"message": ...}.

Handlers live beside this file, one file per noun.  What Docker has and the list has not is refused by name.
"""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from swarmd.agent.api import (
    archive,
    attach,
    builds,
    cluster_images,
    cluster_registry,
    commit,
    container_list,
    containers,
    execs,
    image_transfer,
    images,
    manifests,
    networks,
    nodes,
    processes,
    registry,
    stats,
    swarm,
    system,
    tasks,
    usage,
    volumes,
)
from swarmd.agent.api import services as cluster_services
from swarmd.agent.api.interface import SERVICES, Services, services
from swarmd.agent.api.streams import answer
from swarmd.agent.api.versions import MAXIMUM, MINIMUM, spoken
from swarmd.proto.errors import Invalid, SwarmdError
from swarmd.runtime import errors as runtime
from swarmd.runtime.build.dockerfile import DockerfileError
from swarmd.runtime.stages import files

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/_ping", system.ping),
    ("GET", "/version", system.version),
    ("GET", "/info", system.info),
    ("GET", "/events", system.events),
    ("GET", "/system/df", usage.usage),
    ("GET", "/containers/json", container_list.listing),
    ("POST", "/containers/prune", containers.prune),
    ("POST", "/containers/create", containers.create),
    ("GET", "/containers/{id}/json", containers.inspect),
    ("POST", "/containers/{id}/start", containers.start),
    ("POST", "/containers/{id}/stop", containers.stop),
    ("POST", "/containers/{id}/restart", containers.restart),
    ("POST", "/containers/{id}/kill", containers.kill),
    ("POST", "/containers/{id}/pause", containers.pause),
    ("POST", "/containers/{id}/unpause", containers.unpause),
    ("POST", "/containers/{id}/rename", containers.rename),
    ("POST", "/containers/{id}/update", containers.update),
    ("GET", "/containers/{id}/top", processes.top),
    ("GET", "/containers/{id}/archive", archive.get),
    ("HEAD", "/containers/{id}/archive", archive.head),
    ("PUT", "/containers/{id}/archive", archive.put),
    ("GET", "/containers/{id}/export", archive.export),
    ("GET", "/containers/{id}/changes", archive.changes),
    ("GET", "/containers/{id}/stats", stats.stats),
    ("POST", "/containers/{id}/wait", containers.wait),
    ("GET", "/containers/{id}/logs", containers.logs),
    ("DELETE", "/containers/{id}", containers.remove),
    ("POST", "/containers/{id}/attach", attach.attach),
    ("GET", "/containers/{id}/attach/ws", attach.websocket),
    ("POST", "/containers/{id}/resize", attach.resize),
    ("POST", "/containers/{id}/exec", execs.create),
    ("POST", "/exec/{id}/start", execs.start),
    ("GET", "/exec/{id}/json", execs.inspect),
    ("POST", "/exec/{id}/resize", execs.resize),
    ("GET", "/images/json", images.listing),
    ("POST", "/images/prune", images.prune),
    ("POST", "/images/create", image_transfer.create),
    ("POST", "/images/load", image_transfer.load),
    ("GET", "/images/get", image_transfer.save),
    ("GET", "/images/search", registry.search),
    ("GET", "/images/{name:.+}/get", image_transfer.save),
    ("GET", "/images/{name:.+}/json", images.inspect),
    ("GET", "/images/{name:.+}/history", images.history),
    ("POST", "/images/{name:.+}/push", image_transfer.push),
    ("POST", "/images/{name:.+}/tag", images.tag),
    ("DELETE", "/images/{name:.+}", images.remove),
    ("POST", "/commit", commit.commit),
    ("GET", "/swarmd/manifests/{name:.+}", manifests.inspect),
    ("POST", "/swarmd/manifests/{name:.+}", manifests.push),
    ("POST", "/build", builds.build),
    ("GET", "/swarmd/images/{name:.+}/rootfs", builds.rootfs),
    ("POST", "/build/prune", builds.prune),
    ("GET", "/swarmd/images", cluster_images.listing),
    ("POST", "/swarmd/images/{name:.+}/fetch", cluster_images.fetch),
    ("POST", "/auth", registry.login),
    ("GET", "/distribution/{name:.+}/json", registry.distribution),
    *((method, "/v2/", cluster_registry.version) for method in ("GET", "HEAD")),
    *((method, "/v2/{name:.+}/manifests/{ref}", cluster_registry.manifest) for method in ("GET", "HEAD")),
    *((method, "/v2/{name:.+}/blobs/{digest}", cluster_registry.blob) for method in ("GET", "HEAD")),
    ("GET", "/v2/{name:.+}/tags/list", cluster_registry.tags),
    ("GET", "/volumes", volumes.listing),
    ("POST", "/volumes/prune", volumes.prune),
    ("POST", "/volumes/create", volumes.create),
    ("GET", "/volumes/{name}", volumes.absent),
    ("DELETE", "/volumes/{name}", volumes.absent),
    ("GET", "/networks", networks.listing),
    ("POST", "/networks/prune", networks.prune),
    ("POST", "/networks/create", networks.create),
    ("GET", "/networks/{id}", networks.inspect),
    ("DELETE", "/networks/{id}", networks.remove),
    ("POST", "/networks/{id}/connect", networks.connect),
    ("POST", "/networks/{id}/disconnect", networks.disconnect),
    ("GET", "/swarm", swarm.inspect),
    ("POST", "/swarm/init", swarm.init),
    ("POST", "/swarm/join", swarm.join),
    ("POST", "/swarm/leave", swarm.leave),
    ("POST", "/swarm/update", swarm.update),
    ("GET", "/nodes", nodes.listing),
    ("GET", "/nodes/{id}", nodes.inspect),
    ("POST", "/nodes/{id}/update", nodes.update),
    ("DELETE", "/nodes/{id}", nodes.remove),
    ("GET", "/services", cluster_services.listing),
    ("POST", "/services/create", cluster_services.create),
    ("GET", "/services/{id}", cluster_services.inspect),
    ("POST", "/services/{id}/update", cluster_services.update),
    ("DELETE", "/services/{id}", cluster_services.remove),
    ("GET", "/services/{id}/logs", cluster_services.logs),
    ("GET", "/tasks", tasks.listing),
    ("GET", "/tasks/{id}", tasks.inspect),
    ("GET", "/tasks/{id}/logs", tasks.logs),
)

# The runtime's errors, most specific first.
RUNTIME_STATUS: tuple[tuple[type[runtime.RuntimeFault], int], ...] = (
    (runtime.NotFound, 404),
    (runtime.Conflict, 409),
    (runtime.Invalid, 400),
    (runtime.ReadOnly, 403),
    (runtime.Unsupported, 400),
    (runtime.Unauthorized, 401),
    (runtime.Denied, 403),
    (runtime.Unavailable, 503),
    (runtime.StartError, 400),
    (runtime.Exhausted, 507),
)


def application(services: Services) -> web.Application:
    """The application; the caller owns what it works on and outlives it."""
    app = web.Application(middlewares=[_errors, _versions], client_max_size=16 * 1024 * 1024)
    app[SERVICES] = services
    app[stats.SAMPLER] = stats.Sampler()
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler)
        app.router.add_route(method, "/v{version:[0-9.]+}" + path, handler)
    app.router.add_head("/_ping", system.ping)
    app.router.add_head("/v{version:[0-9.]+}/_ping", system.ping)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        return _message(refusal.status, f"swarmd has no endpoint {request.method} {request.path}")
    except SwarmdError as error:
        return _message(error.http_status, str(error))
    except runtime.RuntimeFault as fault:
        said = fault.shown() if isinstance(fault, DockerfileError) else str(fault)
        return _message(next((s for kind, s in RUNTIME_STATUS if isinstance(fault, kind)), 500), said)
    except ConnectionError:
        if request.transport is None or request.transport.is_closing():
            return web.Response(status=499)  # the client went away in the middle of a stream: nobody is told
        raise
    except Exception as defect:
        if isinstance(defect, OSError) and defect.errno in files.FULL:
            root = services(request).host.data_root
            return _message(507, f"the disk of {root} is full: free space there and try again")
        log.exception("%s %s failed", request.method, request.path)
        return _message(500, f"internal error: {defect}")


@web.middleware
async def _versions(request: web.Request, handler: Handler) -> web.StreamResponse:
    asked = request.match_info.get("version")
    if asked is not None and spoken(asked) is None:
        raise Invalid(f"API version {asked} is not served: swarmd speaks {MINIMUM} to {MAXIMUM}")
    response = await handler(request)
    if not response.prepared:
        response.headers.update({"Api-Version": MAXIMUM, "Ostype": "linux", "Server": "swarmd"})
    return response


def _message(status: int, text: str) -> web.Response:
    return answer({"message": text}, status=status)
