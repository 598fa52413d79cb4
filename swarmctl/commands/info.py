"""swarmctl info, version, system dial-stdio."""

from __future__ import annotations

import os
import sys
from _socket import SHUT_WR
from _thread import start_new_thread

from swarmd.swarmctl import output
from swarmd.swarmctl.client import API_VERSION, Client, Refusal
from swarmd.swarmctl.parser import Args, Parser
from swarmd.swarmctl.target import context_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INFO = """\
Name: {{.Name}}
Version: {{.ServerVersion}}
Context: {{.ClientInfo.Context}}
Containers: {{.Containers}} ({{.ContainersRunning}} running, {{.ContainersPaused}} paused, \
{{.ContainersStopped}} stopped)
Images: {{.Images}}
Data: {{.DockerRootDir}}
{{if .Driver}}Storage: {{.Driver}}
{{end}}{{if .LoggingDriver}}Logs: {{.LoggingDriver}}
{{end}}{{if .CgroupVersion}}Cgroups: v{{.CgroupVersion}}{{if .CgroupDriver}}, {{.CgroupDriver}}{{end}}
{{end}}{{if .SecurityOptions}}Security: {{join .SecurityOptions ", "}}
{{end}}System: {{.OperatingSystem}}, Linux {{.KernelVersion}}, {{.Architecture}}, {{.NCPU}} processors
{{- if .Memory}}, {{.Memory}} of memory{{end}}
{{- if .Labels}}
Labels: {{join .Labels ", "}}{{end}}
Swarm: {{.Swarm.LocalNodeState}}{{if .Swarm.NodeID}}
 Node: {{.Swarm.NodeID}} at {{.Swarm.NodeAddr}}
 Manager: {{.Swarm.ControlAvailable}}{{end}}{{if .Swarm.Cluster}}
 Cluster: {{.Swarm.Cluster.ID}}, {{.Swarm.Nodes}} nodes, {{.Swarm.Managers}} managers{{end}}\
{{range .Swarm.RemoteManagers}}
 Knows the manager {{.NodeID}} at {{.Addr}}{{end}}{{if .Swarm.Error}}
 Error: {{.Swarm.Error}}{{end}}"""

_VERSION = """\
swarmctl {{.Client.Version}} (API {{.Client.APIVersion}}, context {{.Client.Context}})\
{{if .Server}}
{{with .Server.Platform}}{{if .Name}}{{.Name}}, {{end}}{{end}}swarmd {{.Server.Version}} \
(API {{.Server.ApiVersion}}{{if .Server.MinAPIVersion}}, from {{.Server.MinAPIVersion}}{{end}})\
{{range .Server.Components}}
 {{.Name}} {{.Version}}{{end}}{{end}}"""


def _format(parser: Parser) -> None:
    parser.text("-f", "--format", metavar="TEMPLATE", help="json, or a template such as '{{.ServerVersion}}'")


def add_info(parser: Parser) -> None:
    _format(parser)
    parser.set_defaults(run=info)


def info(client: Client, args: Args) -> None:
    found = client.get("/info")
    mine = {"ClientInfo": {"Context": context_name(args.daemon_flags), "Version": _installed()}}
    shown = {**found, **mine}
    if not args.format:
        shown["Memory"] = output.memory(found.get("MemTotal", 0)) if found.get("MemTotal") else ""
        shown = {"ContainersPaused": 0, "ContainersStopped": 0} | shown
    output.inspect_one(shown, args.format, _INFO)
    for warning in found.get("Warnings") or ():
        print(f"WARNING: {warning}" if not warning.startswith("WARNING") else warning, file=sys.stderr)


def add_version(parser: Parser) -> None:
    _format(parser)
    parser.set_defaults(run=version)


def version(client: Client, args: Args) -> None:
    """The command's own version is shown even when no daemon answers."""
    mine = {
        "Version": _installed(),
        "APIVersion": API_VERSION.removeprefix("v"),
        "DefaultAPIVersion": API_VERSION.removeprefix("v"),
        "Os": sys.platform,
        "Arch": os.uname().machine,
        "Context": context_name(args.daemon_flags),
    }
    shown: dict[str, Any] = {"Client": mine, "Server": None}
    problem = ""
    # A template that speaks of the client alone asks no daemon.
    if not args.format or args.format == "json" or ".Server" in args.format:
        try:
            shown["Server"] = client.get("/version")
        except Refusal as refusal:
            problem = str(refusal)
    output.inspect_one(shown, args.format, _VERSION)
    if problem:
        raise Refusal(problem)


def _installed() -> str:
    from importlib.metadata import version as installed

    return installed("swarmd")


# ---------------------------------------------------------------- ssh's other end


def add_dial_stdio(parser: Parser) -> None:
    parser.set_defaults(run=dial_stdio)


def dial_stdio(client: Client, args: Args) -> None:
    """Join standard input and output to the daemon's socket until it hangs up."""
    sock = client.connect()

    def send() -> None:
        try:
            while data := os.read(sys.stdin.fileno(), 65536):
                sock.sendall(data)
            sock.shutdown(SHUT_WR)
        except OSError:
            pass  # it hung up

    start_new_thread(send, ())
    try:
        while data := sock.recv(65536):
            view = memoryview(data)
            while view:
                view = view[os.write(sys.stdout.fileno(), view) :]
    except ConnectionResetError:
        pass
