"""Patterns of names in COPY and ADD, as Go's filepath.Match has them: * and ? stop at a slash, ** does not."""

import functools
import re


def has_wildcard(pattern: str) -> bool:
    return any(character in pattern for character in "*?[\\")


def matches(pattern: str, path: str) -> bool:
    return _compiled(pattern.strip("/")).fullmatch(path) is not None


@functools.lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    found, at = "", 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            if pattern.startswith("*/", at):
                found, at = f"{found}(?:[^/]+/)*", at + 2
            elif pattern.startswith("*", at):
                found, at = f"{found}.*", at + 1
            else:
                found += "[^/]*"
        elif character == "?":
            found += "[^/]"
        elif character == "[" and (end := pattern.find("]", at + 1)) > 0:
            inner = pattern[at:end].replace("\\", "\\\\")
            found += f"[^{re.escape(inner[1:])}/]" if inner.startswith("^") else f"[{_range(inner)}]"
            at = end + 1
        elif character == "\\" and at < len(pattern):
            found, at = found + re.escape(pattern[at]), at + 1
        else:
            found += re.escape(character)
    return re.compile(found, re.DOTALL)


def _range(text: str) -> str:
    return "".join(character if character == "-" else re.escape(character) for character in text)
