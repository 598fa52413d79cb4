"""swarmctl image ..."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.filters import filters

_TABLE = output.Table(
    {"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE"}
)


def add(verbs: Any) -> None:
    parser = verbs.add_parser("import", help="make an image from a tar of a root file system")
    parser.add_argument(
        "-c", "--change", action="append", default=[], metavar="INSTRUCTION", help="such as 'CMD [\"/init\"]'"
    )
    parser.add_argument("file", metavar="FILE|-")
    parser.add_argument("name", nargs="?", default="", metavar="NAME[:TAG]")
    parser.set_defaults(run=import_, parser=parser)

    parser = verbs.add_parser("load", help="load an archive of images (docker save, OCI layout)")
    parser.add_argument("-i", "--input", default="-", metavar="FILE", help="instead of standard input")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.set_defaults(run=load, parser=parser)

    parser = verbs.add_parser("ls", help="list images")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help="label, dangling, reference"
    )
    parser.add_argument("--format", metavar="TEMPLATE")
    parser.add_argument("--no-trunc", action="store_true", help="ids in full")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.set_defaults(run=listing, parser=parser)

    parser = verbs.add_parser("inspect", help="show images in full")
    parser.add_argument("-f", "--format", metavar="TEMPLATE")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.set_defaults(run=inspect, parser=parser)

    parser = verbs.add_parser("rm", help="remove images")
    parser.add_argument("-f", "--force", action="store_true", help="with all their names")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.set_defaults(run=remove, parser=parser)


def _opened(name: str) -> IO[bytes]:
    if name == "-":
        if sys.stdin.isatty():
            raise Refusal("there is no archive: name a file, or send one to standard input")
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as problem:
        raise Refusal(f"{name}: {(problem.strerror or str(problem)).lower()}") from None


def import_(client: Client, args: argparse.Namespace) -> None:
    repo, tag = _split(args.name)
    with _opened(args.file) as content:
        for line in client.upload(
            "/images/create", content, fromSrc="-", repo=repo, tag=tag, changes=args.change or None
        ):
            print(line["status"])


def _split(name: str) -> tuple[str, str]:
    repo, colon, tag = name.rpartition(":")
    return (repo, tag) if colon and "/" not in tag else (name, "")


def load(client: Client, args: argparse.Namespace) -> None:
    with _opened(args.input) as content:
        for line in client.upload("/images/load", content):
            if not args.quiet:
                print(line["stream"], end="")


def listing(client: Client, args: argparse.Namespace) -> None:
    images = client.get("/images/json", filters=filters(args.filter))
    _TABLE.show([row for image in images for row in _rows(image, args.no_trunc)], args)


def _rows(image: dict[str, Any], in_full: bool) -> list[dict[str, Any]]:
    made = datetime.fromtimestamp(image["Created"], UTC).isoformat()
    shared = {
        "ID": image["Id"] if in_full else image["Id"].removeprefix("sha256:")[:12],
        "CreatedSince": output.ago(made.removesuffix("+00:00")) if image["Created"] else "N/A",
        "Size": output.size(image["Size"]),
    }
    names = [_split(name) for name in image["RepoTags"]] or [("<none>", "<none>")]
    return [{"Repository": repo, "Tag": tag, **shared} for repo, tag in names]


def inspect(client: Client, args: argparse.Namespace) -> None:
    output.inspect([client.get(f"/images/{quote(name)}/json") for name in args.images], args.format)


def remove(client: Client, args: argparse.Namespace) -> int:
    code = 0
    for name in args.images:
        try:
            for line in client.delete(f"/images/{quote(name)}", force=args.force):
                print(*(f"{what}: {which}" for what, which in line.items()))
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code
