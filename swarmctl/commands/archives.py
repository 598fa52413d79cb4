"""swarmctl image save, load, import."""

from __future__ import annotations

import sys

from swarmd.swarmctl import download
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.parser import Args, Parser
from swarmd.swarmctl.references import platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO


def add_import(parser: Parser) -> None:
    parser.several("-c", "--change", metavar="INSTRUCTION", help="such as 'CMD [\"/init\"]', of a Dockerfile")
    parser.text("-m", "--message", default="", help="what it is")
    parser.text("--platform", help="os/architecture[/variant] that it is for (default: the daemon's)")
    parser.argument("file", "FILE|URL|-")
    parser.argument("name", "NAME[:TAG]", "?", default="")
    parser.set_defaults(run=import_)


def add_load(parser: Parser) -> None:
    parser.text("-i", "--input", default="-", metavar="FILE", help="instead of standard input")
    parser.text("--platform", help="only os/architecture[/variant], of images for several")
    parser.switch("-q", "--quiet", help="say nothing of the layers")
    parser.set_defaults(run=load)


def add_save(parser: Parser) -> None:
    parser.text("-o", "--output", default="", metavar="FILE", help="instead of standard output")
    parser.text("--platform", help="only os/architecture[/variant], of images for several")
    parser.argument("images", "IMAGE", "+")
    parser.set_defaults(run=save)


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
    from swarmd.swarmctl.layers import Screen

    query = {
        "repo": args.name or None,
        "message": args.message or None,
        "platform": args.platform or None,
        "changes": args.change or None,
    }
    if args.file.startswith(("http://", "https://")):
        Screen().follow(client.follow("/images/create", fromSrc=args.file, **query))
        return
    with _opened(args.file) as content:
        Screen().follow(client.upload("/images/create", content, fromSrc="-", **query))


def load(client: Client, args: Args) -> None:
    from swarmd.swarmctl.layers import Screen

    with _opened(args.input) as content:
        lines = client.upload("/images/load", content, quiet=args.quiet or None, platform=platform(args.platform))
        Screen().follow(lines)


def save(client: Client, args: Args) -> None:
    download.refuse_terminal(args.output or "", "--output")
    stream = client.stream("/images/get", names=args.images, platform=platform(args.platform))
    download.save(stream, args.output or "")
