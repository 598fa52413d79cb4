"""--help: how a command is used, its arguments and its flags, in lines that fit the terminal.

-u, --user USER: the value once, and none for a switch.
"""

from __future__ import annotations

import os
import textwrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMN = 36  # where the explanations start
_MANY = {"": "{}", "?": "[{}]", "*": "[{}...]", "+": "{0} [{0}...]", "...": "[{} [ARG...]]"}


def text_of(parser: Any) -> str:
    """parser: a Parser, whose module imports this one."""
    usage = parser.usage or " ".join((parser.prog, "[FLAGS]", *map(_word, parser.arguments)))
    parts = [f"Usage: {usage}", parser.description]
    explained = [(f"  {one.metavar}", one.help) for one in parser.arguments if one.help]
    if explained:
        parts.append(f"Arguments:\n{_lines(explained)}")
    parts.append(flags_of(parser))
    return "\n\n".join(filter(None, parts))


def flags_of(parser: Any) -> str:
    rows = []
    for flag, names in parser.options():
        value = "|".join(flag.choices) if flag.choices and flag.metavar == "TEXT" else flag.metavar
        indent = "" if len(names[0]) == 2 else "    "
        rows.append((f"  {indent}{', '.join(names)} {value}".rstrip(), flag.help))
    return f"Flags:\n{_lines(rows)}"


def _word(argument: Any) -> str:
    return str(_MANY[argument.many].format(argument.metavar))


def _lines(rows: list[tuple[str, str]]) -> str:
    width = min(_COLUMN, max(len(left) for left, _ in rows) + 2)
    return "\n".join(line for left, right in rows for line in _row(left, right, width))


def _row(left: str, right: str, width: int) -> list[str]:
    columns = os.environ.get("COLUMNS", "")
    room = max(20, (int(columns) if columns.isdigit() else 100) - width)
    wrapped = textwrap.wrap(right, room) or [""]
    if len(left) + 2 > width:
        return [left, *(" " * width + line for line in wrapped if line)]
    return [line.rstrip() for line in (left.ljust(width) + wrapped[0], *(" " * width + rest for rest in wrapped[1:]))]
