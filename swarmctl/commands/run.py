"""swarmctl run, create."""

from __future__ import annotations

import os
import sys

from swarmd.swarmctl import container_flags
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.container_body import body
from swarmd.swarmctl.parser import Args, Parser
from swarmd.swarmctl.start import start
from swarmd.swarmctl.values import DETACH_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DAEMON = 125  # exit code: the container never ran


def add_create(parser: Parser) -> None:
    parser.usage_code = _DAEMON
    container_flags.add(parser)
    _add_words(parser)
    parser.set_defaults(run=create)


def add_run(parser: Parser) -> None:
    parser.usage_code = _DAEMON
    container_flags.add(parser)
    parser.switch("-d", "--detach", help="in the background: print its id")
    parser.text("--detach-keys", default="", metavar="KEYS", help=f"keys that detach (default: {DETACH_KEYS})")
    parser.switch("--sig-proxy", default=True, help="pass signals on to the container (default: true)")
    _add_words(parser)
    parser.set_defaults(run=run)


def _add_words(parser: Parser) -> None:
    parser.argument("image", "IMAGE")
    parser.command()


def create(client: Client, args: Args) -> None:
    print(_create(client, args, body(args, detach=False)))


def run(client: Client, args: Args) -> int:
    wanted = body(args, detach=args.detach)
    if args.detach:
        id = _create(client, args, wanted)
        start(client, id)
        print(id)
        return 0
    return _run_attached(client, args, wanted)


def _run_attached(client: Client, args: Args, wanted: dict[str, Any]) -> int:
    from swarmd.swarmctl import session
    from swarmd.swarmctl.commands.attach import follow_start

    streams = {name: bool(wanted.get(f"Attach{name.capitalize()}")) for name in ("stdin", "stdout", "stderr")}
    session.check_terminal(stdin=streams["stdin"], tty=args.tty)
    id = _create(client, args, wanted)
    try:
        return follow_start(
            client, id, streams, tty=args.tty, keys=args.detach_keys, auto_remove=args.rm, signals=args.sig_proxy
        )
    except Refusal as refusal:
        raise Refusal(str(refusal), refusal.status, refusal.code if refusal.code > 1 else _DAEMON) from None


def _create(client: Client, args: Args, wanted: dict[str, Any]) -> str:
    if args.cidfile and os.path.exists(args.cidfile):
        raise Refusal(
            f"{args.cidfile} exists: remove it if no container has it any more, or name another", code=_DAEMON
        )
    try:
        made = _made(client, args, wanted)
    except Refusal as refusal:
        raise Refusal(str(refusal), refusal.status, _DAEMON) from None
    client.warn(made)
    if args.cidfile:
        try:
            with open(args.cidfile, "w") as file:
                file.write(made["Id"])
        except OSError as problem:
            client.delete(f"/containers/{made['Id']}")
            raise Refusal(f"{args.cidfile}: {(problem.strerror or '').lower()}", code=_DAEMON) from None
    return str(made["Id"])


def _made(client: Client, args: Args, wanted: dict[str, Any]) -> Any:
    query = {"name": args.name or None, "platform": args.platform}
    if args.pull == "always":
        pull(client, args)
    try:
        return client.post("/containers/create", wanted, **query)
    except Refusal as refusal:
        if refusal.status != 404 or args.pull != "missing" or _has(client, args.image, args.platform):
            raise
    pull(client, args)
    return client.post("/containers/create", wanted, **query)


def _has(client: Client, image: str, wanted: str | None) -> bool:
    """For the platform that is wanted."""
    from swarmd.swarmctl.references import platform

    try:
        client.get(f"/images/{segment(image)}/json", platform=platform(wanted))
    except Refusal as refusal:
        return refusal.status != 404
    return True


def pull(client: Client, args: Args) -> None:
    """Have the daemon get the image from its registry; its steps are told on standard error."""
    from swarmd.swarmctl.commands.registry import fetch
    from swarmd.swarmctl.references import tagged

    fetch(client, tagged(args.image), args.platform, quiet=args.quiet, out=sys.stderr)
