"""swarmctl stop, restart, kill, pause, unpause, wait, rm, rename: one request for each container."""

from __future__ import annotations

import sys

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    _Query = Callable[[Args], dict[str, Any]]


def _names(parser: Parser) -> None:
    parser.argument("containers", "CONTAINER", "+")


def _post(parser: Parser, verb: str, query: _Query = lambda args: {}) -> None:
    """POST /containers/NAME/VERB for each."""
    _names(parser)

    def run(client: Client, args: Args) -> int:
        return output.at_once(
            args.containers, lambda name: client.post(f"/containers/{segment(name)}/{verb}", **query(args))
        )

    parser.set_defaults(run=run)


def _ending(args: Args) -> dict[str, Any]:
    return {"t": args.timeout, "signal": args.signal}


def _add_ending(parser: Parser) -> None:
    parser.text("-s", "--signal", metavar="SIGNAL", help="signal that asks it to end")
    # Docker's older name of it.
    parser.text("-t", "--timeout", "--time", type=int, metavar="SECONDS", help="time it has to do so; -1: all it wants")


def add_stop(parser: Parser) -> None:
    _add_ending(parser)
    _post(parser, "stop", _ending)


def add_restart(parser: Parser) -> None:
    _add_ending(parser)
    _post(parser, "restart", _ending)


def add_kill(parser: Parser) -> None:
    parser.text("-s", "--signal", metavar="SIGNAL", help="which one (default: KILL)")
    _post(parser, "kill", lambda args: {"signal": args.signal})


def add_pause(parser: Parser) -> None:
    _post(parser, "pause")


def add_unpause(parser: Parser) -> None:
    _post(parser, "unpause")


def add_rename(parser: Parser) -> None:
    parser.argument("container", "CONTAINER")
    parser.argument("name", "NAME")
    parser.set_defaults(run=rename)


def rename(client: Client, args: Args) -> None:
    client.post(f"/containers/{segment(args.container)}/rename", name=args.name)


def add_rm(parser: Parser) -> None:
    parser.switch("-f", "--force", help="even if they run")
    parser.switch("-l", "--link", help="remove the link of this name, not the container")
    parser.switch("-v", "--volumes", help="also the volumes that were made for them and have no name")
    _names(parser)
    parser.set_defaults(run=remove)


def remove(client: Client, args: Args) -> int:
    def one(name: str) -> None:
        path = f"/containers/{segment(name.strip('/'))}"
        try:
            client.delete(path, force=args.force, v=args.volumes or None, link=args.link or None)
        except Refusal as refusal:
            # To force is to want it gone; it is.
            if not (args.force and refusal.status == 404):
                raise
            print(f"swarmctl: {refusal}", file=sys.stderr)

    return output.at_once(args.containers, one)


def add_wait(parser: Parser) -> None:
    _names(parser)
    parser.set_defaults(run=wait)


def wait(client: Client, args: Args) -> int:
    code = 0
    for name in args.containers:
        try:
            print(client.post(f"/containers/{segment(name)}/wait")["StatusCode"], flush=True)
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code
