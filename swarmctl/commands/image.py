"""swarmctl image ls, inspect, history, tag, rm, prune, tree. See archives.py and registry.py for what moves images."""

from __future__ import annotations

import sys
import time

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client, Refusal, path_of
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.parser import Args, Parser
from swarmd.swarmctl.references import platform, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_COLUMNS = {"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE"}
_WITH_DIGESTS = {"Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID",
                 "CreatedSince": "CREATED", "Size": "SIZE"}  # fmt: skip
_HISTORY = {"CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT"}
_TREE = output.Table(
    {"Image": "IMAGE", "ID": "ID", "DiskUsage": "DISK USAGE", "ContentSize": "CONTENT SIZE", "Used": "USED"}
)
_NONE = "<none>"
_NOT_FOUND = 404
_STEP = 45  # characters of a command in a history


def add_ls(parser: Parser) -> None:
    parser.switch("-a", "--all", help="also steps of builds, of which swarmd keeps none")
    parser.switch("--cluster", help="of all nodes, with the nodes that hold them")
    parser.switch("--digests", help="also what registries call them")
    parser.several("-f", "--filter", metavar="KEY=VALUE",
                   help="reference, label, dangling, before, since, until")  # fmt: skip
    parser.text("--format", metavar="TEMPLATE")
    parser.switch("--no-trunc", help="ids in full")
    parser.switch("-q", "--quiet", help="ids only")
    parser.switch("--tree", help="with the platforms of each")
    parser.argument("repository", "NAME[:TAG]", "?", default="")
    parser.set_defaults(run=listing)


def add_tree(parser: Parser) -> None:
    parser.several("-f", "--filter", metavar="KEY=VALUE", help="as those of 'image ls'")
    parser.text("--format", metavar="TEMPLATE")
    parser.argument("repository", "NAME[:TAG]", "?", default="")
    parser.set_defaults(run=tree)


def add_inspect(parser: Parser) -> None:
    parser.text("-f", "--format", metavar="TEMPLATE")
    parser.text("--platform", help="os/architecture[/variant], of an image for several")
    parser.argument("images", "IMAGE", "+")
    parser.set_defaults(run=inspect)


def add_history(parser: Parser) -> None:
    parser.text("--format", metavar="TEMPLATE")
    parser.switch("-H", "--human", default=True, help="sizes and times as people say them (default: true)")
    parser.switch("--no-trunc", help="commands and ids in full")
    parser.text("--platform", help="os/architecture[/variant], of an image for several")
    parser.switch("-q", "--quiet", help="ids only")
    parser.argument("image", "IMAGE")
    parser.set_defaults(run=history)


def add_tag(parser: Parser) -> None:
    parser.argument("image", "IMAGE")
    parser.argument("name", "NAME[:TAG]")
    parser.set_defaults(run=tag)


def add_rm(parser: Parser) -> None:
    parser.switch("-f", "--force", help="with all its names, even if a stopped container uses it")
    parser.switch("--no-prune", help="keep untagged parents, of which swarmd has none")
    parser.several("--platform", help="only its content for os/architecture[/variant]")
    parser.argument("images", "IMAGE", "+")
    parser.set_defaults(run=remove)


def add_prune(parser: Parser) -> None:
    parser.switch("-a", "--all", help="all that no container uses, not only those without a name")
    parser.several("--filter", metavar="KEY=VALUE", help="until=24h, label=key, label!=key")
    parser.switch("-f", "--force", help="do not ask")
    parser.set_defaults(run=prune)


# ---------------------------------------------------------------- looking


def listing(client: Client, args: Args) -> None:
    if args.cluster:
        from swarmd.swarmctl.commands import cluster_images

        cluster_images.listing(client, args)
        return
    if args.tree:
        if args.quiet or args.digests or args.no_trunc:
            raise Refusal("--tree has a form of its own: leave --quiet, --digests and --no-trunc out")
        tree(client, args)
        return
    rows = [row for image in _found(client, args, all=args.all or None) for row in _rows(image, args)]
    output.Table(_WITH_DIGESTS if args.digests else _COLUMNS).show(rows, args)


def _found(client: Client, args: Args, **query: object) -> list[dict[str, Any]]:
    wanted = filters(args.filter) or {}
    if args.repository:
        wanted = wanted | {"reference": [*wanted.get("reference", []), args.repository]}
    return list(client.get("/images/json", filters=wanted or None, **query))


def _rows(image: dict[str, Any], args: Args) -> Iterator[dict[str, Any]]:
    id = image["Id"] if args.no_trunc else image["Id"].removeprefix("sha256:")[:12]
    size = output.size(image["Size"])
    shared = {
        **{"ID": id, "Size": size, "VirtualSize": size, "SharedSize": "N/A", "UniqueSize": "N/A", "Containers": "N/A"},
        **output.times(image["Created"]),
    }
    digests = dict(name.partition("@")[::2] for name in image.get("RepoDigests") or ())
    names = [split(name) for name in image.get("RepoTags") or ()]
    names += [(repo, _NONE) for repo in digests if repo not in {name for name, _ in names}]
    for repo, tag in names or [(_NONE, _NONE)]:
        yield {"Repository": repo, "Tag": tag, "Digest": digests.get(repo, _NONE), **shared}


def tree(client: Client, args: Args) -> None:
    rows = []
    for image in _found(client, args, manifests=True):
        names = image.get("RepoTags") or [_NONE]
        listed = [one for one in image.get("Manifests") or () if one["Kind"] == "image"]
        content = sum(one["Size"]["Content"] for one in listed)
        used = any((one.get("ImageData") or {}).get("Containers") for one in listed)
        rows += [_leaf(name, image["Id"], image["Size"], content, used) for name in names]
        for number, one in enumerate(listed, 1):
            data = one.get("ImageData") or {}
            parts = data.get("Platform") or {}
            where = "/".join(filter(None, (parts.get(key) for key in ("os", "architecture", "variant"))))
            branch = f"{'└─' if number == len(listed) else '├─'} {where}"
            size = one["Size"]
            rows.append(_leaf(branch, one["ID"], size["Total"], size["Content"], bool(data.get("Containers"))))
    _TREE.show(rows, args)


def _leaf(name: str, id: str, usage: int, content: int, used: bool) -> dict[str, Any]:
    sizes = {"DiskUsage": output.size(usage), "ContentSize": output.size(content)}
    return {"Image": name, "ID": id.removeprefix("sha256:")[:12], **sizes, "Used": "yes" if used else ""}


def inspect(client: Client, args: Args) -> int:
    """Those that are found are shown, even when others are not."""
    found, code, wanted = [], 0, platform(args.platform)
    for name in args.images:
        try:
            found.append(client.get(f"/images/{path_of(name)}/json", platform=wanted))
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    if found or not args.format:
        output.inspect(found, args.format)
    return code


def history(client: Client, args: Args) -> None:
    steps = client.get(f"/images/{path_of(args.image)}/history", platform=platform(args.platform))
    created = {"CreatedSince": "CREATED"} if args.human else {"CreatedAt": "CREATED AT"}
    output.Table({"ID": "IMAGE", **created, **_HISTORY}).show([_step(step, args) for step in steps], args)


def _step(step: dict[str, Any], args: Args) -> dict[str, Any]:
    command = " ".join(step["CreatedBy"].split())
    if not args.no_trunc and len(command) > _STEP:
        command = f"{command[: _STEP - 1]}…"
    return {
        "ID": step["Id"] if args.no_trunc else step["Id"].removeprefix("sha256:")[:12],
        "CreatedSince": output.times(step["Created"])["CreatedSince"],
        "CreatedAt": _rfc3339(step["Created"]) if step["Created"] else "N/A",
        "CreatedBy": command,
        "Size": output.size(step["Size"]) if args.human else str(step["Size"]),
        "Comment": step["Comment"],
    }


def _rfc3339(seconds: int) -> str:
    at = time.localtime(seconds)
    zone = time.strftime("%z", at)
    return time.strftime("%Y-%m-%dT%H:%M:%S", at) + (f"{zone[:3]}:{zone[3:]}" if at.tm_gmtoff else "Z")


# ---------------------------------------------------------------- changing


def tag(client: Client, args: Args) -> None:
    client.post(f"/images/{path_of(args.image)}/tag", None, repo=args.name)


def remove(client: Client, args: Args) -> int:
    """With --force it is no failure, as in Docker, that there is no such image."""
    code, wanted = 0, [platform(text) for text in args.platform] or None
    for name in args.images:
        try:
            for line in client.delete(
                f"/images/{path_of(name)}", force=args.force, noprune=args.no_prune or None, platforms=wanted
            ):
                print(*(f"{what}: {which}" for what, which in line.items()))
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            if not (args.force and refusal.status == _NOT_FOUND):
                code = 1
    return code


def prune(client: Client, args: Args) -> int:
    if not args.force:
        what = "that no container uses" if args.all else "without a name that no container uses"
        if not output.confirmed(f"This removes all images {what}. Go on?"):
            return 1
    wanted = (filters(args.filter) or {}) | {"dangling": ["false" if args.all else "true"]}
    done = client.post("/images/prune", None, filters=wanted)
    for step in done.get("ImagesDeleted") or ():
        print(*(f"{what.lower()}: {which}" for what, which in step.items()))
    print(f"Total reclaimed space: {output.size(done.get('SpaceReclaimed') or 0)}")
    return 0
