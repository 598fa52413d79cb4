"""swarmctl update: the limits of containers that are there."""

from __future__ import annotations

from swarmd.swarmctl import container_values, output
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.container_flags import FIELDS, WINDOWS
from swarmd.swarmctl.parser import Args, Parser

_FLAGS = (
    "--blkio-weight", "--cpu-period", "--cpu-quota", "--cpu-rt-period", "--cpu-rt-runtime", "--cpu-shares", "--cpus",
    "--cpuset-cpus", "--cpuset-mems", "--memory", "--memory-reservation", "--memory-swap", "--pids-limit",
)  # fmt: skip
_FIELDS = tuple(field for field in FIELDS if field.flags[-1] in _FLAGS)


def add_update(parser: Parser) -> None:
    for field in _FIELDS:
        parser.text(*field.flags, type=field.type, help=field.help, metavar=field.metavar)
    parser.text(
        "--restart",
        type=container_values.restart,
        help="no, always, unless-stopped, on-failure[:RETRIES]",
        metavar="POLICY",
    )
    parser.argument("containers", "CONTAINER", "+")
    parser.lacks({"--kernel-memory": "Linux has no such limit any more", "--isolation": WINDOWS})
    parser.set_defaults(run=update)


def update(client: Client, args: Args) -> int:
    wanted = {field.name: getattr(args, field.dest) for field in _FIELDS if getattr(args, field.dest) is not None}
    if args.restart:
        wanted["RestartPolicy"] = args.restart
    if not wanted:
        raise Refusal("say what to change: at least one flag")
    return output.each(
        args.containers, lambda name: client.warn(client.post(f"/containers/{segment(name)}/update", wanted))
    )
