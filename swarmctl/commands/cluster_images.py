"""swarmctl image ls --cluster."""

from __future__ import annotations

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.parser import Args
from swarmd.swarmctl.references import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TABLE = output.Table({"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "Size": "SIZE", "Nodes": "NODES"})
_NONE = "<none>"


def listing(client: Client, args: Args) -> None:
    if args.filter or args.tree or args.digests:
        raise Refusal("--cluster shows all images with their nodes: leave --filter, --tree and --digests out")
    wanted = split(args.repository) if args.repository else None
    rows = []
    for image in client.get("/swarmd/images"):
        id = image["Id"] if args.no_trunc else image["Id"].removeprefix("sha256:")[:12]
        nodes = ", ".join(map(_node, sorted(image["Nodes"], key=lambda node: str(node["Hostname"]))))
        for repository, tag in _names(image["Names"]):
            if wanted and (repository != wanted[0] or wanted[1] not in ("", tag)):
                continue
            size = output.size(image["Size"]) if image["Size"] else "N/A"
            rows.append({"Repository": repository, "Tag": tag, "ID": id, "Size": size, "Nodes": nodes})
    _TABLE.show(rows, args)


def _names(names: list[str]) -> list[tuple[str, str]]:
    tags = [split(name) for name in map(_familiar, names) if "@" not in name]
    tagged = {repository for repository, _ in tags}
    others = sorted({_familiar(name).partition("@")[0] for name in names if "@" in name} - tagged)
    return [*tags, *((repository, _NONE) for repository in others)] or [(_NONE, _NONE)]


def _familiar(name: str) -> str:
    return name.removeprefix("docker.io/").removeprefix("library/")


def _node(node: dict[str, Any]) -> str:
    state = "" if node["Ready"] else " (down)"
    return f"{node['Hostname']}{' (coming)' if node['Coming'] else state}"
