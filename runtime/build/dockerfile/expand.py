"""Variables in the words of instructions: $name, ${name} and its modifiers, quotes and escapes.

${v:-w} ${v-w}    w if v is unset (with the colon: or empty)        ${v#p} ${v##p}   v without the shortest or longest
${v:+w} ${v+w}    w if v is set (and not empty), else nothing                        beginning that p matches
${v:?w} ${v?w}    an error that says w if v is unset (or empty)     ${v%p} ${v%%p}   the same of its end
${v/p/w} ${v//p/w}   v with the first, or every, match of p replaced by w
"""

import re
from collections.abc import Mapping, MutableSet

from swarmd.runtime.build.faults import WrongWord

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
_IN_DOUBLE = '"$'  # what an escape takes its meaning from between double quotes, besides itself
_DEEPEST = 50


def expand(
    word: str,
    values: Mapping[str, str],
    escape: str = "\\",
    *,
    quotes: bool = True,
    used: MutableSet[str] | None = None,
) -> str:
    """A word with its variables' values. Raises WrongWord for one that does not end, or that ${v:?} asks for.

    quotes: they are taken away, with escapes, as in the words of instructions; without, all but variables and escaped
    dollars stays, as in heredocs.  used: gets the names of the variables that were looked up.
    """
    return _Expansion(word, values, escape, quotes, used).run()


class _Expansion:
    def __init__(
        self,
        text: str,
        values: Mapping[str, str],
        escape: str,
        quotes: bool,
        used: MutableSet[str] | None,
        depth: int = 0,
    ) -> None:
        if depth > _DEEPEST:
            raise WrongWord(f"{text[:80]!r} nests variables more than {_DEEPEST} deep", text)
        self._text, self._values, self._escape, self._quotes, self._used = text, values, escape, quotes, used
        self._depth, self._at = depth, 0

    def run(self) -> str:
        out: list[str] = []
        text = self._text
        while self._at < len(text):
            character = text[self._at]
            if character == "'" and self._quotes:
                end = text.find("'", self._at + 1)
                if end < 0:
                    raise WrongWord(f"a single quote in {text!r} is not closed", text)
                out.append(text[self._at + 1 : end])
                self._at = end + 1
            elif character == '"' and self._quotes:
                self._at += 1
                out.append(self._double())
            elif character == self._escape:
                out.append(self._escaped())
            elif character == "$":
                out.append(self._variable())
            else:
                out.append(character)
                self._at += 1
        return "".join(out)

    def _double(self) -> str:
        out: list[str] = []
        text = self._text
        while self._at < len(text):
            character = text[self._at]
            if character == '"':
                self._at += 1
                return "".join(out)
            if character == "$":
                out.append(self._variable())
                continue
            if character == self._escape and text[self._at + 1 : self._at + 2] in (*_IN_DOUBLE, self._escape):
                self._at += 1
                character = text[self._at]
            out.append(character)
            self._at += 1
        raise WrongWord(f"a double quote in {text!r} is not closed", text)

    def _escaped(self) -> str:
        following = self._text[self._at + 1 : self._at + 2]
        self._at += 2
        if self._quotes or following in ("$", self._escape):
            return following
        return self._escape + following

    def _variable(self) -> str:
        """At the dollar."""
        text = self._text
        if text[self._at + 1 : self._at + 2] == "{":
            end = self._closing(self._at + 2)
            inner = text[self._at + 2 : end]
            self._at = end + 1
            return self._braced(inner)
        match = _NAME.match(text, self._at + 1)
        if match is None:
            self._at += 1
            return "$"
        self._at = match.end()
        return self._value(match[0]) or ""

    def _closing(self, at: int) -> int:
        """Where the brace is closed, past those of inner variables."""
        text, depth = self._text, 1
        while at < len(text):
            if text[at] == self._escape:
                at += 1
            elif text.startswith("${", at):
                depth += 1
                at += 1
            elif text[at] == "}":
                depth -= 1
                if not depth:
                    return at
            at += 1
        raise WrongWord(f"a brace in {text!r} is not closed", text)

    def _braced(self, inner: str) -> str:
        match = _NAME.match(inner)
        if match is None:
            raise WrongWord(f"${{{inner}}} names no variable", f"${{{inner}}}")
        name, rest = match[0], inner[match.end() :]
        value = self._value(name)
        if not rest:
            return value or ""
        colon = rest.startswith(":")
        operator, argument = (rest[1:2], rest[2:]) if colon else (rest[:1], rest[1:])
        there = value is not None and not (colon and value == "")
        if operator == "-":
            return (value or "") if there else self._inner(argument)
        if operator == "+":
            return self._inner(argument) if there else ""
        if operator == "?":
            if there:
                return value or ""
            raise WrongWord(f"variable {name}: {self._inner(argument) or 'not set'}", f"${{{inner}}}")
        if colon or operator not in ("#", "%", "/"):
            raise WrongWord(f"${{{inner}}} has a modifier that is not known: {rest[:2]!r}", f"${{{inner}}}")
        doubled = argument.startswith(operator)
        argument = argument[1:] if doubled else argument
        if operator == "/":
            return self._replaced(value or "", argument, doubled)
        return _cut(value or "", self._pattern(argument, doubled), operator == "#", doubled)

    def _replaced(self, value: str, argument: str, every: bool) -> str:
        pattern, replacement = _at_slash(argument, self._escape)
        if not pattern:
            return value
        text = self._inner(replacement)
        return _swapped(value, self._pattern(pattern, True), text, every)

    def _pattern(self, text: str, greedy: bool) -> re.Pattern[str]:
        """* and ? as in a shell; greedy: * takes as much as it can."""
        found, at = "", 0
        expanded = self._inner(text, quotes=False)
        while at < len(expanded):
            character = expanded[at]
            if character == self._escape and at + 1 < len(expanded):
                at += 1
                found += re.escape(expanded[at])
            elif character == "*":
                found += ".*" if greedy else ".*?"
            elif character == "?":
                found += "."
            else:
                found += re.escape(character)
            at += 1
        return re.compile(found, re.DOTALL)

    def _inner(self, text: str, quotes: bool | None = None) -> str:
        with_quotes = self._quotes if quotes is None else quotes
        return _Expansion(text, self._values, self._escape, with_quotes, self._used, self._depth + 1).run()

    def _value(self, name: str) -> str | None:
        if self._used is not None:
            self._used.add(name)
        return self._values.get(name)


def _cut(value: str, pattern: re.Pattern[str], beginning: bool, longest: bool) -> str:
    lengths = range(len(value), -1, -1) if longest else range(len(value) + 1)
    for length in lengths:
        part = value[:length] if beginning else value[len(value) - length :]
        if pattern.fullmatch(part):
            return value[length:] if beginning else value[: len(value) - length]
    return value


def _swapped(value: str, pattern: re.Pattern[str], text: str, every: bool) -> str:
    """As a shell and Go do it, nothing is found right after what was found: * is the whole value, and that once."""
    out, at, last = "", 0, -1
    for found in pattern.finditer(value):
        if found.start() == found.end() == last:
            continue
        out += value[at : found.start()] + text
        at = last = found.end()
        if not every:
            break
    return out + value[at:]


def _at_slash(text: str, escape: str) -> tuple[str, str]:
    """A pattern and its replacement; an escaped slash is one of the pattern's."""
    at = 0
    while at < len(text):
        if text[at] == escape:
            at += 1
        elif text[at] == "/":
            return text[:at], text[at + 1 :]
        at += 1
    return text, ""
