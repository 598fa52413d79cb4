"""How commands show what they found: tables, templates, ids only, and times as people say them."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from swarmd.swarmctl.template import render

Row = Mapping[str, Any]


class Table:
    """Columns by field: {"ID": "ID", "Name": "NAME"}; `quiet` is the field that --quiet prints."""

    def __init__(self, columns: Mapping[str, str], quiet: str = "ID") -> None:
        self._columns = columns
        self._quiet = quiet

    def show(self, rows: Iterable[Row], args: argparse.Namespace) -> None:
        rows = list(rows)
        form = getattr(args, "format", "") or "table"
        if getattr(args, "quiet", False):
            form = "{{." + self._quiet + "}}"
        if form == "table":
            self._print([self._columns.values(), *([str(row[name]) for name in self._columns] for row in rows)])
        elif form == "json":
            for row in rows:
                print(json.dumps(row))
        elif form.startswith("table "):
            template = _unescaped(form.removeprefix("table "))
            heads = {name: name.upper() for row in rows for name in row} | dict(self._columns)
            self._print(
                [line.split("\t") for line in [render(template, heads), *(render(template, row) for row in rows)]]
            )
        else:
            template = _unescaped(form)
            for row in rows:
                print(render(template, row))

    @staticmethod
    def _print(lines: Sequence[Iterable[str]]) -> None:
        cells = [list(line) for line in lines]
        widths = [max(len(line[i]) for line in cells if i < len(line)) for i in range(max(map(len, cells)))]
        for line in cells:
            print("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip())


def inspect(objects: Sequence[Any], form: str | None) -> None:
    """A JSON list, or a template for each."""
    if form and form != "json":
        for one in objects:
            print(render(_unescaped(form), one))
    else:
        print(json.dumps(objects, indent=None if form else 4, ensure_ascii=False))


def inspect_one(one: Any, form: str | None, default: str) -> None:
    """One object: by the user's template, as JSON, or by ours."""
    print(
        json.dumps(one, ensure_ascii=False) if form == "json" else render(_unescaped(form or default), one), flush=True
    )


def _unescaped(form: str) -> str:
    return form.replace("\\t", "\t").replace("\\n", "\n")


def ago(text: str, now: datetime | None = None) -> str:
    """'3 minutes ago' of an RFC 3339 time."""
    if not text or text.startswith("0001"):
        return ""
    whole = text.rstrip("Z").partition(".")[0]
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(whole).replace(tzinfo=UTC)).total_seconds())
    return f"{span(max(0, seconds))} ago"


def span(seconds: int) -> str:
    for unit, length, least in (("month", 2592000, 2), ("week", 604800, 2), ("day", 86400, 2)):
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


def size(count: int) -> str:
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}TB"
