"""The cluster's images: who holds them, which one a name stands for, and having nodes fetch them."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from swarmd.agent.api import objects, query
from swarmd.agent.api.image_progress import Line, Say, streamed
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.content_pb2 import FetchProgress
from swarmd.proto.errors import Invalid, NotFound, SwarmdError, Unavailable
from swarmd.runtime.errors import NotFound as NotHere
from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import credentials_from_header


@dataclass(frozen=True, slots=True)
class Meant:
    """Which image a name stands for in the cluster; warning: in a sentence, if nodes do not agree."""

    target: pb.HeldImage
    warning: str = ""


async def held(request: web.Request, name: Reference) -> Meant | None:
    """The newest image that this node or any other has under a name; None if none has."""
    found: dict[str, tuple[pb.HeldImage, str]] = {}  # by digest, with who has it
    with suppress(NotHere):
        image = services(request).engine.images.get(str(name))
        described = image.target
        own = pb.HeldImage(
            digest=image.id, media_type=described.media_type, target_size=described.size, updated=image.updated
        )
        found[image.id] = (own, services(request).host.name)
    hosts = {obj.node.id: obj.node.description.hostname for obj in await _nodes(request)}
    for obj in await objects.everything(request, control_pb.KIND_HOLDINGS):
        for one in obj.holdings.images:
            is_meant = one.digest == name.digest if name.digest else str(name) in one.names
            known = found.get(one.digest)
            if is_meant and not one.coming and (known is None or one.updated > known[0].updated):
                found[one.digest] = (one, hosts.get(obj.holdings.id, obj.holdings.id))
    if not found:
        return None
    newest, host = max(found.values(), key=lambda entry: entry[0].updated)
    warning = ""
    if len(found) > 1:
        warning = f"nodes hold different images as {name.familiar}: the newest is taken, {newest.digest} of {host}"
    return Meant(newest, warning)


async def pin(request: web.Request, spec: pb.ServiceSpec) -> list[str]:
    """Put the digest that the image's name stands for into a service's spec; return what there is to warn of."""
    container = spec.task.container
    try:
        name = Reference.parse(container.image)
    except RuntimeFault:
        return []  # an id; or no name at all, which the managers refuse in their own words
    if name.digest:
        return []
    if (meant := await held(request, name)) is not None:
        digest, warnings = meant.target.digest, [meant.warning] if meant.warning else []
    else:
        credentials = credentials_from_header(request.headers.get("X-Registry-Auth"))
        try:
            repository = services(request).engine.registries.repository(name, credentials)
            digest, warnings = (await repository.resolve(name.tag)).digest, []
        except RuntimeFault as fault:
            why = f"image {name.familiar} is on no node of the cluster, and {fault}"
            return [f"{why}: each node will look for it by its name, and they may find different ones"]
    container.image = f"{name.familiar}@{digest}"
    return warnings


async def listing(request: web.Request) -> web.Response:
    """Every image of the cluster once, with the nodes that hold it."""
    nodes = {obj.node.id: obj.node for obj in await _nodes(request)}
    found: dict[str, dict[str, Any]] = {}
    for obj in await objects.everything(request, control_pb.KIND_HOLDINGS):
        if (node := nodes.get(obj.holdings.id)) is None:
            continue
        for image in obj.holdings.images:
            entry = found.setdefault(image.digest, {"Id": image.digest, "Names": [], "Size": 0, "Nodes": []})
            entry["Names"] = sorted({*entry["Names"], *image.names})
            entry["Size"] = max(entry["Size"], image.size)
            entry["Nodes"].append(
                {
                    "ID": node.id,
                    "Hostname": node.description.hostname,
                    "Ready": node.status.state == pb.NODE_STATE_READY,
                    "Coming": image.coming,
                }
            )
    return answer(sorted(found.values(), key=lambda entry: (entry["Names"], entry["Id"])))


async def fetch(request: web.Request) -> web.StreamResponse:
    """Have nodes fetch an image: all, those of `nodes`, or, with `copies`, so many that they are as many in all."""
    name = Reference.parse(request.match_info["name"])
    meant = await held(request, name)
    warnings = [meant.warning] if meant and meant.warning else []
    digest = name.digest or (meant.target.digest if meant else "")
    if not digest:
        credentials = credentials_from_header(request.headers.get("X-Registry-Auth"))
        digest = (await services(request).engine.registries.repository(name, credentials).resolve(name.tag)).digest
    chosen = await _chosen(request, digest)
    registry_auth = request.headers.get("X-Registry-Auth", "")

    async def work(say: Say) -> None:
        for warning in warnings:
            say({"status": f"Warning: {warning}"})
        said = await asyncio.gather(*(_fetch_on(request, node, name, digest, registry_auth, say) for node in chosen))
        if failed := [sentence for sentence in said if sentence]:
            raise Unavailable("; ".join(failed))
        shown = name.familiar.partition("@")[0]
        say({"status": f"{shown}: {digest} is on {', '.join(_called(node) for node in chosen) or 'no node'}"})

    return await streamed(request, work)


async def _fetch_on(
    request: web.Request, node: pb.Node, name: Reference, digest: str, registry_auth: str, say: Say
) -> str:
    """Return what went wrong, naming the node."""
    pinned = f"{name.repository}@{digest}"
    tagged = f"{name.repository}:{name.tag}" if name.tag else ""
    try:
        async for progress in services(request).membership.fetch_on(node, pinned, tagged, registry_auth):
            say(_line(node, progress))
    except SwarmdError as error:
        return f"node {_called(node)}: {error}"
    say({"id": _called(node), "status": "Complete"})
    return ""


def _line(node: pb.Node, progress: FetchProgress) -> Line:
    shown: Line = {"id": f"{_called(node)} {progress.id}".strip(), "status": progress.status}
    if progress.total:
        shown["progressDetail"] = {"current": progress.current, "total": progress.total}
    return shown


async def _chosen(request: web.Request, digest: str) -> Sequence[pb.Node]:
    nodes = [obj.node for obj in await _nodes(request)]
    ready = [node for node in nodes if node.status.state == pb.NODE_STATE_READY]
    if copies := query.number(request, "copies"):
        listed = await objects.everything(request, control_pb.KIND_HOLDINGS)
        having = {obj.holdings.id for obj in listed if any(one.digest == digest for one in obj.holdings.images)}
        with suppress(NotHere):  # which may have come just now, and managers not have heard of it
            services(request).engine.images.get(digest)
            having.add(services(request).membership.info().node_id)
        if copies > len(ready):
            raise Invalid(f"{copies} copies need as many nodes: {len(ready)} are ready")
        ready.sort(key=lambda node: (node.id not in having, node.id))
        return ready[:copies]
    wanted = request.query.get("nodes", "all")
    return ready if wanted == "all" else [_named(nodes, one.strip()) for one in wanted.split(",")]


def _named(nodes: Sequence[pb.Node], ref: str) -> pb.Node:
    found = [node for node in nodes if ref in (node.id, node.description.hostname)]
    if not found:
        raise NotFound(f"node {ref} not found: see 'swarmctl node ls'")
    if len(found) > 1:
        raise Invalid(f"{len(found)} nodes are called {ref}: name one by its id")
    if found[0].status.state != pb.NODE_STATE_READY:
        raise Unavailable(f"node {ref} is not ready: it can't fetch an image now")
    return found[0]


def _called(node: pb.Node) -> str:
    return node.description.hostname or node.id


async def _nodes(request: web.Request) -> list[pb.Object]:
    return await objects.everything(request, control_pb.KIND_NODE)
