"""swarmctl ps, container ls."""

from __future__ import annotations

import time

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
}
# Their heads, for templates that have them.
_HEADS = {"CreatedAt": "CREATED AT", "LocalVolumes": "LOCAL VOLUMES"}


def add_ls(parser: Parser) -> None:
    parser.switch("-a", "--all", help="also those that do not run")
    parser.several("-f", "--filter", metavar="KEY=VALUE", help="name, id, label, status, health, network, ancestor ...")
    parser.text("--format", metavar="TEMPLATE", help="table, json, or a template such as '{{.Names}} {{.Status}}'")
    parser.text("-n", "--last", type=int, default=-1, metavar="COUNT", help="the last ones made, in any state")
    parser.switch("-l", "--latest", help="the last one made, in any state")
    parser.switch("--no-trunc", help="ids and commands in full")
    parser.switch("-q", "--quiet", help="ids only")
    parser.switch("-s", "--size", help="how much they take on disk")
    parser.set_defaults(run=ls)


def ls(client: Client, args: Args) -> None:
    limit = 1 if args.latest and args.last < 0 else args.last
    # A template that shows sizes needs them measured.
    with_size = args.size or ".Size" in (args.format or "")
    found = client.get(
        "/containers/json",
        all=args.all or None,
        limit=limit if limit > 0 else None,
        size=with_size or None,
        filters=filters(args.filter),
    )
    columns = _COLUMNS | ({"Size": "SIZE"} if args.size else {})
    rows = [_row(container, args.no_trunc) for container in found]
    table = output.Table(columns if (args.format or "table") in ("table", "json") else columns | _HEADS)
    table.show(rows, args)


def _row(container: dict[str, Any], in_full: bool) -> dict[str, Any]:
    command, labels = container.get("Command") or "", container.get("Labels") or {}
    mounts = [mount.get("Name") or mount.get("Source") or "" for mount in container.get("Mounts") or ()]
    names = [name.removeprefix("/") for name in container.get("Names") or ()]
    return {
        "ID": container["Id"] if in_full else container["Id"][:12],
        "Image": container["Image"] or "<no image>",
        "Command": f'"{command if in_full or len(command) <= 20 else command[:19] + "…"}"',
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(container["Created"])),
        "RunningFor": output.since(container["Created"]),
        "Status": container["Status"],
        "State": container["State"],
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda key: labels.get(key, ""),
        "Ports": ports(container.get("Ports") or []),
        # `other/alias` is a link's name for it, not its own.
        "Names": ",".join(name for name in names if in_full or "/" not in name),
        "Mounts": ",".join(mount if in_full or len(mount) <= 15 else mount[:14] + "…" for mount in mounts),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in container.get("Mounts") or ())),
        "Networks": ",".join((container.get("NetworkSettings") or {}).get("Networks") or ()),
        "Size": _size(container),
    }


def _size(container: dict[str, Any]) -> str:
    whole = container.get("SizeRootFs", 0)
    return output.size(container.get("SizeRw", 0)) + (f" (virtual {output.size(whole)})" if whole else "")


def ports(found: list[dict[str, Any]]) -> str:
    """'0.0.0.0:8080-8081->80-81/tcp, 90/tcp': neighbours in one range."""
    groups: list[list[dict[str, Any]]] = []
    for port in sorted(
        found, key=lambda one: (one["Type"], one.get("IP", ""), one["PrivatePort"], one.get("PublicPort", 0))
    ):
        if groups and _follows(groups[-1][-1], port):
            groups[-1].append(port)
        else:
            groups.append([port])
    groups.sort(key=lambda group: (group[0]["PrivatePort"], group[0]["Type"], group[0].get("IP", "")))
    return ", ".join(map(_ports, groups))


def _follows(last: dict[str, Any], port: dict[str, Any]) -> bool:
    is_same = (last.get("IP", ""), last["Type"]) == (port.get("IP", ""), port["Type"])
    public, before = port.get("PublicPort", 0), last.get("PublicPort", 0)
    together = public == before + 1 if public and before else public == before
    return is_same and together and port["PrivatePort"] == last["PrivatePort"] + 1


def _ports(group: list[dict[str, Any]]) -> str:
    first, last = group[0], group[-1]
    inside = _range(first["PrivatePort"], last["PrivatePort"])
    if not first.get("PublicPort"):
        return f"{inside}/{first['Type']}"
    address = first.get("IP", "")
    address = f"[{address}]" if ":" in address else address
    return f"{address}:{_range(first['PublicPort'], last['PublicPort'])}->{inside}/{first['Type']}"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
