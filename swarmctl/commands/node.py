"""swarmctl node ..."""

import argparse
import sys
from functools import partial
from typing import Any

from swarmd.swarmctl import output, tasks, values
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.filters import filters

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


def add(verbs: Any) -> None:
    parser = verbs.add_parser("ls", help="list nodes; * is the one that answers")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help="id, name, role, label"
    )
    parser.add_argument("--format", metavar="TEMPLATE")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.set_defaults(run=listing, parser=parser)

    parser = verbs.add_parser("ps", help="list the tasks on nodes")
    tasks.add_flags(parser)
    parser.add_argument("nodes", nargs="*", default=["self"], metavar="NODE")
    parser.set_defaults(run=ps, parser=parser)

    parser = verbs.add_parser("inspect", help="show nodes in full")
    parser.add_argument("-f", "--format", metavar="TEMPLATE")
    parser.add_argument("nodes", nargs="+", metavar="self|NODE")
    parser.set_defaults(run=inspect, parser=parser)

    parser = verbs.add_parser("update", help="change a node")
    parser.add_argument("--availability", choices=("active", "pause", "drain"))
    parser.add_argument("--role", choices=("worker", "manager"))
    parser.add_argument("--label-add", type=values.pair, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--label-rm", action="append", default=[], metavar="KEY")
    parser.add_argument("node", metavar="NODE")
    parser.set_defaults(run=update, parser=parser)

    for verb, role, text in (
        ("promote", "manager", "make managers of nodes"),
        ("demote", "worker", "make workers of them"),
    ):
        parser = verbs.add_parser(verb, help=text)
        parser.add_argument("nodes", nargs="+", metavar="NODE")
        parser.set_defaults(run=change_role, parser=parser, role=role, done=f"{verb}d")

    parser = verbs.add_parser("rm", help="remove nodes that have left")
    parser.add_argument("-f", "--force", action="store_true", help="even if they have not")
    parser.add_argument("nodes", nargs="+", metavar="NODE")
    parser.set_defaults(run=remove, parser=parser)


def listing(client: Client, args: argparse.Namespace) -> None:
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


def ps(client: Client, args: argparse.Namespace) -> None:
    ids = [client.get(f"/nodes/{segment(name)}")["ID"] for name in args.nodes]
    wanted = (filters(args.filter) or {}) | {"node": ids}
    tasks.show(client, client.get("/tasks", filters=wanted), args)


def inspect(client: Client, args: argparse.Namespace) -> None:
    output.inspect([client.get(f"/nodes/{segment(name)}") for name in args.nodes], args.format)


def update(client: Client, args: argparse.Namespace) -> None:
    client.revise("nodes", args.node, partial(_updated, args))
    print(args.node)


def _updated(args: argparse.Namespace, node: Any) -> Any:
    spec = node["Spec"]
    spec |= {key: value for key, value in (("Availability", args.availability), ("Role", args.role)) if value}
    labels = {key: value for key, value in spec.get("Labels", {}).items() if key not in args.label_rm}
    return spec | {"Labels": labels | dict(args.label_add)}


def change_role(client: Client, args: argparse.Namespace) -> None:
    for name in args.nodes:
        if client.get(f"/nodes/{segment(name)}")["Spec"]["Role"] == args.role:
            print(f"node {name} is already a {args.role}")
            continue
        client.revise("nodes", name, lambda node: node["Spec"] | {"Role": args.role})
        print(f"node {name} {args.done}")


def remove(client: Client, args: argparse.Namespace) -> int:
    code = 0
    for name in args.nodes:
        try:
            client.delete(f"/nodes/{segment(name)}", force=args.force)
            print(name)
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code
