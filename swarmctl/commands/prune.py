"""swarmctl container prune, system prune."""

from __future__ import annotations

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _flags(parser: Parser) -> None:
    parser.several("--filter", metavar="KEY=VALUE", help="until=24h, label=key, label!=key")
    parser.switch("-f", "--force", help="do not ask")


def add_container_prune(parser: Parser) -> None:
    _flags(parser)
    parser.set_defaults(run=container_prune)


def container_prune(client: Client, args: Args) -> int:
    if not _agreed(args, ["all stopped containers"]):
        return 1
    print(f"Total reclaimed space: {output.size(_containers(client, args))}")
    return 0


def _agreed(args: Args, what: list[str]) -> bool:
    if args.force:
        return True
    print("This removes:", *(f"  - {line}" for line in what), sep="\n")
    if args.filter:
        print("of these, those with:", *(f"  - {line}" for line in args.filter), sep="\n")
    return output.confirmed("Go on?")


def _list(title: str, names: list[str]) -> None:
    if names:
        print(title, *names, "", sep="\n")


def _containers(client: Client, args: Args) -> int:
    done = client.post("/containers/prune", filters=_wanted(args))
    _list("Deleted containers:", done.get("ContainersDeleted") or [])
    return int(done.get("SpaceReclaimed") or 0)


def _wanted(args: Args) -> dict[str, list[str]] | None:
    return filters(args.filter)  # label!=key is the key `label!`


def add_system_prune(parser: Parser) -> None:
    parser.switch("-a", "--all", help="also images that no container uses, with all their names")
    _flags(parser)
    parser.switch("--volumes", help="also volumes without a name that no container uses")
    parser.set_defaults(run=system_prune)


def system_prune(client: Client, args: Args) -> int:
    what = ["all stopped containers", "all networks that no container uses"]
    what += ["all volumes without a name that no container uses"] if args.volumes else []
    what += ["all images that no container uses" if args.all else "all images without a name"]
    # Steps of builds have no labels: who asks for those with one means none of them.
    with_cache = not {*(_wanted(args) or {})} - {"until"}
    if with_cache:
        what += ["all of the cache of builds" if args.all else "what the cache of builds has and no image"]
    if not _agreed(args, what):
        return 1
    freed = _containers(client, args)
    _list("Deleted networks:", client.post("/networks/prune", filters=_wanted(args)).get("NetworksDeleted") or [])
    if args.volumes:
        done = client.post("/volumes/prune", filters=_wanted(args))
        _list("Deleted volumes:", done.get("VolumesDeleted") or [])
        freed += int(done.get("SpaceReclaimed") or 0)
    images = (_wanted(args) or {}) | {"dangling": ["false" if args.all else "true"]}
    done = client.post("/images/prune", filters=images)
    _list("Deleted images:", [_image(step) for step in done.get("ImagesDeleted") or []])
    freed += int(done.get("SpaceReclaimed") or 0)
    if with_cache:
        from swarmd.swarmctl.commands.builder import removed

        freed += removed(client, _wanted(args), {"all": args.all or None})
    print(f"Total reclaimed space: {output.size(freed)}")
    return 0


def _image(step: dict[str, Any]) -> str:
    return f"untagged: {step['Untagged']}" if step.get("Untagged") else f"deleted: {step.get('Deleted', '')}"
