"""swarmctl info, version, events."""

import argparse
import json
from importlib.metadata import version as installed
from typing import Any

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.filters import filters

_INFO = """\
Name: {{.Name}}
Version: {{.ServerVersion}}
Containers: {{.Containers}} ({{.ContainersRunning}} running)
Images: {{.Images}}
Data: {{.DockerRootDir}}
System: {{.OperatingSystem}}, Linux {{.KernelVersion}}, {{.Architecture}}, {{.NCPU}} processors
Swarm: {{.Swarm.LocalNodeState}}{{if .Swarm.NodeID}}
 Node: {{.Swarm.NodeID}} at {{.Swarm.NodeAddr}}
 Manager: {{.Swarm.ControlAvailable}}{{end}}{{if .Swarm.Cluster}}
 Cluster: {{.Swarm.Cluster.ID}}, {{.Swarm.Nodes}} nodes, {{.Swarm.Managers}} managers{{end}}\
{{range .Swarm.RemoteManagers}}
 Knows the manager {{.NodeID}} at {{.Addr}}{{end}}{{if .Swarm.Error}}
 Error: {{.Swarm.Error}}{{end}}"""


def add(commands: Any) -> None:
    for name, run, text in (
        ("info", info, "show this node and its place in the cluster"),
        ("version", version, "show versions of this command and of the daemon"),
    ):
        parser = commands.add_parser(name, help=text)
        parser.add_argument("-f", "--format", metavar="TEMPLATE")
        parser.set_defaults(run=run, parser=parser)

    parser = commands.add_parser("events", help="show what happens to containers, as it happens")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help="type, event, container"
    )
    parser.add_argument("--until", help="end at this time")
    parser.add_argument("--format", metavar="TEMPLATE", help="json, or a template such as '{{.Action}} {{.Actor.ID}}'")
    parser.set_defaults(run=events, parser=parser)


def info(client: Client, args: argparse.Namespace) -> None:
    output.inspect_one(client.get("/info"), args.format, _INFO)


def version(client: Client, args: argparse.Namespace) -> int:
    """The command's own version is shown even when no daemon answers."""
    shown: dict[str, Any] = {"Client": {"Version": installed("swarmd")}}
    problem = ""
    try:
        shown["Server"] = client.get("/version")
    except Refusal as refusal:
        problem = str(refusal)
    output.inspect_one(
        shown, args.format, "swarmctl {{.Client.Version}}{{if .Server}}\nswarmd {{.Server.Version}}{{end}}"
    )
    if problem:
        raise Refusal(problem)
    return 0


def events(client: Client, args: argparse.Namespace) -> None:
    for line in client.stream("/events", filters=filters(args.filter), until=args.until):
        event = json.loads(line)
        attributes = ", ".join(f"{key}={value}" for key, value in sorted(event["Actor"]["Attributes"].items()))
        text = "{{.time}} {{.Type}} {{.Action}} {{.Actor.ID}}" + (f" ({attributes})" if attributes else "")
        output.inspect_one(event, args.format, text)
