"""What a registry wants before it answers: the WWW-Authenticate header (RFC 9110, 11.6.1), read without trust."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'\s*,?\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))', re.DOTALL)
_SCHEME = re.compile(rf"\s*,?\s*({_TOKEN})(?=\s|,|$)")
_LONGEST = 8192


@dataclass(frozen=True, slots=True)
class Challenge:
    scheme: str  # lower case
    parameters: Mapping[str, str]  # names in lower case


def parse(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges in order; what is malformed ends the header it is in."""
    found: list[Challenge] = []
    for header in headers:
        at, text = 0, header[:_LONGEST]
        while scheme := _SCHEME.match(text, at):
            parameters: dict[str, str] = {}
            at = scheme.end()
            while parameter := _PARAMETER.match(text, at):
                quoted, plain = parameter[2], parameter[3]
                parameters[parameter[1].lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                at = parameter.end()
            found.append(Challenge(scheme[1].lower(), parameters))
    return tuple(found)


def preferred(challenges: Iterable[Challenge]) -> Challenge | None:
    """A token where there is a choice: it gives less away than a password in each request."""
    known = {challenge.scheme: challenge for challenge in challenges if challenge.scheme in ("bearer", "basic")}
    bearer = known.get("bearer")
    return bearer if bearer and bearer.parameters.get("realm") else known.get("basic")
