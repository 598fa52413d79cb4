"""The cluster's nodes."""

from typing import Any

from aiohttp import web

from swarmd.agent.api import objects, query
from swarmd.agent.api.fields import body
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.codec import decode, encode

JOIN_PORT = 2377


async def listing(request: web.Request) -> web.Response:
    nodes = await objects.everything(request, control_pb.KIND_NODE, query.filters(request))
    return answer([_node(obj.node) for obj in nodes])


async def inspect(request: web.Request) -> web.Response:
    return answer(_node(await _find(request)))


async def update(request: web.Request) -> web.Response:
    spec = decode(pb.NodeSpec, await body(request))
    version = query.version(request)
    node = await _find(request)
    await objects.update(request, pb.Object(node=pb.Node(id=node.id, version=version, spec=spec)))
    return web.Response()


async def remove(request: web.Request) -> web.Response:
    force = query.flag(request, "force")
    await objects.remove(request, control_pb.KIND_NODE, request.match_info["id"], force=force)
    return web.Response()


async def _find(request: web.Request) -> pb.Node:
    ref = request.match_info["id"]
    if ref == "self":
        ref = services(request).membership.info().node_id
    return (await objects.get(request, control_pb.KIND_NODE, ref)).node


def _node(node: pb.Node) -> dict[str, Any]:
    shown = encode(node)
    if node.HasField("manager_status"):
        # Docker's clients print this address as the one to join at.
        host = node.manager_status.addr.rpartition(":")[0]
        shown["ManagerStatus"]["Addr"] = f"{host}:{JOIN_PORT}" if host else ""
    return shown
