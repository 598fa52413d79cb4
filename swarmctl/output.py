"""How commands show what they found: tables, templates, ids only, and times and sizes as people say them."""

from __future__ import annotations

import sys
import time

from swarmd.swarmctl.jsontext import dumps, indented, readable
from swarmd.swarmctl.parser import Args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Row = Mapping[str, Any]

_AT_ONCE = 50  # requests


class Table:
    """Columns by field: {"ID": "ID", "Name": "NAME"}; `quiet` is the field that --quiet prints."""

    def __init__(self, columns: Mapping[str, str], quiet: str = "ID") -> None:
        self._columns = columns
        self._quiet = quiet

    def show(self, rows: Iterable[Row], args: Args) -> None:
        rows = list(rows)
        form = getattr(args, "format", "") or "table"
        if getattr(args, "quiet", False):
            print("".join(f"{row[self._quiet]}\n" for row in rows), end="")
        else:
            print("".join(f"{line}\n" for line in self.lines(rows, form)), end="")

    def lines(self, rows: Sequence[Row], form: str) -> list[str]:
        if form == "table":
            found = ([printable(str(row[name])) for name in self._columns] for row in rows)
            return aligned([self._columns.values(), *found])
        if form == "json":
            return [dumps({key: row[key] for key in sorted(row) if not callable(row[key])}) for row in rows]
        from swarmd.swarmctl.template import render

        template = unescaped(form.removeprefix("table "))
        texts = [render(template, row) for row in rows]
        if not form.startswith("table "):
            return texts
        heads = {name: name.upper() for row in rows for name in row} | dict(self._columns)
        methods: dict[str, Any] = {name: str for row in rows for name in row if callable(row[name])}
        return aligned([line.split("\t") for line in [render(template, heads | methods), *texts]])


def printable(text: str) -> str:
    """Without what a terminal would do something for: images and programs come from anywhere."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def aligned(lines: Sequence[Iterable[str]]) -> list[str]:
    cells = [list(line) for line in lines]
    widths = [max(len(line[i]) for line in cells if i < len(line)) for i in range(max(map(len, cells), default=0))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in cells]


def inspect(objects: Sequence[Any], form: str | None) -> None:
    """A JSON list, or a template for each."""
    if form and form != "json":
        from swarmd.swarmctl.template import render

        for one in objects:
            print(render(unescaped(form), one))
    else:
        print(readable(objects) if form else indented(objects))


def inspect_one(one: Any, form: str | None, default: str) -> None:
    """One object: by the user's template, as JSON, or by ours."""
    from swarmd.swarmctl.template import render

    print(readable(one) if form == "json" else render(unescaped(form or default), one), flush=True)


def each(names: Iterable[str], action: Callable[[str], None]) -> int:
    """Do it to each; print those it was done to, and why not to the others. Return the exit code."""
    from swarmd.swarmctl.client import Refusal

    code = 0
    for name in names:
        try:
            action(name)
            print(name, flush=True)
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code


def at_once(names: Sequence[str], action: Callable[[str], None]) -> int:
    """The same, side by side: each may take its time, as containers do to stop."""
    if len(names) < 2:
        return each(names, action)
    from _thread import allocate_lock, start_new_thread

    ended = [allocate_lock() for _ in names]
    problems: list[Exception | None] = [None] * len(names)
    waiting = iter(range(len(names)))

    def work() -> None:
        for number in waiting:
            try:
                action(names[number])
            except Exception as problem:  # raised again where there is somebody to hear it
                problems[number] = problem
            ended[number].release()

    def result(name: str) -> None:
        number = next(order)
        ended[number].acquire()
        if problem := problems[number]:
            raise problem

    for lock in ended:
        lock.acquire()
    order = iter(range(len(names)))
    for _ in range(min(len(names), _AT_ONCE)):
        start_new_thread(work, ())
    return each(names, result)


def unescaped(form: str) -> str:
    return form.replace("\\t", "\t").replace("\\n", "\n")


def confirmed(question: str) -> bool:
    """Ask at the terminal; no answer is a no."""
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# ---------------------------------------------------------------- times and sizes


def ago(text: str, now: Any = None) -> str:
    """'3 minutes ago' of an RFC 3339 time in UTC."""
    from datetime import UTC, datetime

    if not text or text.startswith("0001"):
        return ""
    whole = text.rstrip("Z").partition(".")[0]
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(whole).replace(tzinfo=UTC)).total_seconds())
    return f"{span(max(0, seconds))} ago"


def since(seconds: float) -> str:
    """'3 minutes ago' of a time in seconds of the epoch."""
    return f"{span(max(0, int(time.time() - seconds)))} ago"


def times(created: int) -> dict[str, str]:
    """The two columns of when something was made, in seconds of the epoch; 0: nobody knows."""
    if not created:
        return {"CreatedSince": "N/A", "CreatedAt": "N/A"}
    at = time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created))
    return {"CreatedSince": since(created), "CreatedAt": at}


def span(seconds: int) -> str:
    for unit, length, least in (("year", 31536000, 2), ("month", 2592000, 2), ("week", 604800, 2), ("day", 86400, 2)):
        if seconds >= least * length:
            return f"{seconds // length} {unit}s"
    if seconds >= 5400:
        return f"{round(seconds / 3600)} hours"
    if seconds >= 3600:
        return "about an hour"
    if seconds >= 120:
        return f"{seconds // 60} minutes"
    return "about a minute" if seconds >= 60 else "less than a second" if seconds < 1 else _plural(seconds)


def _plural(seconds: int) -> str:
    return f"{seconds} second{'s' * (seconds != 1)}"


def size(count: float) -> str:
    """In powers of 1000, as disks are counted."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.4g}TB"


def memory(count: float) -> str:
    """In powers of 1024, as memory is counted."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.4g}{unit}"
        number /= 1024
    return f"{number:.4g}TiB"
