"""swarmctl image ..."""

from __future__ import annotations

import sys

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client, Refusal, path_of
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

_TABLE = output.Table(
    {"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE"}
)


def add_import(parser: Parser) -> None:
    parser.several("-c", "--change", metavar="INSTRUCTION", help="such as 'CMD [\"/init\"]'")
    parser.argument("file", "FILE|-")
    parser.argument("name", "NAME[:TAG]", "?", default="")
    parser.set_defaults(run=import_)


def add_load(parser: Parser) -> None:
    parser.text("-i", "--input", default="-", metavar="FILE", help="instead of standard input")
    parser.switch("-q", "--quiet", help="say nothing of what is loaded")
    parser.set_defaults(run=load)


def add_ls(parser: Parser) -> None:
    parser.several("-f", "--filter", metavar="KEY=VALUE", help="label, dangling, reference")
    parser.text("--format", metavar="TEMPLATE")
    parser.switch("--no-trunc", help="ids in full")
    parser.switch("-q", "--quiet", help="ids only")
    parser.set_defaults(run=listing)


def add_inspect(parser: Parser) -> None:
    parser.text("-f", "--format", metavar="TEMPLATE")
    parser.argument("images", "IMAGE", "+")
    parser.set_defaults(run=inspect)


def add_rm(parser: Parser) -> None:
    parser.switch("-f", "--force", help="with all their names")
    parser.argument("images", "IMAGE", "+")
    parser.set_defaults(run=remove)


def _opened(name: str) -> IO[bytes]:
    if name == "-":
        if sys.stdin.isatty():
            raise Refusal("there is no archive: name a file, or send one to standard input")
        return sys.stdin.buffer
    try:
        return open(name, "rb")
    except OSError as problem:
        raise Refusal(f"{name}: {(problem.strerror or str(problem)).lower()}") from None


def import_(client: Client, args: Args) -> None:
    repo, tag = _split(args.name)
    with _opened(args.file) as content:
        for line in client.upload(
            "/images/create", content, fromSrc="-", repo=repo, tag=tag, changes=args.change or None
        ):
            print(line["status"])


def _split(name: str) -> tuple[str, str]:
    repo, colon, tag = name.rpartition(":")
    return (repo, tag) if colon and "/" not in tag else (name, "")


def load(client: Client, args: Args) -> None:
    with _opened(args.input) as content:
        for line in client.upload("/images/load", content):
            if not args.quiet:
                print(line["stream"], end="")


def listing(client: Client, args: Args) -> None:
    images = client.get("/images/json", filters=filters(args.filter))
    _TABLE.show([row for image in images for row in _rows(image, args.no_trunc)], args)


def _rows(image: dict[str, Any], in_full: bool) -> list[dict[str, Any]]:
    shared = {
        "ID": image["Id"] if in_full else image["Id"].removeprefix("sha256:")[:12],
        "CreatedSince": output.since(image["Created"]) if image["Created"] else "N/A",
        "Size": output.size(image["Size"]),
    }
    names = [_split(name) for name in image["RepoTags"]] or [("<none>", "<none>")]
    return [{"Repository": repo, "Tag": tag, **shared} for repo, tag in names]


def inspect(client: Client, args: Args) -> None:
    output.inspect([client.get(f"/images/{path_of(name)}/json") for name in args.images], args.format)


def remove(client: Client, args: Args) -> int:
    code = 0
    for name in args.images:
        try:
            for line in client.delete(f"/images/{path_of(name)}", force=args.force):
                print(*(f"{what}: {which}" for what, which in line.items()))
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code
