"""swarmctl logs."""

from __future__ import annotations

from swarmd.swarmctl import streams
from swarmd.swarmctl.client import Client, segment
from swarmd.swarmctl.parser import Args, Parser


def add_logs(parser: Parser) -> None:
    parser.switch("--details", help="the attributes that the log driver was told to add")
    parser.switch("-f", "--follow", help="go on with what comes")
    parser.text("--since", metavar="TIME", help="from this time on: 2026-01-02T03:04:05Z, or 10m for ten minutes ago")
    parser.text("-n", "--tail", default="all", metavar="LINES", help="only the last lines")
    parser.switch("-t", "--timestamps", help="each line's time before it")
    parser.text("--until", metavar="TIME", help="up to this time")
    parser.argument("container", "CONTAINER")
    parser.set_defaults(run=logs)


def logs(client: Client, args: Args) -> None:
    container = client.get(f"/containers/{segment(args.container)}/json")
    wanted = streams.query(args) | {
        "details": args.details or None,
        "until": streams.moment(args.until) if args.until else None,
    }
    response = client.stream(f"/containers/{container['Id']}/logs", **wanted)
    if container["Config"]["Tty"]:
        streams.show_bytes(response)
    else:
        streams.show_frames(response.read)
