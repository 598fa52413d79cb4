"""GET /containers/json: which containers are listed, by Docker's filters."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from swarmd.agent.api import query
from swarmd.agent.api.container_image import image_of
from swarmd.agent.api.container_json import shown_state, summary
from swarmd.agent.api.interface import Engine, services
from swarmd.agent.api.streams import answer
from swarmd.proto.errors import Invalid
from swarmd.runtime.effective import exposed
from swarmd.runtime.errors import NotFound
from swarmd.runtime.model import ContainerState, ImageMount, Phase

_STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_HEALTH = ("none", "starting", "healthy", "unhealthy")
_FINISHED = {"status", "exited"}  # filters that speak of those that have ended

Test = Callable[[Engine, ContainerState, str], bool]


def _name(engine: Engine, state: ContainerState, value: str) -> bool:
    try:
        return re.search(value, f"/{state.name}") is not None or re.search(value, state.name) is not None
    except re.error as error:
        raise Invalid(f"filter name={value}: no regular expression: {error}") from None


def _label(engine: Engine, state: ContainerState, value: str) -> bool:
    key, equals, text = value.partition("=")
    labels = image_of(engine, state).config.labels | state.config.labels
    return key in labels and (not equals or labels[key] == text)


def _one_of(name: str, known: Sequence[str], value: str) -> str:
    if value not in known:
        raise Invalid(f"filter {name}={value} is not known: it is one of {', '.join(known)}")
    return value


def _exited(engine: Engine, state: ContainerState, value: str) -> bool:
    if not value.isdigit():
        raise Invalid(f"filter exited={value}: an exit code is a number")
    return state.phase is Phase.EXITED and state.exit is not None and state.exit.code == int(value)


def _ancestor(engine: Engine, state: ContainerState, value: str) -> bool:
    """By name or id, and those whose image has all the layers of the one named."""
    if value in (state.config.image, state.image_id):
        return True
    try:
        image, theirs = engine.images.get(value), engine.images.get(state.image_id)
    except NotFound:
        return False
    return theirs.layers[: len(image.layers)] == image.layers


def _before(engine: Engine, state: ContainerState, value: str) -> bool:
    return state.created < engine.inspect(value).created


def _since(engine: Engine, state: ContainerState, value: str) -> bool:
    return state.created > engine.inspect(value).created


def _network(engine: Engine, state: ContainerState, value: str) -> bool:
    ids = {network.name for network in engine.networks.list() if network.id.startswith(value)}
    asked = {request.network for request in state.config.networks} or {state.config.network_mode}
    return any(name == value or name in ids for name in {*asked, *(n.network for n in state.networks)})


def _port(value: str) -> tuple[range, str]:
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", value)
    if not match:
        raise Invalid(f"port filter {value!r} is not of the form 80, 80/tcp or 8000-8080/tcp")
    return range(int(match[1]), int(match[2] or match[1]) + 1), match[3] or "tcp"


def _publish(engine: Engine, state: ContainerState, value: str) -> bool:
    numbers, protocol = _port(value)
    return any(port.host_port in numbers and port.protocol == protocol for port in state.ports or state.config.ports)


def _expose(engine: Engine, state: ContainerState, value: str) -> bool:
    numbers, protocol = _port(value)
    said = (
        *exposed(state.config, image_of(engine, state)),
        *(f"{port.container_port}/{port.protocol}" for port in state.config.ports),
    )
    return any(int(text.partition("/")[0]) in numbers and text.partition("/")[2] == protocol for text in said)


def _volume(engine: Engine, state: ContainerState, value: str) -> bool:
    sources = (getattr(mount, "source", "") for mount in state.config.mounts if not isinstance(mount, ImageMount))
    return value in {*sources, *(mount.target for mount in state.config.mounts)}


def _is_task(engine: Engine, state: ContainerState, value: str) -> bool:
    return ("com.docker.swarm.task.id" in state.config.labels) == (
        _one_of("is-task", ("true", "false"), value) == "true"
    )


FILTERS: Mapping[str, Test] = {
    "ancestor": _ancestor,
    "before": _before,
    "exited": _exited,
    "expose": _expose,
    "health": lambda engine, state, value: state.health.value == _one_of("health", _HEALTH, value),
    "id": lambda engine, state, value: state.id.startswith(value),
    "is-task": _is_task,
    "isolation": lambda engine, state, value: _one_of("isolation", ("default",), value) == "default",
    "label": _label,
    "name": _name,
    "network": _network,
    "publish": _publish,
    "since": _since,
    "status": lambda engine, state, value: shown_state(state) == _one_of("status", _STATES, value),
    "volume": _volume,
}
_ALL_OF = frozenset({"label"})  # every value must be so, where others are alternatives


def selected(engine: Engine, wanted: Mapping[str, Sequence[str]]) -> list[ContainerState]:
    """The newest first. Raises Invalid for a value that means nothing, NotFound for a container that isn't."""

    def passes(state: ContainerState) -> bool:
        return all(
            (all if key in _ALL_OF else any)(FILTERS[key](engine, state, value) for value in values)
            for key, values in wanted.items()
        )

    return sorted((state for state in engine.list() if passes(state)), key=lambda state: state.created, reverse=True)


def _is_up(state: ContainerState) -> bool:
    return state.phase is Phase.RUNNING or state.restarting


async def listing(request: web.Request) -> web.Response:
    wanted = query.filters(request)
    query.only(wanted, frozenset(FILTERS))
    engine, limit = services(request).engine, query.number(request, "limit")
    everything = query.flag(request, "all") or limit > 0 or wanted.keys() & _FINISHED
    found = [state for state in selected(engine, wanted) if everything or _is_up(state)]
    found = found[:limit] if limit > 0 else found
    now = time.time_ns()
    rows = [summary(state, image_of(engine, state), now) for state in found]
    if query.flag(request, "size"):
        for row, state in zip(rows, found, strict=True):
            written, whole = await asyncio.to_thread(engine.sizes, state.id)
            row |= {"SizeRw": written, "SizeRootFs": whole}
    return answer(rows)
