"""swarmctl stats: a table of what containers use, written over twice a second.

Each container has a stream of samples, read by a thread of its own; the main thread only draws what is newest.
"""

from __future__ import annotations

import sys
import threading
import time

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.jsontext import loads
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = {
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_PERIOD = 0.5  # s, between drawings
_FIRST = 3.0  # s, that the first samples are waited for
_ABSENT = "--"


def add_stats(parser: Parser) -> None:
    parser.switch("-a", "--all", help="also those that do not run")
    parser.text("--format", metavar="TEMPLATE", help="table, json, or a template such as '{{.Name}} {{.CPUPerc}}'")
    parser.switch("--no-stream", help="once, not again and again")
    parser.switch("--no-trunc", help="ids in full")
    parser.argument("containers", "CONTAINER", "*")
    parser.set_defaults(run=stats)


class _Samples:
    """The newest sample of each container, in the order in which they were named; None before the first."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._newest: dict[str, dict[str, Any] | None] = {}
        self.problems: dict[str, Refusal] = {}

    def follow(self, name: str) -> None:
        if name not in self._newest:
            self._newest[name] = None
            threading.Thread(target=self._read, args=(name,), daemon=True).start()

    def _read(self, name: str) -> None:
        try:
            for line in self._client.stream(f"/containers/{segment(name)}/stats", stream=True):
                if line.strip():
                    self._newest[name] = loads(line)
        except Refusal as refusal:
            self.problems[name] = refusal
        except OSError:
            pass  # the daemon went away: what was last seen stays

    def keep(self, names: list[str]) -> None:
        for name in self._newest.keys() - set(names):
            del self._newest[name]

    def rows(self, in_full: bool) -> list[dict[str, Any]]:
        return [row(name, sample, in_full) for name, sample in self._newest.items() if name not in self.problems]

    def complete(self) -> bool:
        return all(sample is not None or name in self.problems for name, sample in self._newest.items())


def stats(client: Client, args: Args) -> int:
    if args.no_stream:
        return _once(client, args)
    samples = _Samples(client)
    live = sys.stdout.isatty()
    started = time.monotonic()
    while True:
        names = args.containers or _all(client, args)
        for name in names:
            samples.follow(name)
        if not args.containers:
            samples.keep(names)  # those that ended go; new ones came above
        if samples.complete() or time.monotonic() - started > _FIRST:
            _draw(samples.rows(args.no_trunc), args, live)
        for problem in samples.problems.values() if args.containers else ():
            raise problem
        time.sleep(_PERIOD)


def _once(client: Client, args: Args) -> int:
    names = args.containers or _all(client, args)
    found: dict[str, Any] = {}
    problems: list[Refusal] = []

    def sample(name: str) -> None:
        try:
            found[name] = client.get(f"/containers/{segment(name)}/stats", stream=False)
        except Refusal as refusal:
            problems.append(refusal)

    # At the same time: each takes the daemon a second, for the share of the processor.
    threads = [threading.Thread(target=sample, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    output.Table(_COLUMNS).show([row(name, found[name], args.no_trunc) for name in names if name in found], args)
    for problem in problems if args.containers else ():
        raise problem
    return 0


def _all(client: Client, args: Args) -> list[str]:
    return [str(one["Id"]) for one in client.get("/containers/json", all=args.all or None)]


def _draw(rows: list[dict[str, Any]], args: Args, live: bool) -> None:
    lines = output.Table(_COLUMNS).lines(rows, args.format or "table")
    # Over what is there, and nothing left of it: no flicker.
    text = (
        "\033[H" + "".join(f"{line}\033[K\n" for line in lines) + "\033[J"
        if live
        else "".join(f"{line}\n" for line in lines)
    )
    try:
        print(text, end="", flush=True)
    except BlockingIOError:
        pass  # a terminal that is behind: the next drawing is whole again


# ---------------------------------------------------------------- one sample as a row


def row(name: str, sample: dict[str, Any] | None, in_full: bool) -> dict[str, Any]:
    if not sample or not (sample.get("memory_stats") or (sample.get("cpu_stats") or {}).get("cpu_usage")):
        known = {"ID": name if in_full else name[:12], "Name": (sample or {}).get("name", _ABSENT).removeprefix("/")}
        return {**dict.fromkeys(_COLUMNS, _ABSENT), "Container": name, **known}
    id = sample.get("id") or name
    used, limit = memory(sample.get("memory_stats") or {})
    networks = (sample.get("networks") or {}).values()
    received, sent = (sum(one.get(field, 0) for one in networks) for field in ("rx_bytes", "tx_bytes"))
    read, written = (_blocks(sample, op) for op in ("read", "write"))
    return {
        "Container": name,
        "ID": id if in_full else id[:12],
        "Name": sample.get("name", "").removeprefix("/"),
        "CPUPerc": f"{processors(sample):.2f}%",
        "MemUsage": f"{output.memory(used)} / {output.memory(limit)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{output.size(received)} / {output.size(sent)}",
        "BlockIO": f"{output.size(read)} / {output.size(written)}",
        "PIDs": str((sample.get("pids_stats") or {}).get("current", 0)),
    }


def processors(sample: dict[str, Any]) -> float:
    """Percent of one processor, between this sample and the one before it."""
    now, before = sample.get("cpu_stats") or {}, sample.get("precpu_stats") or {}
    used = _usage(now) - _usage(before)
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    count = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ()) or 1
    # Without one before it, it would be the share since the machine started.
    known = before.get("system_cpu_usage") and used > 0 and passed > 0
    return used / passed * count * 100 if known else 0.0


def _usage(one: dict[str, Any]) -> int:
    return int((one.get("cpu_usage") or {}).get("total_usage", 0))


def memory(stats: dict[str, Any]) -> tuple[int, int]:
    """Bytes in use and at most; the files that could be dropped at once do not count."""
    used, detail = stats.get("usage", 0), stats.get("stats") or {}
    # cgroup v1's name first: there, both exist.
    droppable = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    return (used - droppable if droppable < used else used), stats.get("limit", 0)


def _blocks(sample: dict[str, Any], operation: str) -> int:
    entries = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    return sum(entry.get("value", 0) for entry in entries if entry.get("op", "").lower() == operation)
