"""Reads the query string as Docker's clients write it."""

import json
import re
import time
from datetime import datetime

from aiohttp import web

from swarmd.proto import objects_pb2 as pb
from swarmd.proto.errors import Invalid

_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d{1,12}(?:\.\d+)?)(ns|us|ms|s|m|h)", re.ASCII)
_AGO = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_SECONDS = re.compile(r"(\d{1,12})(?:\.(\d*))?", re.ASCII)


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    text = request.query.get(name)
    return default if text is None else text.lower() not in ("", "0", "no", "false", "none")


def number(request: web.Request, name: str, default: int = 0) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise Invalid(f"query parameter {name} must be a whole number, not {text!r}") from None


def version(request: web.Request) -> pb.Version:
    """The version of an object that a change is meant for."""
    index = number(request, "version")
    if not 0 <= index < 2**64:
        raise Invalid(f"query parameter version is no version of an object: {index}")
    return pb.Version(index=index)


def tail(request: web.Request) -> int | None:
    """Lines to show: a number, or None for 'all'."""
    text = request.query.get("tail", "all")
    return None if text in ("", "all") else max(0, number(request, "tail"))


def moment(request: web.Request, name: str) -> int:
    """Nanoseconds since the epoch; 0 when absent."""
    text = request.query.get(name, "")
    return 0 if not text or text == "0" else instant(text, f"query parameter {name}")


def instant(text: str, what: str = "filter until") -> int:
    """Nanoseconds since the epoch of '1700000000', '1700000000.5', RFC 3339, or '10m' for ten minutes ago."""
    if _AGO.fullmatch(text):
        return time.time_ns() - duration(text)
    if epoch := _SECONDS.fullmatch(text):
        return int(epoch[1]) * 10**9 + int((epoch[2] or "")[:9].ljust(9, "0"))
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1e9)
    except (ValueError, OverflowError):
        raise Invalid(f"{what} is no time: {text[:80]!r}") from None


def duration(text: str) -> int:
    """Nanoseconds of '1m30s'; Invalid if it is none."""
    if not _AGO.fullmatch(text):
        raise Invalid(f"{text[:80]!r} is no duration: write it as 10s, 1m30s or 500ms")
    return sum(int(float(number) * _UNITS[unit]) for number, unit in _PART.findall(text))


def filters(request: web.Request) -> dict[str, tuple[str, ...]]:
    """{"name": ["web"]}, or {"name": {"web": true}} as older clients write it."""
    text = request.query.get("filters", "")
    if not text:
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not all(isinstance(values, list | dict) for values in given.values()):
        raise Invalid(f"query parameter filters is not an object of lists: {text[:80]!r}")
    return {key: tuple(map(str, values)) for key, values in given.items()}


def only(given: dict[str, tuple[str, ...]], known: frozenset[str]) -> None:
    for name in given.keys() - known:
        raise Invalid(f"unknown filter {name}: use {', '.join(sorted(known))}")
