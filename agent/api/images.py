"""Images of this node: imported from a root file system, or loaded from an archive."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

from aiohttp import web

from swarmd.agent.api import query
from swarmd.agent.api.image_changes import changed
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer, progress
from swarmd.proto.errors import Conflict, Invalid
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.loading import load as load_archive
from swarmd.runtime.images.making import import_rootfs
from swarmd.runtime.images.references import familiar

_FILTERS = frozenset({"dangling", "label", "reference"})


async def listing(request: web.Request) -> web.Response:
    wanted = query.filters(request)
    query.only(wanted, _FILTERS)
    images = services(request).engine.images.list()
    found = sorted(
        (image for image in images if _is_wanted(image, wanted)), key=lambda image: image.created, reverse=True
    )
    return answer([summary(image) for image in found])


def _is_wanted(image: Image, wanted: dict[str, tuple[str, ...]]) -> bool:
    labels = image.config.labels
    known = labels.keys() | {f"{key}={value}" for key, value in labels.items()}
    names = {*_names(image), *(name.rpartition(":")[0] for name in _names(image))}
    tests = {
        "dangling": lambda value: (value in ("true", "1")) == (not image.refs),
        "label": lambda value: value in known,
        "reference": lambda value: value in names,
    }
    return all(any(map(tests[key], values)) for key, values in wanted.items())


def summary(image: Image) -> dict[str, Any]:
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": _names(image),
        "RepoDigests": [],
        "Created": _created(image),
        "Size": image.size,
        "SharedSize": -1,
        "Containers": -1,
        "Labels": dict(image.config.labels),
    }


async def create(request: web.Request) -> web.Response:
    """Import the root file system in the body; there is nothing to pull from yet."""
    source, repo, tag = (request.query.get(name, "") for name in ("fromSrc", "repo", "tag"))
    if source != "-":
        wanted = request.query.get("fromImage") or source
        raise Invalid(f"image {wanted} cannot be fetched: swarmd does not pull images, import or load it instead")
    if request.query.get("platform") or request.query.get("message"):
        raise Invalid("query parameters platform and message are not supported for an import")
    config = changed(request.query.getall("changes", []))
    ref = f"{repo}:{tag}" if repo and tag else repo
    image = await import_rootfs(
        services(request).engine.images, _content(request), (ref,) if ref else (), config=config
    )
    return progress([{"status": image.id}])


async def load(request: web.Request) -> web.Response:
    loaded = await load_archive(services(request).engine.images, _content(request))
    return progress({"stream": f"Loaded image: {name}\n"} for image in loaded for name in _names(image) or [image.id])


async def _content(request: web.Request) -> AsyncGenerator[bytes, None]:
    async for chunk in request.content.iter_chunked(256 * 1024):
        yield chunk


async def inspect(request: web.Request) -> web.Response:
    image = _image(request)
    config = image.config
    return answer(
        {
            "Id": image.id,
            "RepoTags": _names(image),
            "RepoDigests": [],
            "Created": image.created,
            "Architecture": image.architecture,
            "Os": "linux",
            "Size": image.size,
            "Config": {
                "Entrypoint": list(config.entrypoint) or None,
                "Cmd": list(config.cmd) or None,
                "Env": list(config.env),
                "WorkingDir": config.workdir,
                "User": config.user,
                "Labels": dict(config.labels),
                "ExposedPorts": {port: {} for port in config.exposed_ports},
                "StopSignal": config.stop_signal,
            },
            "RootFS": {"Type": "layers", "Layers": list(image.variant.diff_ids)},
        }
    )


async def tag(request: web.Request) -> web.Response:
    repo, tag = request.query.get("repo", ""), request.query.get("tag", "")
    if not repo:
        raise Invalid("query parameter repo is required: the name to give the image")
    await services(request).engine.images.tag(request.match_info["name"], f"{repo}:{tag}" if tag else repo)
    return web.Response(status=201)


async def remove(request: web.Request) -> web.Response:
    name, engine, image = request.match_info["name"], services(request).engine, _image(request)
    user = next((state for state in engine.list() if state.image_id == image.id), None)
    if user is not None and (len(image.refs) < 2 or image.id.removeprefix("sha256:").startswith(name)):
        raise Conflict(f"image {name} is used by container {user.name}: remove the container first")
    taken, gone = await engine.images.remove(name, force=query.flag(request, "force"))
    return answer([{"Untagged": familiar(ref)} for ref in taken] + ([{"Deleted": gone}] if gone else []))


async def prune(request: web.Request) -> web.Response:
    """Remove images that no container uses and that have no name; with dangling=false those with one too."""
    wanted = query.filters(request)
    query.only(wanted, frozenset({"dangling", "label", "label!", "until"}))
    engine = services(request).engine
    used = {state.image_id for state in engine.list()}
    nameless_only = wanted.get("dangling", ("true",))[0] not in ("false", "0")
    until = min((query.instant(text) for text in wanted.get("until", ())), default=None)
    removed: list[dict[str, str]] = []
    freed = 0
    for image in list(engine.images.list()):
        known = image.config.labels.keys() | {f"{key}={value}" for key, value in image.config.labels.items()}
        kept = any(value not in known for value in wanted.get("label", ()))
        kept = kept or any(value in known for value in wanted.get("label!", ()))
        kept = kept or (until is not None and _created(image) * 10**9 >= until)
        if image.id in used or kept or (nameless_only and image.refs):
            continue
        taken, gone = await engine.images.remove(image.id, force=True)
        removed += [{"Untagged": familiar(ref)} for ref in taken] + ([{"Deleted": gone}] if gone else [])
        freed += image.size
    return answer({"ImagesDeleted": removed or None, "SpaceReclaimed": freed})


def _created(image: Image) -> int:
    """Seconds since the epoch; 0 where the image does not say, as in imports that come out the same on every host."""
    return int(datetime.fromisoformat(image.created).timestamp()) if image.created else 0


def _names(image: Image) -> list[str]:
    return [familiar(ref) for ref in image.refs]


def _image(request: web.Request) -> Image:
    return services(request).engine.images.get(request.match_info["name"])
