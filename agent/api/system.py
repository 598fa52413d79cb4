"""The daemon itself: ping, version, info and events."""

import asyncio
import os
import platform
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from swarmd.agent.api import objects, query
from swarmd.agent.api.interface import SwarmInfo, services
from swarmd.agent.api.streams import answer, json_line, respond
from swarmd.agent.api.versions import MAXIMUM, MINIMUM
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto.codec import encode
from swarmd.proto.errors import SwarmdError
from swarmd.runtime.model import Event, Phase

EVENT_FILTERS = frozenset({"container", "event", "image", "label", "type"})


async def ping(request: web.Request) -> web.Response:
    info = services(request).membership.info()
    role = ("manager" if info.control_available else "worker") if info.state == "active" else info.state
    headers = {"Cache-Control": "no-cache", "Swarm": f"active/{role}" if info.state == "active" else role}
    return web.Response(text="" if request.method == "HEAD" else "OK", headers=headers)


async def version(request: web.Request) -> web.Response:
    ours = services(request).host.version
    facts = {"ApiVersion": MAXIMUM, "MinAPIVersion": MINIMUM, "Os": "linux", "Arch": _architecture()}
    details = facts | {"KernelVersion": platform.release(), "Python": platform.python_version()}
    return answer(
        {
            "Platform": {"Name": "swarmd"},
            "Components": [{"Name": "Engine", "Version": ours, "Details": details}],
            "Version": ours,
            "KernelVersion": platform.release(),
            **facts,
        }
    )


async def info(request: web.Request) -> web.Response:
    parts = services(request)
    phases = [state.phase for state in parts.engine.list()]
    running = phases.count(Phase.RUNNING)
    return answer(
        {
            "ID": parts.membership.info().node_id or parts.host.name,
            "Name": parts.host.name,
            "ServerVersion": parts.host.version,
            "Containers": len(phases),
            "ContainersRunning": running,
            "ContainersPaused": 0,
            "ContainersStopped": len(phases) - running,
            "Images": len(parts.engine.images.list()),
            "Driver": "overlay",
            "LoggingDriver": "json-file",
            "DockerRootDir": str(parts.host.data_root),
            "OperatingSystem": _distribution(),
            "OSType": "linux",
            "KernelVersion": platform.release(),
            "Architecture": platform.machine(),
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "Plugins": {"Volume": [], "Network": ["bridge", "host", "null", "overlay"], "Log": ["json-file", "none"]},
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "Swarm": await _swarm(request, parts.membership.info()),
        }
    )


async def _swarm(request: web.Request, member: SwarmInfo) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "NodeID": member.node_id,
        "NodeAddr": member.node_addr,
        "LocalNodeState": member.state,
        "ControlAvailable": member.control_available,
        "Error": member.error,
        "RemoteManagers": [{"NodeID": node_id, "Addr": addr} for node_id, addr in member.remote_managers] or None,
    }
    if member.control_available:
        try:
            shown |= await _cluster(request)
        except SwarmdError as problem:  # without a quorum, /info is where one looks first
            shown["Error"] = str(problem)
    return shown


async def _cluster(request: web.Request) -> dict[str, Any]:
    cluster = (await objects.get(request, control_pb.KIND_CLUSTER, "")).cluster
    nodes = await objects.everything(request, control_pb.KIND_NODE)
    return {
        "Cluster": encode(cluster),
        "Nodes": len(nodes),
        "Managers": sum(obj.node.HasField("manager_status") for obj in nodes),
    }


async def events(request: web.Request) -> web.StreamResponse:
    """Events from now on, as lines of JSON; `until` ends the stream at that moment."""
    wanted = query.filters(request)
    query.only(wanted, EVENT_FILTERS)
    until = query.moment(request, "until")
    return await respond(request, "application/json", _events(request, wanted, until))


async def _events(request: web.Request, wanted: dict[str, tuple[str, ...]], until: int) -> AsyncIterator[bytes]:
    remaining = until / 1e9 - time.time() if until else None
    try:
        async with asyncio.timeout(remaining), aclosing(cast("Any", services(request).engine.events())) as stream:
            async for event in stream:
                if _is_wanted(event, wanted):
                    yield json_line(_event(event))
    except TimeoutError:
        return


def _is_wanted(event: Event, wanted: dict[str, tuple[str, ...]]) -> bool:
    attributes = event.attributes
    labels = {f"{key}={value}" for key, value in attributes.items()} | attributes.keys()
    tests = {
        "type": lambda value: value == event.type,
        "event": lambda value: event.action == value or event.action.startswith(f"{value}:"),
        "container": lambda value: (
            event.type == "container" and (event.id.startswith(value) or attributes.get("name") == value)
        ),
        "image": lambda value: value in (attributes.get("image"), event.id if event.type == "image" else None),
        "label": lambda value: value in labels,
    }
    return all(any(map(tests[key], values)) for key, values in wanted.items())


def _event(event: Event) -> dict[str, Any]:
    return {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.at // 10**9,
        "timeNano": event.at,
    }


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
