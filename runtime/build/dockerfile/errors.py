"""What is wrong with a Dockerfile, and where."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from swarmd.runtime.errors import Invalid


class DockerfileError(Invalid):
    """line counts from 1; word: what is wrong in it, empty for the line as a whole; source: the line's text.

    column: where the word begins, from 1; where the line is wrong as a whole, its first character.
    code: how the command of a RUN ended, 0 for what is no command's fault.
    """

    def __init__(self, file: str, line: int, why: str, word: str = "", source: str = "", code: int = 0) -> None:
        super().__init__(f"{file}:{line}: {why}")
        self.file, self.line, self.why, self.word, self.source, self.code = file, line, why, word, source, code
        self.column = (_found(source, word) if word in source and word else len(source) - len(source.lstrip())) + 1

    def shown(self) -> str:
        """The sentence, and the line with a mark under the word."""
        if not self.source or self.word not in self.source:
            return str(self)
        # A tab stays one, so that the mark stands under the word whatever its width.
        before = "".join(character if character == "\t" else " " for character in self.source[: self.column - 1])
        mark = before + "^" * max(1, len(self.word or self.source.strip()))
        number = f"{self.line:>5} | "
        return f"{self}\n{number}{self.source}\n{' ' * (len(number) - 2)}| {mark}"


def _found(source: str, word: str) -> int:
    """Where a word that is in a line begins, rather than where it is a part of another."""
    alone = re.search(rf"(?<![\w./-]){re.escape(word)}(?![\w./-])", source)
    return alone.start() if alone else source.find(word)


def placed(
    file: str, source: Sequence[str], lines: tuple[int, int], why: str, word: str = "", code: int = 0
) -> DockerfileError:
    """On the line that has the word, if one of the instruction's first to last has. source: the file's lines."""
    first, last = lines
    for number in range(first, min(last, len(source)) + 1):
        if word and word in source[number - 1]:
            return DockerfileError(file, number, why, word, source[number - 1], code)
    return DockerfileError(file, first, why, "", source[first - 1] if first <= len(source) else "", code)


def near(word: str, known: Iterable[str]) -> str:
    """A question to add to a refusal of a word, if another is close."""
    found = get_close_matches(word, known, 1)
    return f": did you mean {found[0]}?" if found else ""
