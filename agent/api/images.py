"""Images of this node: listed, inspected, named, removed. What brings and sends them is in image_transfer.py."""

import asyncio
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from swarmd.agent.api import image_filters, image_json, query
from swarmd.agent.api.image_events import told
from swarmd.agent.api.interface import Engine, services
from swarmd.agent.api.streams import answer
from swarmd.proto.errors import Conflict, Invalid
from swarmd.runtime.errors import NotFound
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Platform, parse_platform
from swarmd.runtime.images.references import Reference, familiar
from swarmd.runtime.model import ContainerState, Phase

_ID = re.compile("[0-9a-f]{64}")


async def listing(request: web.Request) -> web.Response:
    """`all` and `digests` change nothing: no image here is only a step to another, and digests are always told."""
    wanted = query.filters(request)
    query.only(wanted, image_filters.LISTING)
    engine = services(request).engine
    store = engine.images
    shared = image_json.shared_sizes(store, store.list()) if query.flag(request, "shared-size") else {}
    rows = []
    for image, refs in image_filters.selected(store, wanted):
        row = image_json.summary(store, image, refs, shared.get(image.id, -1))
        if query.flag(request, "manifests"):
            row["Manifests"] = image_json.manifests(store, image, _users_by_manifest(engine, image))
        rows.append(row)
    return answer(rows)


async def inspect(request: web.Request) -> web.Response:
    engine, wanted = services(request).engine, platform(request)
    with_manifests = query.flag(request, "manifests")
    if wanted and with_manifests:
        raise Invalid("query parameters platform and manifests can't both be given: manifests shows all platforms")
    image = _image(request)
    shown = image_json.inspection(engine.images, image.of(wanted) if wanted else image)
    if with_manifests:
        shown["Manifests"] = image_json.manifests(engine.images, image, _users_by_manifest(engine, image))
    return answer(shown)


async def history(request: web.Request) -> web.Response:
    image, wanted = _image(request), platform(request)
    return answer(image_json.history(services(request).engine.images, image.of(wanted) if wanted else image))


async def tag(request: web.Request) -> web.Response:
    engine = services(request).engine
    name = given_name(request)
    if not name:
        raise Invalid("query parameter repo is required: the name to give the image")
    image = await engine.images.tag(request.match_info["name"], str(name))
    told(engine, "tag", image, name.familiar)
    return web.Response(status=201)


async def remove(request: web.Request) -> web.Response:
    engine, name, force = services(request).engine, request.match_info["name"], query.flag(request, "force")
    try:
        image = _image(request)
    except NotFound:
        return answer(await _remove_damaged(engine, name, force))
    if platforms := request.query.getall("platforms", []):
        return answer(await _remove_platforms(engine, image, [_platform(text) for text in platforms]))
    return answer(await _remove(engine, image, name, force))


async def _remove(engine: Engine, image: Image, name: str, force: bool) -> list[dict[str, str]]:
    """Docker's rules: what a container uses keeps its content, and its last name unless force is given."""
    given = _names_meant(image, name)
    users = _users(engine, image)
    if users and len(given or image.refs) == len(image.refs):
        running = [state for state in users if state.phase is Phase.RUNNING]
        user = (running or users)[0]
        said = f"image {name} is used by container {user.name} ({user.id[:12]})"
        if (running and not given) or not image.refs:
            raise Conflict(f"{said}: {'stop and ' if running else ''}remove the container first")
        if not force:
            raise Conflict(f"{said}: remove the container first, or force, which only takes the image's names away")
    taken: list[str] = []
    gone = ""
    for ref in given or (name,):
        names, gone = await engine.images.remove(ref, force=force, in_use=lambda: bool(_users(engine, image)))
        taken += names
    return _removed(engine, image, taken, gone)


async def _remove_damaged(engine: Engine, name: str, force: bool) -> list[dict[str, str]]:
    """One that is listed and can't be read any more. Raises NotFound for what isn't listed."""
    entry = engine.images.entry(name)
    meant = {entry.target.digest, *entry.refs, *map(familiar, entry.refs)}
    for state in engine.list():
        if {state.image_id, state.config.image} & meant:
            raise Conflict(f"image {name} is used by container {state.name} ({state.id[:12]}): remove that first")
    taken, gone = await engine.images.remove(name, force=force)
    return [{"Untagged": familiar(ref)} for ref in taken] + ([{"Deleted": gone}] if gone else [])


def _names_meant(image: Image, name: str) -> tuple[str, ...]:
    """The name; with the last tag of a repository also its digests; none when the image is meant by its id."""
    try:
        meant = Reference.parse(name)
    except Invalid:
        return ()
    if meant.digest:  # of which a tag that comes with it takes nothing away
        meant = msgspec.structs.replace(meant, tag="")
    if str(meant) not in image.refs:
        return ()
    left = [ref for ref in image.refs if ref != str(meant) and Reference.parse(ref).repository == meant.repository]
    return (str(meant), *(left if all("@" in ref for ref in left) else ()))


async def _remove_platforms(engine: Engine, image: Image, platforms: Sequence[Platform]) -> list[dict[str, str]]:
    doomed = {image.of(wanted).variant.manifest.digest for wanted in platforms}
    for other in engine.images.list():
        if other.id != image.id and any(variant.manifest.digest in doomed for variant in other.variants):
            raise Conflict(f"image {image.shown} shares this platform with image {other.shown}: remove that first")
    if users := _users(engine, image):
        raise Conflict(f"image {image.shown} is used by container {users[0].name}: remove the container first")
    if len(doomed) == len(image.variants):
        taken, gone = await engine.images.remove(image.id, force=True)
        return _removed(engine, image, taken, gone)
    await engine.images.remove_variants(image.id, doomed)
    return [{"Deleted": digest} for digest in sorted(doomed)]


def _removed(engine: Engine, image: Image, taken: Sequence[str], gone: str) -> list[dict[str, str]]:
    for ref in taken:
        told(engine, "untag", image, familiar(ref))
    if gone:
        told(engine, "delete", image)
    return [{"Untagged": familiar(ref)} for ref in taken] + ([{"Deleted": gone}] if gone else [])


async def prune(request: web.Request) -> web.Response:
    """Remove images that no container uses and that have no name; with dangling=false those with one too."""
    wanted = query.filters(request)
    query.only(wanted, image_filters.PRUNE)
    nameless_only = image_filters.truth(wanted, "dangling") is not False
    others = {name: values for name, values in wanted.items() if name != "dangling"}
    engine = services(request).engine
    removed: list[dict[str, str]] = []
    before = await asyncio.to_thread(engine.images.disk_usage)
    for image, _ in image_filters.selected(engine.images, others):
        if not _users(engine, image) and not (nameless_only and image.refs):
            taken, gone = await engine.images.remove(image.id, force=True)
            removed += _removed(engine, image, taken, gone)
    if not others:  # of what is damaged no label and no time is known
        removed += await _prune_damaged(engine, nameless_only)
    freed = max(0, before - await asyncio.to_thread(engine.images.disk_usage))
    engine.publish("image", "prune", "", {"reclaimed": str(freed)})
    return answer({"ImagesDeleted": removed or None, "SpaceReclaimed": freed})


async def _prune_damaged(engine: Engine, nameless_only: bool) -> list[dict[str, str]]:
    removed: list[dict[str, str]] = []
    for target in engine.images.damaged():
        if not (nameless_only and engine.images.entry(target.digest).refs):
            with suppress(Conflict):  # a container is of it
                removed += await _remove_damaged(engine, target.digest, force=True)
    return removed


def _users(engine: Engine, image: Image) -> list[ContainerState]:
    return [state for state in engine.list() if image_json.runs(image, state.image_id)]


def _users_by_manifest(engine: Engine, image: Image) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for state in _users(engine, image):
        runs = image.variant.manifest.digest if state.image_id == image.id else state.image_id
        found.setdefault(runs, []).append(state.id)
    return found


def platform(request: web.Request) -> Platform | None:
    text = request.query.get("platform", "")
    return _platform(text) if text else None


def _platform(text: str) -> Platform:
    """{"os": "linux", "architecture": "arm64"} as newer clients write it, or linux/arm64."""
    if not text.startswith("{"):
        return parse_platform(text)
    try:
        fields: dict[str, Any] = json.loads(text)
        found = msgspec.convert(fields, Platform)
    except (ValueError, RecursionError) as error:
        raise Invalid(
            f"platform {text[:100]!r} is not of the form {{'os': ..., 'architecture': ...}}: {error}"
        ) from None
    return parse_platform("/".join(part for part in (found.os or "linux", found.architecture, found.variant) if part))


def given_name(request: web.Request) -> Reference | None:
    """The name in the query parameters repo and tag; None if there is none."""
    repo, tag = request.query.get("repo", ""), request.query.get("tag", "")
    if not repo:
        return None
    name = name_to_give(repo)
    return Reference.parse(f"{name.repository}:{tag}") if tag else name


def name_to_give(text: str) -> Reference:
    """A name that a user chooses for an image; Invalid if it is none, or promises a content."""
    name = Reference.parse(text)
    if name.digest:
        raise Invalid(f"image name {text} has a digest, which no one can give: name it with a tag")
    if name.path.rpartition("/")[2] in ("sha256", "sha512") or _ID.fullmatch(text):
        raise Invalid(f"image name {text} would look like a digest or an id: choose another")
    return name


def _image(request: web.Request) -> Image:
    return services(request).engine.images.get(request.match_info["name"])
