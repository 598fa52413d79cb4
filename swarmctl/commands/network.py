"""swarmctl network ..."""

import argparse
import sys
from typing import Any

from swarmd.swarmctl import output, values
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.filters import filters

_TABLE = output.Table({"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE"})


def add(verbs: Any) -> None:
    parser = verbs.add_parser("create", help="create a network")
    parser.add_argument("-d", "--driver", choices=("bridge", "overlay"), default="bridge")
    parser.add_argument("--subnet", default="", metavar="CIDR")
    parser.add_argument("--gateway", default="", metavar="ADDRESS")
    parser.add_argument("--internal", action="store_true", help="no way out of it")
    parser.add_argument("--attachable", action="store_true", help="containers of no service may attach")
    parser.add_argument("--label", type=values.pair, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("-o", "--opt", type=values.pair, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("name", metavar="NETWORK")
    parser.set_defaults(run=create, parser=parser)

    parser = verbs.add_parser("ls", help="list networks")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help="id, name, driver, label"
    )
    parser.add_argument("--format", metavar="TEMPLATE")
    parser.add_argument("--no-trunc", action="store_true", help="ids in full")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.set_defaults(run=listing, parser=parser)

    parser = verbs.add_parser("inspect", help="show networks in full")
    parser.add_argument("-f", "--format", metavar="TEMPLATE")
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.set_defaults(run=inspect, parser=parser)

    parser = verbs.add_parser("rm", help="remove networks")
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.set_defaults(run=remove, parser=parser)


def create(client: Client, args: argparse.Namespace) -> None:
    if args.gateway and not args.subnet:
        raise Refusal("--gateway needs --subnet")
    body: dict[str, Any] = {
        "Name": args.name,
        "Driver": args.driver,
        "Internal": args.internal,
        "Attachable": args.attachable,
        "Labels": dict(args.label),
        "Options": dict(args.opt),
    }
    if args.subnet:
        body["IPAM"] = {"Config": [{"Subnet": args.subnet, "Gateway": args.gateway}]}
    print(client.post("/networks/create", body)["Id"])


def listing(client: Client, args: argparse.Namespace) -> None:
    networks = sorted(client.get("/networks", filters=filters(args.filter)), key=lambda network: str(network["Name"]))
    _TABLE.show(
        ({**network, "ID": network["Id"] if args.no_trunc else network["Id"][:12]} for network in networks), args
    )


def inspect(client: Client, args: argparse.Namespace) -> None:
    output.inspect([client.get(f"/networks/{segment(name)}") for name in args.networks], args.format)


def remove(client: Client, args: argparse.Namespace) -> int:
    code = 0
    for name in args.networks:
        try:
            client.delete(f"/networks/{segment(name)}")
            print(name)
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code
