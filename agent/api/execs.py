"""Commands run in a container: created, started once, and their exit code read afterwards.

They are not interactive: output comes when the command has ended, and there is no input.
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from swarmd.agent.api.fields import Fields, body
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import MULTIPLEXED, RAW, answer, frame
from swarmd.proto.errors import Conflict, Invalid, NotFound
from swarmd.runtime.model import Phase

_KEPT = 1000
_UPGRADED = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {RAW}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()


@dataclass(slots=True)
class Exec:
    id: str
    container: str
    command: Sequence[str]
    env: Sequence[str]
    user: str
    workdir: str
    started: bool = False
    exit_code: int | None = None


class Execs:
    """Those of this daemon's life; the oldest is forgotten for the newest."""

    def __init__(self) -> None:
        self._byid: dict[str, Exec] = {}

    def add(self, made: Exec) -> None:
        self._byid[made.id] = made
        if len(self._byid) > _KEPT:
            del self._byid[next(iter(self._byid))]

    def get(self, id: str) -> Exec:
        if id not in self._byid:
            raise NotFound(f"no exec {id}")
        return self._byid[id]


EXECS = web.AppKey("execs", Execs)


async def create(request: web.Request) -> web.Response:
    state = services(request).engine.inspect(request.match_info["id"])
    if state.phase is not Phase.RUNNING:
        raise Conflict(f"container {state.name} is not running: start it first")
    made = _read(state.id, await body(request))
    request.app[EXECS].add(made)
    return answer({"Id": made.id}, status=201)


def _read(container: str, data: object) -> Exec:
    with Fields(data, unsupported=("AttachStdin", "ConsoleSize", "DetachKeys", "Privileged", "Tty")) as fields:
        fields.flag("Detach")
        for output in ("AttachStdout", "AttachStderr"):
            fields.flag(output)
        fields.text("Container")  # docker-py repeats the path here
        command = fields.text_or_texts("Cmd")
        if not command:
            raise Invalid("field Cmd is required: name the command to run")
        env, user, workdir = fields.texts("Env"), fields.text("User"), fields.text("WorkingDir")
    return Exec(secrets.token_hex(32), container, command, env, user, workdir)


async def start(request: web.Request) -> web.StreamResponse:
    made = request.app[EXECS].get(request.match_info["id"])
    with Fields(await body(request) or {}, unsupported=("ConsoleSize", "Tty")) as fields:
        detach = fields.flag("Detach")
    if detach:
        raise Invalid("field Detach is not supported for exec: run the command as the container's own, or wait for it")
    if made.started:
        raise Conflict(f"exec {made.id[:12]} has already run")
    made.started = True
    taken = _taken_over(request)
    result = await services(request).engine.exec(
        made.container, made.command, env=made.env, user=made.user, workdir=made.workdir
    )
    made.exit_code = result.exit_code
    content = b"".join(
        frame(name, data) for name, data in (("stdout", result.stdout), ("stderr", result.stderr)) if data
    )
    if taken is not None:
        taken.write(content)
        taken.close()
        return web.Response(status=101)
    return web.Response(body=content, content_type=MULTIPLEXED)


def _taken_over(request: web.Request) -> asyncio.WriteTransport | None:
    """Docker's clients take the connection over from HTTP: the answer is 101 at once, then bytes until it is closed."""
    if "upgrade" not in request.headers.get("Connection", "").lower():
        return None
    transport = cast("asyncio.Transport", request.transport)  # uvloop's is none by type, only by its methods
    transport.set_protocol(_HalfOpen(transport.get_protocol()))
    transport.write(_UPGRADED)
    return transport


class _HalfOpen(asyncio.Protocol):
    """Lets the client end its side, which it does at once as there is no input, and still get the output."""

    def __init__(self, before: asyncio.BaseProtocol) -> None:
        self._before = before

    def eof_received(self) -> bool:
        return True

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()

    def connection_lost(self, problem: Exception | None) -> None:
        self._before.connection_lost(problem)


async def inspect(request: web.Request) -> web.Response:
    made = request.app[EXECS].get(request.match_info["id"])
    return answer(
        {
            "ID": made.id,
            "ContainerID": made.container,
            "Running": made.started and made.exit_code is None,
            "ExitCode": made.exit_code,
            "ProcessConfig": {"entrypoint": made.command[0], "arguments": list(made.command[1:]), "user": made.user},
        }
    )
