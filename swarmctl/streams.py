"""Output of containers as it comes: frames of one byte of stream, three zero bytes, a length in four, and the data."""

from __future__ import annotations

import sys
import time

from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.http import Response
from swarmd.swarmctl.parser import Args, BadValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_STDERR = 2


def frames(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """`read` gives exactly so many bytes, or fewer at the end."""
    while len(head := read(8)) == 8:
        yield head[0], read(int.from_bytes(head[4:], "big"))


def show_frames(read: Callable[[int], bytes]) -> None:
    for stream, data in frames(read):
        _write(stream, data)


def query(args: Args) -> dict[str, Any]:
    """What --follow, --since, --tail and --timestamps ask of the API."""
    return {
        "stdout": True,
        "stderr": True,
        "follow": args.follow,
        "tail": args.tail,
        "timestamps": args.timestamps,
        "since": moment(args.since) if args.since else None,
    }


def moment(text: str) -> str:
    """Seconds of the epoch, as the API wants them, of a time or of how long ago.  A time without a zone is ours."""
    try:
        float(text)
        return text
    except ValueError:
        pass
    from swarmd.swarmctl import values

    try:
        return f"{time.time() - values.duration(text) / 1e9:.9f}"
    except BadValue:
        pass
    from datetime import datetime

    try:
        return f"{datetime.fromisoformat(text).astimezone().timestamp():.9f}"
    except ValueError:
        raise Refusal(f"{text!r} is no time: write it as 2026-01-02T03:04:05Z, or 10m for ten minutes ago") from None


def show_bytes(response: Response) -> None:
    """A terminal's output has no frames."""
    while data := response.read1():
        _write(1, data)


def show_service_logs(client: Client, path: str, args: Args) -> None:
    """Each line after the name of the task that wrote it, and its node."""
    label = _Labels(client, args)
    details_wanted = args.details or not args.raw
    for stream, data in frames(client.stream(path, details=details_wanted, **query(args)).read):
        if not details_wanted:
            _write(stream, data)
            continue
        stamp, _, rest = data.partition(b" ") if args.timestamps else (b"", b"", data)
        details, _, line = rest.partition(b" ")
        source, added = _sides(details.decode())
        added = f"{added} " if args.details else ""
        head = added if args.raw else f"{label.of(source)} | {added}"
        _write(stream, (stamp + b" " if stamp else b"") + head.encode() + line)


def _sides(details: str) -> tuple[str, str]:
    """What says who wrote a line, and what the log driver added."""
    parts = details.split(",")
    source = [part for part in parts if part.startswith("com.docker.swarm.")]
    return ",".join(source), ",".join(part for part in parts if part not in source)


class _Labels:
    """Names of tasks, each looked up once."""

    def __init__(self, client: Client, args: Args) -> None:
        self._client = client
        self._args = args
        self._known: dict[str, str] = {}
        self._width = 0

    def of(self, details: str) -> str:
        if details not in self._known:
            self._known[details] = self._name(dict((*part.partition("=")[::2],) for part in details.split(",")))
            self._width = max(self._width, len(self._known[details]))
        return self._known[details].ljust(self._width)

    def _name(self, ids: dict[str, str]) -> str:
        service, task, node = (ids.get(f"com.docker.swarm.{kind}.id", "") for kind in ("service", "task", "node"))
        shown = task if self._args.no_trunc else task[:12]
        if not task or (self._args.no_resolve and not self._args.no_task_ids):
            return f"{shown}@{node}"
        slot = self._client.get(f"/tasks/{task}").get("Slot", 0)
        if self._args.no_resolve:
            return f"{service}.{slot}@{node}"
        name = self._client.get(f"/services/{service}")["Spec"]["Name"]
        host = self._client.get(f"/nodes/{node}")["Description"]["Hostname"]
        return f"{name}.{slot}@{host}" if self._args.no_task_ids else f"{name}.{slot}.{shown}@{host}"


def _write(stream: int, data: bytes) -> None:
    out = sys.stderr.buffer if stream == _STDERR else sys.stdout.buffer
    out.write(data)
    out.flush()
