"""Containers of this node."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from swarmd.agent.api import host_config, query
from swarmd.agent.api.container_config import container_config
from swarmd.agent.api.container_image import image_of
from swarmd.agent.api.container_json import inspected
from swarmd.agent.api.container_list import FILTERS, selected
from swarmd.agent.api.fields import Fields, body
from swarmd.agent.api.images import platform
from swarmd.agent.api.interface import Engine, services
from swarmd.agent.api.streams import MULTIPLEXED, RAW, answer, details_of, frame, json_line, respond, stamp
from swarmd.proto.errors import Invalid
from swarmd.runtime.checks import warnings
from swarmd.runtime.errors import Conflict, NotFound
from swarmd.runtime.logs import Selection
from swarmd.runtime.model import ContainerState, Event, Exit, LogEntry, Phase


async def create(request: web.Request) -> web.Response:
    name = request.query.get("name", "")
    engine = services(request).engine
    config = container_config(await body(request), engine.inspect)
    id = await engine.create(config, name, platform(request))
    return answer({"Id": id, "Warnings": warnings(config)}, status=201)


async def inspect(request: web.Request) -> web.Response:
    engine, state = services(request).engine, _state(request)
    shown = inspected(state, image_of(engine, state), engine.directory(state.id))
    if query.flag(request, "size"):
        written, whole = await asyncio.to_thread(engine.sizes, state.id)
        shown |= {"SizeRw": written, "SizeRootFs": whole}
    return answer(shown)


async def start(request: web.Request) -> web.Response:
    state = _state(request)
    if state.phase is Phase.RUNNING:
        return web.Response(status=304)
    try:
        await services(request).engine.start(state.id)
    except Conflict:
        if _state(request).phase is Phase.RUNNING:  # another was faster
            return web.Response(status=304)
        raise
    return web.Response(status=204)


async def stop(request: web.Request) -> web.Response:
    state = _state(request)
    if state.phase is not Phase.RUNNING and not state.restarting:
        return web.Response(status=304)
    await services(request).engine.stop(state.id, *_ending(request))
    return web.Response(status=204)


async def restart(request: web.Request) -> web.Response:
    await services(request).engine.restart(_state(request).id, *_ending(request))
    return web.Response(status=204)


def _ending(request: web.Request) -> tuple[float | None, int]:
    """How long it has to end, and the signal that asks it to."""
    timeout = float(query.number(request, "t")) if request.query.get("t") else None
    name = request.query.get("signal", "")
    return timeout, _signal(name) if name else 0


async def kill(request: web.Request) -> web.Response:
    number = _signal(request.query.get("signal") or "KILL")
    await services(request).engine.kill(_state(request).id, number)
    return web.Response(status=204)


async def pause(request: web.Request) -> web.Response:
    await services(request).engine.pause(_state(request).id)
    return web.Response(status=204)


async def unpause(request: web.Request) -> web.Response:
    await services(request).engine.unpause(_state(request).id)
    return web.Response(status=204)


async def rename(request: web.Request) -> web.Response:
    name = request.query.get("name", "")
    if not name:
        raise Invalid("query parameter name is required: the container's new name")
    await services(request).engine.rename(_state(request).id, name)
    return web.Response(status=204)


async def update(request: web.Request) -> web.Response:
    """What is given changes, 0 and nothing leave as it is, as in Docker."""
    config = _state(request).config
    given = await body(request)
    with Fields(given, unsupported=host_config.UNSUPPORTED) as fields:
        policy = host_config.restart(fields) if fields.has("RestartPolicy") else config.restart
        for name in ("Devices", "DeviceCgroupRules", "DeviceRequests", "Ulimits", "Init"):
            fields.ignore(name, [], None, False)
        host_config.limits(fields)  # refuses what is not known
    now = host_config.limits_shown(config.limits) | {"MemorySwap": config.limits.memory_swap}
    wanted = {key: value for key, value in given.items() if key in now and value not in (None, 0, "", [], False)}
    if "NanoCpus" in wanted:
        now |= {"CpuQuota": 0, "CpuPeriod": 0}
    elif wanted.keys() & {"CpuQuota", "CpuPeriod"}:
        now |= {"NanoCpus": 0}
    with Fields(now | wanted, unsupported=host_config.UNSUPPORTED) as fields:
        limits = host_config.limits(fields)
    await services(request).engine.update(_state(request).id, limits, policy)
    return answer({"Warnings": []})


async def remove(request: web.Request) -> web.Response:
    # v=1 asks for the container's anonymous volumes to go too: there are none.
    if query.flag(request, "link"):
        raise Invalid("a link goes with the container that has it: remove that")
    await services(request).engine.remove(_state(request).id, force=query.flag(request, "force"))
    return web.Response(status=204)


async def prune(request: web.Request) -> web.Response:
    """Remove those that do not run, made before `until` and with the labels asked for."""
    wanted = query.filters(request)
    query.only(wanted, frozenset({"until", "label", "label!"}))
    engine = services(request).engine
    until = min((query.instant(text) for text in wanted.get("until", ())), default=None)
    excluded = wanted.get("label!", ())
    labels = {"label": wanted["label"]} if "label" in wanted else {}
    removed, freed = [], 0
    for state in selected(engine, labels):
        idle = state.phase is not Phase.RUNNING and not state.restarting
        kept = any(FILTERS["label"](engine, state, text) for text in excluded)
        if not idle or kept or (until is not None and state.created >= until):
            continue
        with contextlib.suppress(Conflict, NotFound):  # started or removed meanwhile
            written, _ = await asyncio.to_thread(engine.sizes, state.id)
            await engine.remove(state.id)
            removed.append(state.id)
            freed += written
    return answer({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


async def wait(request: web.Request) -> web.StreamResponse:
    """Answer with the exit status; headers go first, so that the client knows that it is heard before it starts it."""
    condition = request.query.get("condition") or "not-running"
    if condition not in _WAITS:
        raise Invalid(f"condition {condition} is unknown: use {', '.join(_WAITS)}")
    # It listens from here on: nothing is missed between this look at it and the answer's headers.
    with contextlib.closing(_WAITS[condition](request, _state(request))) as waiting:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        end = await waiting
    shown: dict[str, Any] = {"StatusCode": end.code}
    if end.error:
        shown["Error"] = {"Message": end.error}
    await response.write(json_line(shown))
    await response.write_eof()
    return response


def _not_running(request: web.Request, state: ContainerState) -> Coroutine[None, None, Exit]:
    return _next_exit(request, state) if state.phase is Phase.RUNNING else _ended(state)


async def _ended(state: ContainerState) -> Exit:
    return state.exit or Exit(code=0, at=0)


def _next_exit(request: web.Request, state: ContainerState) -> Coroutine[None, None, Exit]:
    return _heard(request, services(request).engine.events(), state, "die")


def _removed(request: web.Request, state: ContainerState) -> Coroutine[None, None, Exit]:
    return _heard(request, services(request).engine.events(), state, "destroy")


async def _heard(request: web.Request, events: AsyncIterator[Event], state: ContainerState, action: str) -> Exit:
    """How it ended last, when that action is heard of or its removal: with --rm it may be gone by then."""
    end = await _ended(state)
    async with aclosing(cast("Any", events)) as stream:
        async for event in stream:
            if request.transport is None:
                raise ConnectionResetError("the client has left")
            if event.id != state.id:
                continue
            if event.action == "die":
                end = _exit_of(services(request).engine, event)
            if event.action in (action, "destroy"):
                break
    return end


def _exit_of(engine: Engine, event: Event) -> Exit:
    with contextlib.suppress(NotFound):
        if end := engine.inspect(event.id).exit:
            return end
    return Exit(code=int(event.attributes["exitCode"]), at=event.at)


_WAITS = {"not-running": _not_running, "next-exit": _next_exit, "removed": _removed}


async def logs(request: web.Request) -> web.StreamResponse:
    state = _state(request)
    stdout, stderr = query.flag(request, "stdout"), query.flag(request, "stderr")
    if not (stdout or stderr):
        raise Invalid("ask for stdout, stderr or both")
    since, until = query.moment(request, "since"), query.moment(request, "until")
    selection = Selection(since, until, query.tail(request), stdout, stderr)
    batches = services(request).engine.log_batches(state.id, selection, query.flag(request, "follow"))
    details, timestamps = query.flag(request, "details"), query.flag(request, "timestamps")
    chunks = _frames(batches, framed=not state.config.tty, details=details, timestamps=timestamps)
    return await respond(request, RAW if state.config.tty else MULTIPLEXED, chunks)


async def _frames(
    batches: AsyncGenerator[Sequence[LogEntry], None], *, framed: bool, details: bool, timestamps: bool
) -> AsyncIterator[bytes]:
    """Each line is a frame; those that can be had at once are sent at once."""
    async with aclosing(batches):
        async for batch in batches:
            lines = [entry.data for entry in batch]
            if details or timestamps:
                lines = [_head(entry, details, timestamps) + entry.data for entry in batch]
            if framed:
                lines = [frame(entry.stream, line) for entry, line in zip(batch, lines, strict=True)]
            yield b"".join(lines)


def _head(entry: LogEntry, details: bool, timestamps: bool) -> bytes:
    head = f"{stamp(entry.at)} " if timestamps else ""
    if details:
        head += f"{details_of(entry.attributes or {})} "
    return head.encode()


def _state(request: web.Request) -> ContainerState:
    return services(request).engine.inspect(request.match_info["id"])


def _signal(text: str) -> int:
    if text.isdigit() and int(text) in range(1, 65):
        return int(text)
    try:
        return signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"]
    except KeyError:
        raise Invalid(f"signal {text} is unknown: name one such as TERM, or its number") from None
