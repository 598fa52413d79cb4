"""swarmctl commit."""

from __future__ import annotations

from swarmd.swarmctl.client import Client
from swarmd.swarmctl.parser import Args, Parser


def add_commit(parser: Parser) -> None:
    parser.text("-a", "--author", default="", metavar="NAME", help="such as 'Ann <ann@example.org>'")
    parser.several("-c", "--change", metavar="INSTRUCTION", help="such as 'CMD [\"/init\"]', of a Dockerfile")
    parser.text("-m", "--message", default="", help="what was done")
    parser.switch("-p", "--pause", default=True, help="nothing of the container runs meanwhile (default: true)")
    parser.argument("container", "CONTAINER")
    parser.argument("name", "NAME[:TAG]", "?", default="")
    parser.set_defaults(run=commit)


def commit(client: Client, args: Args) -> None:
    made = client.post(
        "/commit",
        {},
        container=args.container,
        repo=args.name or None,
        author=args.author or None,
        comment=args.message or None,
        pause=args.pause,
        changes=args.change or None,
    )
    print(made["Id"])
