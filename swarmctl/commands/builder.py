"""swarmctl builder du, builder prune."""

from __future__ import annotations

from swarmd.swarmctl import output, values
from swarmd.swarmctl.client import Client
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TABLE = output.Table(
    {
        "ID": "CACHE ID",
        "CacheType": "CACHE TYPE",
        "Description": "DESCRIPTION",
        "Size": "SIZE",
        "LastUsedSince": "LAST USED",
        "UsageCount": "USAGE",
        "Shared": "SHARED",
    }
)
_DESCRIPTION = 50  # characters


def add_du(parser: Parser) -> None:
    parser.text("--format", metavar="TEMPLATE", help="table, json, or a template such as '{{.ID}} {{.Size}}'")
    parser.switch("-q", "--quiet", help="print ids only")
    parser.switch("-v", "--verbose", help="ids and descriptions in full")
    parser.set_defaults(run=du)


def du(client: Client, args: Args) -> None:
    found = client.get("/system/df", type="build-cache").get("BuildCache") or []
    _TABLE.show([_row(one, whole=args.verbose or bool(args.format) or args.quiet) for one in found], args)
    if not args.format and not args.quiet:
        total, free = _sum(found), _sum([one for one in found if not one.get("InUse") and not one.get("Shared")])
        print(f"\nReclaimable: {output.size(free)}\nTotal: {output.size(total)}")


def _sum(records: list[dict[str, Any]]) -> int:
    return sum(int(one.get("Size") or 0) for one in records)


def _row(one: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    text = str(one.get("Description") or "").replace("\n", " ")
    return {
        "ID": one["ID"] if whole else one["ID"][:12],
        "CacheType": one.get("Type", ""),
        "Description": text if whole or len(text) <= _DESCRIPTION else f"{text[: _DESCRIPTION - 1]}…",
        "Size": output.size(one.get("Size") or 0),
        "CreatedSince": output.ago(one.get("CreatedAt") or ""),
        "LastUsedSince": output.ago(one.get("LastUsedAt") or ""),
        "UsageCount": str(one.get("UsageCount", 0)),
        "InUse": str(bool(one.get("InUse"))).lower(),
        "Shared": str(bool(one.get("Shared"))).lower(),
    }


def add_prune(parser: Parser) -> None:
    parser.switch("-a", "--all", help="also what images have too, and directories of RUN --mount=type=cache")
    parser.several("--filter", metavar="KEY=VALUE", help="until=24h, id=ID, type=TYPE, description=TEXT, shared=true")
    parser.switch("-f", "--force", help="do not ask")
    parser.text("--keep-storage", "--reserved-space", dest="reserved", type=values.size, metavar="SIZE",
                help="stop when so much is left")  # fmt: skip
    parser.text("--max-used-space", dest="most", type=values.size, metavar="SIZE", help="the most that is to be left")
    parser.text("--min-free-space", dest="free", type=values.size, metavar="SIZE",
                help="remove until so much of the disk is free")  # fmt: skip
    parser.set_defaults(run=prune)


def prune(client: Client, args: Args) -> int:
    if not args.force:
        what = "all of the cache of builds" if args.all else "what the cache of builds has and no image"
        print(f"This removes {what}: the next build does these steps anew.")
        if args.filter:
            print("of these, those with:", *(f"  - {line}" for line in args.filter), sep="\n")
        if not output.confirmed("Go on?"):
            return 1
    query = {"all": args.all or None, "reserved-space": args.reserved, "max-used-space": args.most}
    query["min-free-space"] = args.free
    print(f"Total reclaimed space: {output.size(removed(client, filters(args.filter), query))}")
    return 0


def removed(client: Client, wanted: dict[str, list[str]] | None, query: dict[str, Any]) -> int:
    """Print what went; return how many bytes that was."""
    done = client.post("/build/prune", filters=wanted, **query)
    if taken := done.get("CachesDeleted") or []:
        print("Deleted build cache:", *taken, "", sep="\n")
    return int(done.get("SpaceReclaimed") or 0)
