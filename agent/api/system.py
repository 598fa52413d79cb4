"""The daemon itself: ping, version, info and events."""

import asyncio
import logging
import os
import platform
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from swarmd.agent.api import host_facts, objects, query
from swarmd.agent.api.container_json import shown_state
from swarmd.agent.api.interface import SwarmInfo, services
from swarmd.agent.api.streams import answer, json_line, respond
from swarmd.agent.api.versions import MAXIMUM, MINIMUM
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto.codec import encode
from swarmd.proto.errors import SwarmdError
from swarmd.runtime import cdi, log_drivers
from swarmd.runtime.model import Event
from swarmd.runtime.registry import Settings

log = logging.getLogger(__name__)
EVENT_FILTERS = frozenset({"container", "daemon", "event", "image", "label", "network", "scope", "type"})


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
    states = [shown_state(state) for state in parts.engine.list()]
    running, paused = states.count("running"), states.count("paused")
    return answer(
        {
            "ID": parts.membership.info().node_id or parts.host.name,
            "Name": parts.host.name,
            "ServerVersion": parts.host.version,
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(states) - running - paused,
            "Images": len(parts.engine.images.list()),
            "Driver": "overlay",
            "SystemTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "DockerRootDir": str(parts.host.data_root),
            "OperatingSystem": _distribution(),
            "OSVersion": _release().get("VERSION_ID", ""),
            "OSType": "linux",
            "KernelVersion": platform.release(),
            "Architecture": platform.machine(),
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "Debug": log.isEnabledFor(logging.DEBUG),
            "NEventsListener": parts.engine.listeners(),
            "NGoroutines": len(asyncio.all_tasks()),
            "NFd": sum(1 for _ in Path("/proc/self/fd").iterdir()),
            "Plugins": {
                "Volume": [],
                "Network": ["bridge", "host", "null", "overlay"],
                "Authorization": None,
                "Log": sorted(log_drivers.DRIVERS),
            },
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": _registries(parts.engine.registries.settings),
            "Labels": [],
            "ExperimentalBuild": False,
            "LiveRestoreEnabled": True,
            "DefaultRuntime": "swarmd",
            "Runtimes": {"swarmd": {"path": "swarmd-oci"}} | _other_runtimes(),
            "InitBinary": "swarmd-init",
            "Isolation": "",
            "CDISpecDirs": [str(path) for path in cdi.DIRECTORIES],
            "ProductLicense": "",
            "Swarm": await _swarm(request, parts.membership.info()),
            **host_facts.facts(parts.host.data_root),
        }
    )


def _registries(settings: Settings) -> dict[str, Any]:
    """Docker Hub, and those that are insecure by name; a network is one by its form."""
    named = [entry for entry in settings.insecure if "/" not in entry]
    indexes = {"docker.io": settings.mirrors.get("docker.io", ())} | dict.fromkeys(named, ())
    return {
        "InsecureRegistryCIDRs": [entry for entry in settings.insecure if "/" in entry],
        "IndexConfigs": {
            name: {
                **{"Name": name, "Mirrors": list(mirrors), "Secure": name not in named},
                "Official": name == "docker.io",
            }
            for name, mirrors in indexes.items()
        },
        "Mirrors": list(settings.mirrors.get("docker.io", ())) or None,
    }


def _other_runtimes() -> dict[str, dict[str, str]]:
    return {name: {"path": path} for name in ("runc", "crun") if (path := shutil.which(name))}


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
            status = await objects.control(request).Status(control_pb.StatusRequest())
            shown["Error"] = shown["Error"] or status.problem
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
    """Events as lines of JSON: from `since` on where it is given, until `until`."""
    wanted = query.filters(request)
    query.only(wanted, EVENT_FILTERS)
    since, until = query.moment(request, "since"), query.moment(request, "until")
    return await respond(request, "application/json", _events(request, wanted, since, until))


async def _events(
    request: web.Request, wanted: dict[str, tuple[str, ...]], since: int, until: int
) -> AsyncIterator[bytes]:
    remaining = max(0.05, until / 1e9 - time.time()) if until else None
    try:
        async with asyncio.timeout(remaining), aclosing(cast("Any", services(request).engine.events(since))) as stream:
            async for event in stream:
                if until and event.at > until:
                    return
                if _is_wanted(event, wanted):
                    yield json_line(_event(event))
    except TimeoutError:
        return


def _is_wanted(event: Event, wanted: dict[str, tuple[str, ...]]) -> bool:
    attributes = event.attributes
    labels = {f"{key}={value}" for key, value in attributes.items()} | attributes.keys()

    def is_a(kind: str, value: str) -> bool:
        return event.type == kind and (event.id.startswith(value) or attributes.get("name") == value)

    tests = {
        "type": lambda value: value == event.type,
        "event": lambda value: event.action == value or event.action.startswith(f"{value}:"),
        "container": lambda value: is_a("container", value) or attributes.get("container", "") == value,
        "network": lambda value: is_a("network", value),
        "image": lambda value: attributes.get("image") == value or is_a("image", value),
        "daemon": lambda value: is_a("daemon", value),
        "scope": lambda value: value == "local",
        "label": lambda value: value in labels,
    }
    return all(any(map(tests[key], values)) for key, values in wanted.items())


def _event(event: Event) -> dict[str, Any]:
    return {
        "status": event.action,
        "id": event.id,
        "from": event.attributes.get("image", ""),
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
    return _release().get("PRETTY_NAME", "Linux")


def _release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
