"""swarmctl node ..."""

from __future__ import annotations

import sys

from swarmd.swarmctl import output, pretty, tasks, values
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TABLE = output.Table(
    {
        "ID": "ID",
        "Hostname": "HOSTNAME",
        "Status": "STATUS",
        "Availability": "AVAILABILITY",
        "ManagerStatus": "MANAGER STATUS",
        "EngineVersion": "ENGINE VERSION",
    },
    quiet="NodeID",
)


def add_ls(parser: Parser) -> None:
    parser.several("-f", "--filter", metavar="KEY=VALUE", help="id, name, role, label")
    parser.text("--format", metavar="TEMPLATE")
    parser.switch("-q", "--quiet", help="ids only")
    parser.set_defaults(run=listing)


def add_ps(parser: Parser) -> None:
    tasks.add_flags(parser)
    parser.argument("nodes", "NODE", "*", default=["self"])
    parser.set_defaults(run=ps)


def add_inspect(parser: Parser) -> None:
    pretty.add_flags(parser)
    parser.argument("nodes", "self|NODE", "+")
    parser.set_defaults(run=inspect)


def add_update(parser: Parser) -> None:
    parser.text("--availability", choices=("active", "pause", "drain"))
    parser.text("--role", choices=("worker", "manager"))
    parser.several("--label-add", type=values.pair, metavar="KEY=VALUE")
    parser.several("--label-rm", metavar="KEY")
    parser.argument("node", "NODE")
    parser.set_defaults(run=update)


def add_promote(parser: Parser) -> None:
    parser.argument("nodes", "NODE", "+")
    parser.set_defaults(run=change_role, role="manager", done="promoted")


def add_demote(parser: Parser) -> None:
    parser.argument("nodes", "NODE", "+")
    parser.set_defaults(run=change_role, role="worker", done="demoted")


def add_rm(parser: Parser) -> None:
    parser.switch("-f", "--force", help="even if they have not")
    parser.argument("nodes", "NODE", "+")
    parser.set_defaults(run=remove)


def listing(client: Client, args: Args) -> None:
    here = client.get("/info")["Swarm"]["NodeID"]
    nodes = client.get("/nodes", filters=filters(args.filter))
    _TABLE.show(
        [_row(node, here) for node in sorted(nodes, key=lambda node: str(node["Description"]["Hostname"]))], args
    )


def _row(node: dict[str, Any], here: str) -> dict[str, Any]:
    manager = node.get("ManagerStatus")
    standing = "" if not manager else "Leader" if manager.get("Leader") else manager["Reachability"].capitalize()
    return {
        "ID": node["ID"] + (" *" if node["ID"] == here else ""),
        "NodeID": node["ID"],
        "Self": node["ID"] == here,
        "Hostname": node["Description"]["Hostname"],
        "Status": node["Status"]["State"].capitalize(),
        "Availability": node["Spec"]["Availability"].capitalize(),
        "ManagerStatus": standing,
        "EngineVersion": (node["Description"].get("Engine") or {}).get("EngineVersion", ""),
    }


def ps(client: Client, args: Args) -> None:
    ids = [client.get(f"/nodes/{segment(name)}")["ID"] for name in args.nodes]
    wanted = (filters(args.filter) or {}) | {"node": ids}
    tasks.show(client, client.get("/tasks", filters=wanted), args)


def inspect(client: Client, args: Args) -> None:
    pretty.refuse_both(args)
    found = [client.get(f"/nodes/{segment(name)}") for name in args.nodes]
    pretty.show([pretty.node(one) for one in found] if args.pretty else found, args)


def update(client: Client, args: Args) -> None:
    client.revise("nodes", args.node, lambda node: _updated(args, node))
    print(args.node)


def _updated(args: Args, node: Any) -> Any:
    spec = node["Spec"]
    spec |= {key: value for key, value in (("Availability", args.availability), ("Role", args.role)) if value}
    labels = {key: value for key, value in spec.get("Labels", {}).items() if key not in args.label_rm}
    return spec | {"Labels": labels | dict(args.label_add)}


def change_role(client: Client, args: Args) -> None:
    for name in args.nodes:
        if client.get(f"/nodes/{segment(name)}")["Spec"]["Role"] == args.role:
            print(f"node {name} is already a {args.role}")
            continue
        client.revise("nodes", name, lambda node: node["Spec"] | {"Role": args.role})
        print(f"node {name} {args.done}")


def remove(client: Client, args: Args) -> int:
    code = 0
    for name in args.nodes:
        try:
            client.delete(f"/nodes/{segment(name)}", force=args.force)
            print(name)
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code
