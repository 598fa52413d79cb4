"""swarmctl ps, run, stop, rm, logs, inspect: containers of this node."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from swarmd.swarmctl import output, streams, values
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.filters import filters

_TABLE = output.Table(
    {
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "RunningFor": "CREATED",
        "Status": "STATUS",
        "Ports": "PORTS",
        "Names": "NAMES",
    }
)


def add(commands: Any) -> None:
    parser = commands.add_parser("ps", help="list containers of this node")
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help="name, id, label, status"
    )
    parser.add_argument("--format", metavar="TEMPLATE")
    parser.add_argument("--no-trunc", action="store_true", help="ids and commands in full")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.set_defaults(run=ps, parser=parser)

    parser = commands.add_parser(
        "run", help="run a container, in the background", usage="%(prog)s -d [FLAGS] IMAGE [COMMAND] [ARG...]"
    )
    parser.add_argument(
        "-d", "--detach", action="store_true", required=True, help="in the background: the only way so far"
    )
    parser.add_argument("--name", default="")
    parser.add_argument("-e", "--env", type=values.env, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("-l", "--label", type=values.pair, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("-m", "--memory", type=values.size, default=0, metavar="SIZE")
    parser.add_argument("--network", default="", metavar="NETWORK")
    parser.add_argument("-p", "--publish", type=values.published, action="append", default=[], metavar="PORT:PORT")
    parser.add_argument("-v", "--volume", action="append", default=[], metavar="/HOST:/CONTAINER[:ro]")
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("args", nargs=argparse.REMAINDER, metavar="COMMAND")
    parser.set_defaults(run=run, parser=parser)

    parser = _on_each(commands, "stop", "stop containers", stop)
    parser.add_argument("-t", "--time", type=values.count, metavar="SECONDS", help="time it has to end by itself")
    parser = _on_each(commands, "rm", "remove containers", remove)
    parser.add_argument("-f", "--force", action="store_true", help="even if they run")

    parser = commands.add_parser("inspect", help="show containers in full")
    parser.add_argument("-f", "--format", metavar="TEMPLATE")
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")
    parser.set_defaults(run=inspect, parser=parser)

    parser = commands.add_parser("logs", help="show a container's output")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("--since", help="from this time on: 2026-01-02T03:04:05Z, or 10m for ten minutes ago")
    parser.add_argument("-n", "--tail", default="all", metavar="LINES")
    parser.add_argument("-t", "--timestamps", action="store_true")
    parser.add_argument("container", metavar="CONTAINER")
    parser.set_defaults(run=logs, parser=parser)


def _on_each(
    commands: Any, verb: str, text: str, action: Callable[[Client, str, argparse.Namespace], None]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(verb, help=text)
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")
    parser.set_defaults(run=on_each, parser=parser, action=action)
    return parser


def on_each(client: Client, args: argparse.Namespace) -> int:
    code = 0
    for name in args.containers:
        try:
            args.action(client, segment(name), args)
            print(name)
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code


def stop(client: Client, name: str, args: argparse.Namespace) -> None:
    client.post(f"/containers/{name}/stop", t=args.time)


def remove(client: Client, name: str, args: argparse.Namespace) -> None:
    client.delete(f"/containers/{name}", force=args.force)


def ps(client: Client, args: argparse.Namespace) -> None:
    found = client.get("/containers/json", all=args.all, filters=filters(args.filter))
    _TABLE.show([_row(container, args.no_trunc) for container in found], args)


def _row(container: dict[str, Any], in_full: bool) -> dict[str, Any]:
    command, made = container["Command"], datetime.fromtimestamp(container["Created"], UTC).isoformat()
    return {
        "ID": container["Id"] if in_full else container["Id"][:12],
        "Image": container["Image"],
        "Command": f'"{command if in_full or len(command) <= 20 else command[:19] + "…"}"',
        "RunningFor": output.ago(made.removesuffix("+00:00")),
        "Status": container["Status"],
        "State": container["State"],
        "Labels": container["Labels"],
        "Ports": ", ".join(
            f"{port['IP']}:{port['PublicPort']}->{port['PrivatePort']}/{port['Type']}" for port in container["Ports"]
        ),
        "Names": ",".join(name.removeprefix("/") for name in container["Names"]),
    }


def run(client: Client, args: argparse.Namespace) -> None:
    ports: dict[str, list[dict[str, str]]] = {}
    for port in args.publish:
        binding = {"HostPort": str(port.get("PublishedPort", ""))}
        ports.setdefault(f"{port['TargetPort']}/{port['Protocol']}", []).append(binding)
    host = {"PortBindings": ports, "Binds": args.volume, "Memory": args.memory, "NetworkMode": args.network}
    body = {"Image": args.image, "Env": args.env, "Labels": dict(args.label), "HostConfig": host}
    made = client.post("/containers/create", body | ({"Cmd": args.args} if args.args else {}), name=args.name)
    print(made["Id"])
    client.post(f"/containers/{made['Id']}/start")


def inspect(client: Client, args: argparse.Namespace) -> None:
    output.inspect([client.get(f"/containers/{segment(name)}/json") for name in args.containers], args.format)


def logs(client: Client, args: argparse.Namespace) -> None:
    container = client.get(f"/containers/{segment(args.container)}/json")
    show = streams.show_raw if container["Config"]["Tty"] else streams.show
    show(client, f"/containers/{container['Id']}/logs", args)
