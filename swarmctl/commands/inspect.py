"""swarmctl inspect, container inspect, top, port, diff."""

from __future__ import annotations

import sys

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client, Refusal, path_of, segment
from swarmd.swarmctl.parser import Args, Parser

# In the order in which a name is looked up; the cluster's kinds are asked only of a manager.
_KINDS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
    "node": "/nodes/{}",
    "service": "/services/{}",
    "task": "/tasks/{}",
    "plugin": "/plugins/{}/json",
    "secret": "/secrets/{}",
    "config": "/configs/{}",
}
_SIZED = ("container",)
_ABSENT_HERE = (404, 501, 503)  # no such object, no such kind, no manager


def _flags(parser: Parser) -> None:
    parser.text("-f", "--format", metavar="TEMPLATE", help="json, or a template such as '{{.State.Status}}'")
    parser.switch("-s", "--size", help="also how much containers take on disk")
    parser.argument("names", "NAME", "+")


def add_container_inspect(parser: Parser) -> None:
    _flags(parser)
    parser.set_defaults(run=inspect, type="container")


def add_inspect(parser: Parser) -> None:
    _flags(parser)
    parser.text("--type", choices=tuple(_KINDS), metavar="KIND", help=", ".join(_KINDS))
    parser.set_defaults(run=inspect)


def inspect(client: Client, args: Args) -> int:
    """Those that are found are shown, even when others are not."""
    if args.size and args.type not in (None, *_SIZED):
        raise Refusal(f"--size is for containers: a {args.type} has none")
    found, problems = [], []
    for name in args.names:
        try:
            found.append(_one(client, name, args))
        except Refusal as refusal:
            problems.append(str(refusal))
    if found or not args.format:
        output.inspect(found, args.format)
    sys.stdout.flush()
    for problem in problems:
        print(f"swarmctl: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _one(client: Client, name: str, args: Args) -> object:
    for kind, path in _KINDS.items():
        if args.type not in (None, kind):
            continue
        target = path.format(path_of(name) if kind == "image" else segment(name))
        try:
            return client.get(target, size=True if args.size and kind in _SIZED else None)
        except Refusal as refusal:
            if args.type or refusal.status not in _ABSENT_HERE:
                raise
    raise Refusal(f"nothing is called {name}: neither a container, image, network nor anything else of this daemon")


# ---------------------------------------------------------------- top, port, diff


def add_top(parser: Parser) -> None:
    parser.argument("container", "CONTAINER")
    parser.command()
    parser.set_defaults(run=top)


def top(client: Client, args: Args) -> None:
    found = client.get(f"/containers/{segment(args.container)}/top", ps_args=" ".join(args.args) or None)
    print("\n".join(output.aligned([found["Titles"], *found["Processes"]])))


def add_port(parser: Parser) -> None:
    parser.argument("container", "CONTAINER")
    parser.argument("port", "PORT[/PROTOCOL]", "?")
    parser.set_defaults(run=port)


def port(client: Client, args: Args) -> None:
    found = client.get(f"/containers/{segment(args.container)}/json")["NetworkSettings"].get("Ports") or {}
    if args.port:
        name = args.port if "/" in args.port else f"{args.port}/tcp"
        if not found.get(name):
            raise Refusal(f"container {args.container} does not publish {name}: 'swarmctl port {args.container}' lists")
        print("\n".join(map(_address, found[name])))
        return
    for name in sorted(found, key=lambda one: (int(one.partition("/")[0]), one)):
        for binding in found[name] or ():
            print(f"{name} -> {_address(binding)}")


def _address(binding: dict[str, str]) -> str:
    ip = binding.get("HostIp", "")
    return f"[{ip}]:{binding['HostPort']}" if ":" in ip else f"{ip}:{binding['HostPort']}"


def add_diff(parser: Parser) -> None:
    parser.argument("container", "CONTAINER")
    parser.set_defaults(run=diff)


def diff(client: Client, args: Args) -> None:
    for change in client.get(f"/containers/{segment(args.container)}/changes") or ():
        print("CAD"[change["Kind"]], change["Path"])
