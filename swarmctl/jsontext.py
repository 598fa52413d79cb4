"""JSON as requests and answers have it, by the two C functions of module `json`, which itself loads `re` and more.

CPython has had them under these names since 3.3.
"""

from __future__ import annotations

from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SPACE = " \t\r\n"


class _Reading:
    """What the scanner asks of a decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float  # NaN, Infinity, -Infinity


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is no JSON")


_scan: Any = make_scanner(_Reading)  # type: ignore[arg-type]
_encode: Any = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True)
_encode_for_people: Any = make_encoder(None, _refuse, encode_basestring, None, ": ", ", ", False, False, True)
_encode_compactly: Any = make_encoder(None, _refuse, encode_basestring, None, ":", ",", False, False, True)


def loads(text: str | bytes) -> Any:
    """ValueError where it is no JSON."""
    whole = (text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else text).strip(_SPACE)
    try:
        value, end = _scan(whole, 0)
    except (StopIteration, SystemError):  # the scanner's own error is in module json, which it does not load
        raise ValueError(f"no JSON: {whole[:80]!r}") from None
    if end != len(whole):
        raise ValueError(f"JSON, and more after it: {whole[end : end + 80]!r}")
    return value


def dumps(value: object) -> str:
    return "".join(_encode(value, 0))


def readable(value: object) -> str:
    """On one line, with letters of every language as they are."""
    return "".join(_encode_for_people(value, 0))


def compact(value: object) -> str:
    """The same without spaces."""
    return "".join(_encode_compactly(value, 0))


def indented(value: object, margin: str = "") -> str:
    """A line for each member, four spaces further in than what it is in."""
    inner = margin + "    "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{readable(str(key))}: {indented(one, inner)}" for key, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"{inner}{indented(one, inner)}" for one in value) + f"\n{margin}]"
    return readable(value)
