"""Commands run in a container: created, started once, and their exit code read afterwards."""

from aiohttp import web

from swarmd.agent.api.attach import size
from swarmd.agent.api.fields import Fields, body
from swarmd.agent.api.hijack import taken, taking_over
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer
from swarmd.proto.errors import Invalid
from swarmd.runtime.attach import Streams
from swarmd.runtime.errors import StartError
from swarmd.runtime.exec import Command


async def create(request: web.Request) -> web.Response:
    state = services(request).engine.inspect(request.match_info["id"])
    command, streams = _read(await body(request))
    return answer({"Id": services(request).engine.exec_create(state.id, command, streams)}, status=201)


def _read(data: object) -> tuple[Command, Streams]:
    with Fields(data) as fields:
        for name in ("Detach",):  # said again at the start
            fields.flag(name)
        for name in ("Container", "DetachKeys"):  # docker-py repeats the path; the keys are the client's own business
            fields.text(name)
        arguments = fields.text_or_texts("Cmd")
        if not arguments:
            raise Invalid("field Cmd is required: name the command to run")
        workdir = fields.text("WorkingDir")
        if workdir and not workdir.startswith("/"):
            raise Invalid(f"working directory {workdir} is not absolute: begin it with /")
        command = Command(
            command=arguments,
            env=fields.texts("Env"),
            user=fields.text("User"),
            workdir=workdir,
            tty=fields.flag("Tty"),
            size=_size(fields),
            privileged=fields.flag("Privileged"),
        )
        stdin, stdout, stderr = (fields.flag(f"Attach{name}") for name in ("Stdin", "Stdout", "Stderr"))
    return command, Streams(stdin=stdin, stdout=stdout, stderr=stderr)


def _size(fields: Fields) -> tuple[int, int]:
    given = fields.numbers("ConsoleSize") or (0, 0)
    if len(given) != 2 or not all(0 <= number < 1 << 16 for number in given):
        raise Invalid("field ConsoleSize must be a height and a width, up to 65535")
    return given[0], given[1]


async def start(request: web.Request) -> web.Response:
    engine, id = services(request).engine, request.match_info["id"]
    with Fields(await body(request) or {}) as fields:
        detach, console = fields.flag("Detach"), _size(fields)
        fields.flag("Tty")  # said at its creation
    made = engine.exec_inspect(id)
    if detach:
        await engine.exec_start(made.id, None, console)
        return web.Response(status=200)
    connections = taking_over(request, framed=not made.command.tty)
    try:
        await engine.exec_start(made.id, connections, console)
    except StartError:
        return taken(request)  # the client has been told in its stream, and finds the code when it inspects
    return taken(request)


async def inspect(request: web.Request) -> web.Response:
    made = services(request).engine.exec_inspect(request.match_info["id"])
    command = made.command
    process = {
        "tty": command.tty,
        "entrypoint": command.command[0],
        "arguments": list(command.command[1:]),
        "privileged": command.privileged,
        "user": command.user,
    }
    return answer(
        {
            "ID": made.id,
            "ContainerID": made.container,
            "Running": made.running is not None and made.exit_code is None,
            "ExitCode": made.exit_code,
            "Pid": made.pid,
            "OpenStdin": made.streams.stdin,
            "OpenStdout": made.streams.stdout,
            "OpenStderr": made.streams.stderr,
            "CanRemove": made.exit_code is not None,
            "DetachKeys": "",
            "ProcessConfig": process,
        }
    )


async def resize(request: web.Request) -> web.Response:
    services(request).engine.exec_resize(request.match_info["id"], *size(request))
    return web.Response(status=200)
