"""The functions that templates may call, as Go's text/template and Docker's CLI name them."""

from __future__ import annotations

import re

from swarmd.swarmctl.jsontext import compact, readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_VERB = re.compile(r"%([-+# 0]*)(\d{0,5})(?:\.(\d{1,5}))?([vsdqtfxX%])", re.ASCII)


def shown(value: Any) -> str:
    """As Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{shown(item)}' for key, item in sorted(value.items()))}]"
    return str(value)


def _printf(form: str, *values: Any) -> str:
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        point = f".{precision}" if precision else ""
        if verb in "dxX":
            return f"%{flags}{width}{point}{verb}" % int(value)
        if verb == "f":
            return f"%{flags}{width}{point}f" % float(value)
        text = readable(str(value)) if verb == "q" else shown(value)
        return f"%{flags}{width}{point}s" % text

    return _VERB.sub(one, form)


def _index(value: Any, *keys: Any) -> Any:
    """A missing key of a map is nothing; a place that a list has not is an error."""
    for key in keys:
        value = None if value is None else value.get(key) if isinstance(value, dict) else value[key]
    return value


def _slice(value: Any, start: int = 0, end: int | None = None) -> Any:
    if end is not None and end > len(value):
        raise IndexError(f"it has only {len(value)}")
    return value[start:end]


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": lambda *values: next((one for one in values if not one), values[-1]),
    "or": lambda *values: next((one for one in values if one), values[-1]),
    "not": lambda value: not value,
    "eq": lambda one, *others: one in others,
    "ne": lambda one, other: one != other,
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
    "gt": lambda one, other: one > other,
    "ge": lambda one, other: one >= other,
    "index": _index,
    "slice": _slice,
    "len": lambda value: len(value or ()),
    "json": compact,
    "join": lambda values, separator: separator.join(map(shown, values or ())),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": lambda text: text[:1].upper() + text[1:],
    "pad": _pad,
    "truncate": lambda text, length: text[:length],
    "print": lambda *values: "".join(map(shown, values)),
    "println": lambda *values: " ".join(map(shown, values)) + "\n",
    "printf": _printf,
}
