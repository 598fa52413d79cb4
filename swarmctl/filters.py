"""--filter KEY=VALUE, repeated, as the API's filters."""

from __future__ import annotations

from swarmd.swarmctl.client import Refusal


def filters(words: list[str]) -> dict[str, list[str]] | None:
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise Refusal(f"filter {word!r}: write it as key=value")
        found.setdefault(key, []).append(value)
    return found or None
