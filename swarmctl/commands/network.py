"""swarmctl network ..."""

from __future__ import annotations

import sys

from swarmd.swarmctl import output, values
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TABLE = output.Table({"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE"})


def add_connect(parser: Parser) -> None:
    parser.text("--ip", default="", metavar="ADDRESS", help="its IPv4 address there")
    parser.several("--alias", metavar="NAME", help="one more name by which others there find it")
    parser.argument("network", "NETWORK")
    parser.argument("container", "CONTAINER")
    parser.set_defaults(run=connect)


def add_create(parser: Parser) -> None:
    parser.text("-d", "--driver", choices=("bridge", "overlay"), default="bridge")
    parser.text("--subnet", default="", metavar="CIDR")
    parser.text("--gateway", default="", metavar="ADDRESS")
    parser.switch("--internal", help="no way out of it")
    parser.switch("--attachable", help="containers of no service may attach")
    parser.several("--label", type=values.pair, metavar="KEY=VALUE")
    parser.several("-o", "--opt", type=values.pair, metavar="KEY=VALUE")
    parser.argument("name", "NETWORK")
    parser.set_defaults(run=create)


def add_disconnect(parser: Parser) -> None:
    parser.switch("-f", "--force", help="as docker has it: here nothing has to be forced")
    parser.argument("network", "NETWORK")
    parser.argument("container", "CONTAINER")
    parser.set_defaults(run=disconnect)


def add_ls(parser: Parser) -> None:
    parser.several("-f", "--filter", metavar="KEY=VALUE", help="id, name, driver, label")
    parser.text("--format", metavar="TEMPLATE")
    parser.switch("--no-trunc", help="ids in full")
    parser.switch("-q", "--quiet", help="ids only")
    parser.set_defaults(run=listing)


def add_inspect(parser: Parser) -> None:
    parser.text("-f", "--format", metavar="TEMPLATE")
    parser.argument("networks", "NETWORK", "+")
    parser.set_defaults(run=inspect)


def add_rm(parser: Parser) -> None:
    parser.argument("networks", "NETWORK", "+")
    parser.set_defaults(run=remove)


def connect(client: Client, args: Args) -> None:
    asked: dict[str, Any] = {"Aliases": args.alias}
    if args.ip:
        asked["IPAMConfig"] = {"IPv4Address": args.ip}
    client.post(f"/networks/{segment(args.network)}/connect", {"Container": args.container, "EndpointConfig": asked})


def disconnect(client: Client, args: Args) -> None:
    body = {"Container": args.container, "Force": args.force}
    client.post(f"/networks/{segment(args.network)}/disconnect", body)


def create(client: Client, args: Args) -> None:
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


def listing(client: Client, args: Args) -> None:
    networks = sorted(client.get("/networks", filters=filters(args.filter)), key=lambda network: str(network["Name"]))
    _TABLE.show(
        ({**network, "ID": network["Id"] if args.no_trunc else network["Id"][:12]} for network in networks), args
    )


def inspect(client: Client, args: Args) -> None:
    output.inspect([client.get(f"/networks/{segment(name)}") for name in args.networks], args.format)


def remove(client: Client, args: Args) -> int:
    code = 0
    for name in args.networks:
        try:
            client.delete(f"/networks/{segment(name)}")
            print(name)
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code
