"""GET /containers/{id}/stats: what a container uses, once or every second, in the form of Docker's ContainerStats."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from swarmd.agent.api import query
from swarmd.agent.api.interface import Engine, services
from swarmd.agent.api.streams import answer, json_line, respond, stamp
from swarmd.runtime.cgroups.interface import Stats, Transferred
from swarmd.runtime.errors import Conflict, NotFound
from swarmd.runtime.model import ContainerState

_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_INTERVAL = 1.0
_NO_TIME = "0001-01-01T00:00:00Z"


async def stats(request: web.Request) -> web.StreamResponse:
    engine = services(request).engine
    state = engine.inspect(request.match_info["id"])
    if query.flag(request, "stream", default=True):
        return await respond(request, "application/json", _every_second(engine, state.id))
    before = None
    if not query.flag(request, "one-shot"):  # two samples, so that the client can tell a rate
        before = sample(engine, state.id)
        await asyncio.sleep(_INTERVAL)
    return answer(_whole(engine.inspect(state.id), sample(engine, state.id), before))


async def _every_second(engine: Engine, id: str) -> AsyncIterator[bytes]:
    before = None
    while True:
        try:
            now, state = sample(engine, id), engine.inspect(id)
        except NotFound:
            return
        yield json_line(_whole(state, now, before))
        before = now
        await asyncio.sleep(_INTERVAL)


def sample(engine: Engine, id: str) -> dict[str, Any]:
    """What changes; of a container that does not run, nothing but zeroes, as Docker answers."""
    now = stamp(time.time_ns())
    try:
        measured, pid = engine.stats(id), engine.inspect(id).pid
    except (Conflict, FileNotFoundError):  # FileNotFoundError: it ended in the middle
        return {"read": now, "cpu_stats": {}, "memory_stats": {}, "blkio_stats": {}, "pids_stats": {}, "networks": {}}
    return {
        "read": now,
        "cpu_stats": _cpu(measured),
        "memory_stats": _memory(measured),
        "blkio_stats": {
            "io_service_bytes_recursive": _block(measured.blkio_bytes),
            "io_serviced_recursive": _block(measured.blkio_operations),
        },
        "pids_stats": {"current": measured.pids, "limit": measured.pids_limit or (1 << 64) - 1},
        "networks": networks(pid),
    }


def _whole(state: ContainerState, now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    names = {"id": state.id, "name": f"/{state.name}"}
    earlier = {"preread": before["read"], "precpu_stats": before["cpu_stats"]} if before else {}
    return {"preread": _NO_TIME, "precpu_stats": {}, "num_procs": 0, "storage_stats": {}, **names, **now, **earlier}


def _cpu(measured: Stats) -> dict[str, Any]:
    return {
        "cpu_usage": {
            "total_usage": measured.cpu_usage,
            "percpu_usage": list(measured.per_cpu),
            "usage_in_kernelmode": measured.cpu_system,
            "usage_in_usermode": measured.cpu_user,
        },
        "system_cpu_usage": _system_cpu(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": measured.cpu_periods,
            "throttled_periods": measured.cpu_throttled_periods,
            "throttled_time": measured.cpu_throttled,
        },
    }


def _system_cpu() -> int:
    """Nanoseconds that all processors were busy or idle, of the first line of /proc/stat."""
    with Path("/proc/stat").open() as stat:
        return sum(map(int, stat.readline().split()[1:8])) * _TICK_NS


def _memory(measured: Stats) -> dict[str, Any]:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    inactive = measured.memory_inactive_file
    return {
        "usage": measured.memory_usage,
        "max_usage": measured.memory_peak,
        "limit": measured.memory_limit or whole,
        "failcnt": 0,
        "stats": {"total_inactive_file": inactive, "inactive_file": inactive},
    }


def _block(entries: Sequence[Transferred]) -> list[dict[str, Any]]:
    return [{"major": e.major, "minor": e.minor, "op": e.kind, "value": e.value} for e in entries]


def networks(pid: int) -> dict[str, Any]:
    """Per interface but loopback, of /proc/<pid>/net/dev; see proc(5)."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        numbers = list(map(int, rest.split()))
        keys = ("bytes", "packets", "errors", "dropped")
        received = {f"rx_{key}": value for key, value in zip(keys, numbers[:4], strict=True)}
        sent = {f"tx_{key}": value for key, value in zip(keys, numbers[8:12], strict=True)}
        if name.strip() != "lo":
            found[name.strip()] = received | sent
    return found
