"""Patterns of names, as Go's filepath.Match has them with ** besides: in COPY and ADD, and in .dockerignore.

Pure, and without imports of ours: the command line uses it too, to leave out what it need not send.
"""

import functools
import re
from collections.abc import Callable


def has_wildcard(pattern: str) -> bool:
    return any(character in pattern for character in "*?[\\")


def matches(pattern: str, path: str) -> bool:
    return _compiled(pattern.strip("/")).fullmatch(path) is not None


def ignoring(text: str) -> Callable[[str], bool]:
    """A function that says whether a .dockerignore of this text leaves out a path relative to the context.

    A line that begins with ! takes back; the last that matches decides.  What matches a directory holds for all in it.
    """
    rules = [rule for line in text.removeprefix("\ufeff").splitlines() if (rule := _rule(line.strip()))]

    def left_out(path: str) -> bool:
        found = False
        for pattern, leaves_out in rules:
            if found != leaves_out and pattern.match(path):
                found = leaves_out
        return found

    return left_out


def takes_back(text: str) -> bool:
    """Whether a directory that is left out may still have something that is not."""
    return any(line.strip().startswith("!") for line in text.splitlines())


def _rule(line: str) -> tuple[re.Pattern[str], bool] | None:
    if not line or line.startswith("#"):
        return None
    kept: list[str] = []
    for part in line.removeprefix("!").strip().split("/"):
        if part == ".." and kept:
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    if not kept:
        return None
    return re.compile(f"{_translated('/'.join(kept))}(?:/|$)", re.DOTALL), not line.startswith("!")


@functools.lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_translated(pattern), re.DOTALL)


def _translated(pattern: str) -> str:
    """As a regular expression: * and ? stop at a slash, ** does not, [a-z] is one character."""
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
            inner = "".join(one if one == "-" else re.escape(one) for one in pattern[at:end].removeprefix("^"))
            found += f"[^{inner}/]" if pattern[at] == "^" else f"[{inner}]"
            at = end + 1
        elif character == "\\" and at < len(pattern):
            found, at = found + re.escape(pattern[at]), at + 1
        else:
            found += re.escape(character)
    return found
