"""swarmctl exec."""

from __future__ import annotations

from swarmd.swarmctl import session, start, terminal, values
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.parser import Args, Parser
from swarmd.swarmctl.values import DETACH_KEYS


def add_exec(parser: Parser) -> None:
    parser.usage_code = 125
    parser.switch("-d", "--detach", help="in the background")
    parser.text("--detach-keys", default="", metavar="KEYS", help=f"keys that detach (default: {DETACH_KEYS})")
    parser.several("-e", "--env", type=values.env, help="NAME=value, or NAME with this shell's value")
    parser.several("--env-file", type=values.env_file, help="file of them", metavar="FILE")
    parser.switch("-i", "--interactive", help="give it this input")
    parser.switch("--privileged", help="all capabilities")
    parser.switch("-t", "--tty", help="give it a terminal")
    parser.text("-u", "--user", default="", metavar="USER", help="user or uid[:gid]")
    parser.text("-w", "--workdir", default="", metavar="DIRECTORY", help="working directory")
    parser.argument("container", "CONTAINER")
    parser.command(required=True)
    parser.set_defaults(run=execute, parser=parser)


def execute(client: Client, args: Args) -> int:
    if not args.command:
        args.parser.error("name the command to run")
    terminal.keys(args.detach_keys or DETACH_KEYS)
    stdin = args.interactive and not args.detach
    session.check_terminal(stdin=stdin, tty=args.tty)
    size = terminal.size() if args.tty else None
    wanted = {
        "AttachStdin": stdin,
        "AttachStdout": not args.detach,
        "AttachStderr": not args.detach,
        "Cmd": args.command,
        "Env": [*(line for file in args.env_file for line in file), *args.env],
        "User": args.user,
        "WorkingDir": args.workdir,
        "Tty": args.tty,
        "Privileged": args.privileged,
        "DetachKeys": args.detach_keys,
    }
    if size:
        wanted["ConsoleSize"] = [*size]
    id = client.post(f"/containers/{segment(args.container)}/exec", wanted)["Id"]
    wanted_start = {"Detach": args.detach, "Tty": args.tty} | ({"ConsoleSize": [*size]} if size else {})
    try:
        if args.detach:
            client.post(f"/exec/{id}/start", wanted_start)
            return 0
        joined = session.Session(
            client.hijack(f"/exec/{id}/start", wanted_start), stdin=stdin, tty=args.tty, detach_keys=args.detach_keys
        )
    except Refusal as refusal:
        raise start.failure(refusal) from None
    with session.resizing(args.tty, lambda rows, columns: client.post(f"/exec/{id}/resize", h=rows, w=columns)):
        joined.run()
    return 0 if joined.detached else int(client.get(f"/exec/{id}/json").get("ExitCode") or 0)
