"""Patterns of names, as Go's filepath.Match has them with ** besides: in COPY and ADD, and in .dockerignore.

Pure, and without imports of ours: the command line uses it too, to leave out what it need not send.
"""

import functools
import posixpath
import re
from collections.abc import Callable, Iterable

_CLASS = re.compile(r"\[(\^?+)((?:\\.|[^]\\-])(?:-(?:\\.|[^]\\-]))?)+\]", re.DOTALL)
_RANGE = re.compile(r"(\\.|[^]\\-])(?:-(\\.|[^]\\-]))?", re.DOTALL)


class BadPattern(ValueError):
    """A sentence that says what is wrong with it."""


def has_wildcard(pattern: str) -> bool:
    return any(character in pattern for character in "*?[\\")


def matches(pattern: str, path: str) -> bool:
    """Raises BadPattern."""
    return _compiled(pattern.strip("/")).fullmatch(path) is not None


def ignoring(text: str) -> Callable[[str], str]:
    """A function that says by which of its lines a .dockerignore leaves out a path relative to the context, '' by none.

    Raises BadPattern.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    return leaving_out(line for line in lines if not line.startswith("#"))


def leaving_out(patterns: Iterable[str]) -> Callable[[str], str]:
    """A function that says which pattern leaves out a path, '' if none does.

    One that begins with ! takes back; the last that matches decides.  What matches a directory holds for all in it.
    Raises BadPattern.
    """
    rules = [rule for pattern in patterns if (rule := _rule(pattern.strip()))]

    def left_out(path: str) -> str:
        found = ""
        for pattern, written in rules:
            if bool(found) != bool(written) and pattern.match(path):
                found = written
        return found

    return left_out


def takes_back(text: str) -> bool:
    """Whether a directory that is left out may still have something that is not."""
    return any(line.strip().startswith("!") for line in text.splitlines())


def _rule(line: str) -> tuple[re.Pattern[str], str] | None:
    """With the pattern as it is written, '' for one that takes back."""
    if not line:
        return None
    pattern = line.removeprefix("!").strip()
    if not pattern:
        raise BadPattern("the pattern '!' takes nothing back: write what, as in !README.md")
    cleaned = posixpath.normpath(pattern).lstrip("/")
    if cleaned in ("", "."):
        return None
    return re.compile(rf"{_translated(cleaned)}(?:/|\Z)", re.DOTALL), "" if line.startswith("!") else line


@functools.lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_translated(pattern), re.DOTALL)


def _translated(pattern: str) -> str:
    """As a regular expression: * and ? stop at a slash, [a-z] is one character; ** is any number of directories.

    A * is left at the first place where what follows it goes on, but for the last one before a ** or the end: no name
    is tried in all the ways in which it could be split.
    """
    found: list[str] = []  # of the pattern since the last **
    whole, at, star = "", 0, -1  # star: where the last * stands in found
    while at < len(pattern):
        character = pattern[at]
        if pattern.startswith("**", at):
            while pattern.startswith("**", at):  # several in a row are one
                at += 3 if pattern.startswith("**/", at) else 2
            whole += "".join(found) + ("(?:.*/)?" if at < len(pattern) else ".*")
            found, star = [], -1
        elif character == "*":
            if star >= 0:
                found[star:] = [f"(?>[^/]*?{''.join(found[star + 1 :])})"]
            star, at = len(found), at + 1
            found.append("[^/]*")
        elif character == "[":
            text, at = _class(pattern, at)
            found.append(text)
        elif character == "\\":
            if at + 1 == len(pattern):
                raise BadPattern(f"the pattern {pattern!r} ends with a backslash: write \\\\ for one")
            found.append(re.escape(pattern[at + 1]))
            at += 2
        else:
            found.append("[^/]" if character == "?" else re.escape(character))
            at += 1
    return whole + "".join(found)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """What stands in brackets, as a regular expression, and where it ends. A range from z to a has nothing in it."""
    match = _CLASS.match(pattern, at)
    if match is None:
        raise BadPattern(
            f"the pattern {pattern!r} has a [ that begins no class of characters: write \\[ for one, and [\\-x] for a -"
        )
    inner = ""
    for first, last in _RANGE.findall(match[0][1 + len(match[1]) : -1]):
        low, high = first[-1], (last or first)[-1]
        if low <= high:
            inner += f"{re.escape(low)}-{re.escape(high)}"
    if match[1]:
        return f"[^/{inner}]", match.end()
    return f"(?!/)[{inner}]" if inner else "(?!)", match.end()
