"""GET /containers/{id}/stats: what a container uses, once or every second, in the form of Docker's ContainerStats."""

import asyncio
import math
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from swarmd.agent.api import query
from swarmd.agent.api.interface import Engine, services
from swarmd.agent.api.streams import answer, json_line, respond, stamp
from swarmd.runtime.cgroups.interface import Stats
from swarmd.runtime.errors import Conflict, NotFound
from swarmd.runtime.model import ContainerState

_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_INTERVAL = 1.0
# Names of the API, and what cgroups call it.
_BLKIO = {
    "io_service_bytes_recursive": "io_service_bytes",
    "io_serviced_recursive": "io_serviced",
    "io_queue_recursive": "io_queued",
    "io_service_time_recursive": "io_service_time",
    "io_wait_time_recursive": "io_wait_time",
    "io_merged_recursive": "io_merged",
    "io_time_recursive": "time",
    "sectors_recursive": "sectors",
}
_NO_TIME = "0001-01-01T00:00:00Z"


class Sampler:
    """Readings for those who follow a container: one a second, however many they are.

    Whoever is first after a second reads; the others, who wake with it, get the same.
    """

    def __init__(self) -> None:
        self._followers: Counter[str] = Counter()
        self._last: dict[str, tuple[float, dict[str, Any]]] = {}

    async def follow(self, engine: Engine, id: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield a reading every second, the first at once. Raises NotFound when the container has gone."""
        self._followers[id] += 1
        try:
            while True:
                taken, now = self._last.get(id, (-math.inf, {}))
                if time.monotonic() - taken >= _INTERVAL:
                    taken, now = self._last[id] = time.monotonic(), sample(engine, id)
                yield now
                await asyncio.sleep(taken + _INTERVAL - time.monotonic())
        finally:
            self._followers[id] -= 1
            if not self._followers[id]:
                del self._followers[id]
                self._last.pop(id, None)


SAMPLER = web.AppKey("sampler", Sampler)


async def stats(request: web.Request) -> web.StreamResponse:
    engine = services(request).engine
    state = engine.inspect(request.match_info["id"])
    if query.flag(request, "stream", default=True):
        readings = request.app[SAMPLER].follow(engine, state.id)
        return await respond(request, "application/json", _every_second(engine, state.id, readings))
    before = None
    if not query.flag(request, "one-shot"):  # two samples, so that the client can tell a rate
        before = sample(engine, state.id)
        await asyncio.sleep(_INTERVAL)
    return answer(_whole(engine.inspect(state.id), sample(engine, state.id), before))


async def _every_second(
    engine: Engine, id: str, readings: AsyncGenerator[dict[str, Any], None]
) -> AsyncIterator[bytes]:
    before = None
    with suppress(NotFound):
        async with aclosing(readings):
            async for now in readings:
                yield json_line(_whole(engine.inspect(id), now, before))
                before = now


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
        "blkio_stats": {name: _block(measured, what) for name, what in _BLKIO.items()},
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
    shown = {
        "usage": measured.memory_usage,
        "limit": measured.memory_limit or whole,
        "stats": dict(measured.memory_stat),
    }
    if measured.memory_failures is not None:  # cgroup v1: Docker has neither in v2
        shown |= {"max_usage": measured.memory_peak, "failcnt": measured.memory_failures}
    return shown


def _block(measured: Stats, what: str) -> list[dict[str, Any]] | None:
    """null for what this version of cgroups does not count."""
    if what not in measured.blkio:
        return None
    return [{"major": e.major, "minor": e.minor, "op": e.kind, "value": e.value} for e in measured.blkio[what]]


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
