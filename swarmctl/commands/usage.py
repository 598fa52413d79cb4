"""swarmctl system df."""

from __future__ import annotations

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client
from swarmd.swarmctl.jsontext import dumps
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_TABLE = output.Table(
    {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
)
_IMAGES = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
_CONTAINERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "LocalVolumes": "LOCAL VOLUMES",
    "Size": "SIZE",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Names": "NAMES",
}
_VOLUMES = {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
_CACHE = {"ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "InUse": "IN USE", "Shared": "SHARED"}
_LIVE = ("running", "paused", "restarting")


def add_df(parser: Parser) -> None:
    parser.text("--format", metavar="TEMPLATE", help="table, json, or a template such as '{{.Type}} {{.Size}}'")
    parser.switch("-v", "--verbose", help="every image, container and volume")
    parser.set_defaults(run=df)


def df(client: Client, args: Args) -> None:
    found = client.get("/system/df")
    if not args.verbose:
        _TABLE.show(summary(found), args)
        return
    parts = {
        "Images": images(found),
        "Containers": containers(found),
        "Volumes": volumes(found),
        "BuildCache": cache(found),
    }
    if args.format == "json":
        print(dumps(parts))
    elif args.format not in (None, "table"):
        output.inspect_one(parts, args.format, "")
    else:
        titles = ("Images", "Containers", "Volumes", "Build cache")
        for title, rows, columns in zip(titles, parts.values(), (_IMAGES, _CONTAINERS, _VOLUMES, _CACHE), strict=True):
            print(f"{title}:\n")
            print(*output.Table(columns).lines(rows, "table"), "", sep="\n")


# ---------------------------------------------------------------- one line for each kind


def summary(found: dict[str, Any]) -> list[dict[str, Any]]:
    images = found.get("Images") or []
    layers = found.get("LayersSize", 0)
    used = [image for image in images if image.get("Containers", 0) > 0]
    held = sum(max(0, image["Size"] - max(0, image.get("SharedSize", 0))) for image in used)
    containers = found.get("Containers") or []
    live = [one for one in containers if one.get("State") in _LIVE]
    written = _sum(containers, "SizeRw")
    volumes = [one.get("UsageData") or {} for one in found.get("Volumes") or []]
    cache = found.get("BuildCache") or []
    return [
        _row("Images", len(images), len(used), layers, layers - held),
        _row("Containers", len(containers), len(live), written, written - _sum(live, "SizeRw")),
        _row("Local Volumes", len(volumes), sum(one.get("RefCount", 0) > 0 for one in volumes), _sum(volumes, "Size"),
             _sum((one for one in volumes if one.get("RefCount", 0) == 0), "Size")),
        _row("Build Cache", len(cache), sum(bool(one.get("InUse")) for one in cache), _sum(cache, "Size"),
             _sum((one for one in cache if not one.get("InUse") and not one.get("Shared")), "Size")),
    ]  # fmt: skip


def _sum(objects: Iterable[dict[str, Any]], field: str) -> int:
    # -1: not measured.
    return sum(max(0, one.get(field) or 0) for one in objects)


def _row(kind: str, total: int, active: int, size: int, free: int) -> dict[str, Any]:
    share = f" ({free * 100 // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": output.size(size),
        "Reclaimable": output.size(max(0, free)) + share,
    }


# ---------------------------------------------------------------- everything


def images(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for image in found.get("Images") or []:
        name, _, tag = (image.get("RepoTags") or ["<none>:<none>"])[0].rpartition(":")
        shared = max(0, image.get("SharedSize", 0))
        rows.append(
            {
                "Repository": name,
                "Tag": tag,
                "ID": image["Id"].removeprefix("sha256:")[:12],
                **output.times(image.get("Created") or 0),
                "Size": output.size(image["Size"]),
                "VirtualSize": output.size(image["Size"]),
                "SharedSize": output.size(shared),
                "UniqueSize": output.size(image["Size"] - shared),
                "Containers": str(max(0, image.get("Containers", 0))),
            }
        )
    return rows


def containers(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "ID": one["Id"][:12],
            "Image": one["Image"],
            "Command": f'"{one.get("Command", "")[:20]}"',
            "LocalVolumes": str(sum(mount.get("Type") == "volume" for mount in one.get("Mounts") or ())),
            "Size": output.size(one.get("SizeRw") or 0),
            "RunningFor": output.since(one["Created"]),
            "Status": one["Status"],
            "Names": ",".join(name.removeprefix("/") for name in one.get("Names") or ()),
        }
        for one in found.get("Containers") or []
    ]


def volumes(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for one in found.get("Volumes") or []:
        usage = one.get("UsageData") or {}
        rows.append(
            {
                "Name": one["Name"],
                "Links": str(usage.get("RefCount", 0)),
                "Size": output.size(max(0, usage.get("Size", 0))),
            }
        )
    return rows


def cache(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "ID": one["ID"][:12],
            "CacheType": one.get("Type", ""),
            "Size": output.size(one.get("Size", 0)),
            "InUse": str(bool(one.get("InUse"))).lower(),
            "Shared": str(bool(one.get("Shared"))).lower(),
        }
        for one in found.get("BuildCache") or []
    ]
