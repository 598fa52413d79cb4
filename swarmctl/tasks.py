"""Tasks as `service ps` and `node ps` list them: newest of each slot first, those before it drawn below it."""

from __future__ import annotations

from swarmd.swarmctl.client import Client
from swarmd.swarmctl.output import Table, ago
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_TABLE = Table(
    {
        "ID": "ID",
        "Name": "NAME",
        "Image": "IMAGE",
        "Node": "NODE",
        "DesiredState": "DESIRED STATE",
        "CurrentState": "CURRENT STATE",
        "Error": "ERROR",
        "Ports": "PORTS",
    }
)
_GIVEN_UP = "not restarted: "  # a manager's message says so: the restart policy leaves the slot as it is


def add_flags(parser: Parser) -> None:
    parser.several("-f", "--filter", metavar="KEY=VALUE", help="name, id, node, label, desired-state")
    parser.text("--format", metavar="TEMPLATE", help="table, json, or a template such as '{{.Name}} {{.CurrentState}}'")
    parser.switch("--no-resolve", help="ids instead of names")
    parser.switch("--no-trunc", help="ids in full")
    parser.switch("-q", "--quiet", help="ids only")


def show(client: Client, tasks: Iterable[dict[str, Any]], args: Args) -> None:
    names = {} if args.no_resolve else {node["ID"]: node["Description"]["Hostname"] for node in client.get("/nodes")}
    services = {} if args.no_resolve else {one["ID"]: one["Spec"]["Name"] for one in client.get("/services")}
    newest_first = sorted(tasks, key=lambda task: str(task["CreatedAt"]), reverse=True)
    newest_first.sort(key=lambda task: (services.get(task["ServiceID"], task["ServiceID"]), task.get("Slot", 0)))
    rows, before = [], ("", 0)
    is_table = not args.quiet and (args.format or "table").startswith("table")
    for task in newest_first:
        place = (task["ServiceID"], task.get("Slot", 0))
        name = f"{services.get(place[0], place[0])}.{place[1]}"
        older = is_table and place == before
        rows.append(_row(task, f" \\_ {name}" if older else name, names, args.no_trunc))
        before = place
    _TABLE.show(rows, args)


def _row(task: dict[str, Any], name: str, nodes: dict[str, str], in_full: bool) -> dict[str, Any]:
    status = task["Status"]
    error, image = _error(status), task["Spec"]["ContainerSpec"]["Image"]
    return {
        "ID": task["ID"] if in_full else task["ID"][:12],
        "Name": name,
        "Image": image if in_full else image.partition("@")[0],
        "Node": nodes.get(task.get("NodeID", ""), task.get("NodeID", "")),
        "DesiredState": task["DesiredState"].capitalize(),
        "CurrentState": f"{status['State'].capitalize()} {ago(status.get('Timestamp', ''))}".strip(),
        "Error": f'"{error}"' if error else "",
        "Ports": ports((status.get("PortStatus") or {}).get("Ports") or []),
    }


def _error(status: dict[str, Any]) -> str:
    """Why it ended, and why that was its slot's last try; never shortened: it is why one looks."""
    message = status.get("Message", "")
    return "; ".join(filter(None, (status.get("Err", ""), message if message.startswith(_GIVEN_UP) else "")))


def ports(published: Iterable[dict[str, Any]]) -> str:
    return ", ".join(f"*:{port.get('PublishedPort', 0)}->{port['TargetPort']}/{port['Protocol']}" for port in published)
