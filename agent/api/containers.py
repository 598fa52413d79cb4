"""Containers of this node."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from swarmd.agent.api import query
from swarmd.agent.api.container_config import container_config
from swarmd.agent.api.container_json import inspected, summary
from swarmd.agent.api.fields import body
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import MULTIPLEXED, RAW, answer, frame, json_line, respond, stamp
from swarmd.proto.errors import Invalid
from swarmd.runtime.checks import warnings
from swarmd.runtime.model import ContainerState, Exit, LogEntry, Phase

_FILTERS: Mapping[str, Callable[[ContainerState, str], bool]] = {
    "id": lambda state, value: state.id.startswith(value),
    "name": lambda state, value: value.removeprefix("/") in state.name,
    "label": lambda state, value: (
        value in state.config.labels or value in {f"{key}={text}" for key, text in state.config.labels.items()}
    ),
    "status": lambda state, value: state.phase.value == value,
    "health": lambda state, value: state.health.value == value,
    "ancestor": lambda state, value: value in (state.config.image, state.image_id),
    "exited": lambda state, value: state.exit is not None and str(state.exit.code) == value,
    "network": lambda state, value: any(network.network == value for network in state.networks),
}


async def listing(request: web.Request) -> web.Response:
    wanted = query.filters(request)
    query.only(wanted, frozenset(_FILTERS))
    # A filter on how containers ended speaks of those that have.
    everything = (
        query.flag(request, "all") or query.number(request, "limit") > 0 or wanted.keys() & {"status", "exited"}
    )
    now = time.time_ns()
    found = [
        state
        for state in sorted(services(request).engine.list(), key=lambda state: state.created, reverse=True)
        if (everything or state.phase is Phase.RUNNING)
        and all(any(_FILTERS[key](state, value) for value in values) for key, values in wanted.items())
    ]
    limit = query.number(request, "limit")
    return answer([summary(state, now) for state in (found[:limit] if limit > 0 else found)])


async def create(request: web.Request) -> web.Response:
    name = request.query.get("name", "")
    engine = services(request).engine
    config = container_config(await body(request), engine.inspect)
    id = await engine.create(config, name)
    return answer({"Id": id, "Warnings": warnings(config)}, status=201)


async def inspect(request: web.Request) -> web.Response:
    return answer(inspected(_state(request)))


async def start(request: web.Request) -> web.Response:
    state = _state(request)
    if state.phase is Phase.RUNNING:
        return web.Response(status=304)
    await services(request).engine.start(state.id)
    return web.Response(status=204)


async def stop(request: web.Request) -> web.Response:
    state = _state(request)
    if state.phase is not Phase.RUNNING:
        return web.Response(status=304)
    timeout = float(query.number(request, "t")) if "t" in request.query else None
    await services(request).engine.stop(state.id, timeout)
    return web.Response(status=204)


async def kill(request: web.Request) -> web.Response:
    number = _signal(request.query.get("signal") or "KILL")
    await services(request).engine.kill(_state(request).id, number)
    return web.Response(status=204)


async def remove(request: web.Request) -> web.Response:
    # v=1 asks for the container's anonymous volumes to go too: there are none.
    await services(request).engine.remove(_state(request).id, force=query.flag(request, "force"))
    return web.Response(status=204)


async def wait(request: web.Request) -> web.StreamResponse:
    """Answer with the exit status; headers go first, so that the client knows that it is heard before it starts it."""
    condition = request.query.get("condition") or "not-running"
    if condition not in _WAITS:
        raise Invalid(f"condition {condition} is unknown: use {', '.join(_WAITS)}")
    state = _state(request)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    async with asyncio.TaskGroup() as group:
        ended = group.create_task(_WAITS[condition](request, state))
        await asyncio.sleep(0)  # it listens before the client hears that it does
        await response.prepare(request)
        end = await ended
    shown: dict[str, Any] = {"StatusCode": end.code}
    if end.error:
        shown["Error"] = {"Message": end.error}
    await response.write(json_line(shown))
    await response.write_eof()
    return response


async def _not_running(request: web.Request, state: ContainerState) -> Exit:
    if state.phase is Phase.RUNNING:
        return await services(request).engine.wait(state.id)
    return state.exit or Exit(code=0, at=0)


async def _next_exit(request: web.Request, state: ContainerState) -> Exit:
    engine = services(request).engine
    if state.phase is not Phase.RUNNING:
        await _event(request, state.id, "start")
    return await engine.wait(state.id)


async def _removed(request: web.Request, state: ContainerState) -> Exit:
    """How it ended last, or 0 when it was never started."""
    end = state.exit or Exit(code=0, at=0)
    async with aclosing(cast("Any", services(request).engine.events())) as stream:
        async for event in stream:
            if event.id == state.id and event.action == "die":
                end = Exit(code=int(event.attributes["exitCode"]), at=event.at)
            if event.id == state.id and event.action == "destroy":
                break
    return end


_WAITS = {"not-running": _not_running, "next-exit": _next_exit, "removed": _removed}


async def _event(request: web.Request, id: str, action: str) -> None:
    async with aclosing(cast("Any", services(request).engine.events())) as stream:
        async for event in stream:
            if event.id == id and event.action == action:
                return


async def logs(request: web.Request) -> web.StreamResponse:
    state = _state(request)
    stdout, stderr = query.flag(request, "stdout"), query.flag(request, "stderr")
    if not (stdout or stderr):
        raise Invalid("ask for stdout, stderr or both")
    entries = services(request).engine.logs(
        state.id,
        follow=query.flag(request, "follow"),
        since=query.moment(request, "since"),
        until=query.moment(request, "until"),
        tail=query.tail(request),
        stdout=stdout,
        stderr=stderr,
    )
    chunks = _frames(entries, framed=not state.config.tty, timestamps=query.flag(request, "timestamps"))
    return await respond(request, RAW if state.config.tty else MULTIPLEXED, chunks)


async def _frames(entries: AsyncIterator[LogEntry], *, framed: bool, timestamps: bool) -> AsyncIterator[bytes]:
    async with aclosing(cast("Any", entries)):
        async for entry in entries:
            data = f"{stamp(entry.at)} ".encode() + entry.data if timestamps else entry.data
            yield frame(entry.stream, data) if framed else data


def _state(request: web.Request) -> ContainerState:
    return services(request).engine.inspect(request.match_info["id"])


def _signal(text: str) -> int:
    if text.isdigit() and int(text) in range(1, 65):
        return int(text)
    try:
        return signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"]
    except KeyError:
        raise Invalid(f"signal {text} is unknown: name one such as TERM, or its number") from None
