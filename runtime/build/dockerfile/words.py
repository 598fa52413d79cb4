"""Words of an instruction: split at blanks that are not quoted, with their quotes, which go when words are expanded."""

import json
from collections.abc import Iterator

QUOTES = "'\""


def split(text: str, escape: str) -> list[str]:
    return [word for _, word in placed(text, escape)]


def placed(text: str, escape: str) -> Iterator[tuple[int, str]]:
    """Each word with where it begins. A quote that is not closed goes on to the end."""
    at, length = 0, len(text)
    while at < length:
        if text[at].isspace():
            at += 1
            continue
        start, quote = at, ""
        while at < length and (quote or not text[at].isspace()):
            character = text[at]
            if character == escape and quote != "'":
                at += 1
            elif character == quote:
                quote = ""
            elif not quote and character in QUOTES:
                quote = character
            at += 1
        yield start, text[start : min(at, length)]


def unquoted(word: str, escape: str) -> str:
    """Without quotes and escapes; nothing is expanded."""
    out, quote, at = [], "", 0
    while at < len(word):
        character = word[at]
        if character == escape and quote != "'" and at + 1 < len(word):
            at += 1
            out.append(word[at])
        elif character == quote:
            quote = ""
        elif not quote and character in QUOTES:
            quote = character
        else:
            out.append(character)
        at += 1
    return "".join(out)


def flags(text: str, escape: str) -> tuple[list[tuple[str, str | None]], str]:
    """The --name=value words at the beginning, and the rest of the text; value None for a name alone."""
    found: list[tuple[str, str | None]] = []
    for start, word in placed(text, escape):
        if not word.startswith("--"):
            return found, text[start:]
        if word == "--":
            return found, text[start + 2 :].lstrip()
        name, equals, value = word[2:].partition("=")
        found.append((name, value if equals else None))
    return found, ""


class NotWords(ValueError):
    """A JSON list has something else than strings in it."""


def exec_form(text: str) -> tuple[str, ...] | None:
    """The words of a JSON list; None for what is none, which then is the shell form. Raises NotWords."""
    if not text.lstrip().startswith("["):
        return None
    try:
        words = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in words):
        raise NotWords
    return tuple(words)


def _refuse(constant: str) -> None:
    """NaN and Infinity, which json takes, are no JSON."""
    raise ValueError(constant)


def unquoted_if_whole(value: str) -> str:
    """A flag's value may be quoted as a whole."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in QUOTES:
        return value[1:-1]
    return value
