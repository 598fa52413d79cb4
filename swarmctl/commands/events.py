"""swarmctl events."""

from __future__ import annotations

import time

from swarmd.swarmctl import output, streams
from swarmd.swarmctl.client import Client
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.jsontext import loads
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add_events(parser: Parser) -> None:
    parser.several(
        "-f", "--filter", metavar="KEY=VALUE", help="type, event, container, image, network, volume, label ..."
    )
    parser.text("--format", metavar="TEMPLATE", help="json, or a template such as '{{.Action}} {{.Actor.ID}}'")
    parser.text("--since", metavar="TIME", help="those from this time on, then what comes: a time, or 10m")
    parser.text("--until", metavar="TIME", help="end at this time")
    parser.set_defaults(run=events)


def events(client: Client, args: Args) -> None:
    since, until = (streams.moment(text) if text else None for text in (args.since, args.until))
    for line in client.stream("/events", filters=filters(args.filter), since=since, until=until):
        if not line.strip():
            continue
        event = loads(line)
        if args.format:
            output.inspect_one(event, args.format, "")
        else:
            print(_line(event), flush=True)


def _line(event: dict[str, Any]) -> str:
    """2026-01-02T03:04:05.000000000+00:00 container start 4fa6 (image=demo, name=one)"""
    nanoseconds = event.get("timeNano") or event["time"] * 10**9
    here = time.localtime(nanoseconds // 10**9)
    zone = time.strftime("%z", here)
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', here)}.{nanoseconds % 10**9:09d}{zone[:3]}:{zone[3:]}"
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    return f"{at} {event['Type']} {event['Action']} {actor.get('ID', '')}" + (f" ({attributes})" if attributes else "")
