"""Splits a Dockerfile into the lines that instructions are: parser directives, continuations, comments, heredocs."""

import re
from collections.abc import Iterator

from swarmd.runtime.build.dockerfile.errors import DockerfileError
from swarmd.runtime.build.dockerfile.words import split, unquoted
from swarmd.runtime.model import Struct

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("escape", "syntax", "check")
_LANGUAGE = ("dockerfile", "dockerfile-upstream")  # repositories of Docker's own, or of a mirror's
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)", re.DOTALL)
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")


class Heredoc(Struct, frozen=True):
    """name: its delimiter without quotes; expands: variables in it are expanded, as the delimiter was not quoted."""

    name: str
    content: str
    expands: bool
    word: str  # as it stands in the instruction, <<EOF
    descriptor: str = ""
    strips_tabs: bool = False


class Line(Struct, frozen=True):
    """An instruction's own line, continuations joined. first and last count from 1."""

    keyword: str  # upper case
    rest: str
    first: int
    last: int
    heredocs: tuple[Heredoc, ...] = ()
    written: str = ""  # the keyword as it is in the file
    gap: bool = False  # an empty line stands among its continuations

    @property
    def text(self) -> str:
        return f"{self.keyword} {self.rest}".strip()


class Lines:
    """escape: the character of continuations; directives by their names in lower case."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self.source = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
        self.directives, self._start = self._read_directives()
        self.escape = self.directives.get("escape", "\\")
        if self.escape not in ("\\", "`"):
            raise self._error(1, f"the escape character can be \\ or `, not {self.escape!r}", self.escape)
        self._check_syntax(self.directives.get("syntax", ""))
        escape = re.escape(self.escape)
        self._continued = re.compile(rf"(?:^|(?<=[^{escape}])){escape}[ \t]*$")

    def _error(self, number: int, why: str, word: str = "") -> DockerfileError:
        return DockerfileError(self._file, number, why, word, self.source[number - 1] if self.source else "")

    def _check_syntax(self, image: str) -> None:
        """BuildKit reads a Dockerfile by a program of this image; what Docker's own would do is done here without."""
        if image and image.partition("@")[0].rpartition("/")[2].partition(":")[0] not in _LANGUAGE:
            raise self._error(
                next(number for number, line in enumerate(self.source, 1) if image in line),
                f"syntax {image} is a language of its own: what is built here is docker/dockerfile",
                image,
            )

    def _read_directives(self) -> tuple[dict[str, str], int]:
        """They stand at the top, one to a line, before anything else."""
        found: dict[str, str] = {}
        for number, line in enumerate(self.source):
            match = _DIRECTIVE.fullmatch(line.strip())
            name = match[1].lower() if match else ""
            if match is None or name not in _DIRECTIVES:
                return found, number
            if name in found:
                raise self._error(number + 1, f"the directive {name} stands here twice", match[1])
            found[name] = match[2]
        return found, len(self.source)

    def __iter__(self) -> Iterator[Line]:
        number = self._start
        while number < len(self.source):
            text = self.source[number].lstrip()
            first = number = number + 1
            if not text.strip() or text.startswith("#"):
                continue
            joined, number, gap = self._joined(text, number)
            keyword, _, rest = _partition(joined.strip())
            names = keyword.upper(), rest.split(None, 1)[0].upper() if keyword.upper() == "ONBUILD" and rest else ""
            heredocs: tuple[Heredoc, ...] = ()
            if names[0] in _WITH_HEREDOCS or names[1] in _WITH_HEREDOCS:
                heredocs, number = self._heredocs(rest, first, number)
            yield Line(
                keyword=keyword.upper(),
                rest=rest,
                first=first,
                last=number,
                heredocs=heredocs,
                written=keyword,
                gap=gap,
            )

    def _joined(self, text: str, number: int) -> tuple[str, int, bool]:
        """A line with those that it goes on in, and if there are empty ones; these and comments are passed over."""
        parts: list[str] = []
        gap = empty = False
        while self._continued.search(text):
            parts.append(self._continued.sub("", text))
            while number < len(self.source):
                text = self.source[number]
                number += 1
                empty = empty or not text.strip()
                if text.strip() and not text.lstrip().startswith("#"):
                    gap = gap or empty
                    break
            else:
                text = ""
                break
        return "".join((*parts, text)), number, gap

    def _heredocs(self, rest: str, first: int, number: int) -> tuple[tuple[Heredoc, ...], int]:
        found = []
        for word in split(rest, self.escape):
            match = _HEREDOC.fullmatch(word)
            if match is None or not match[3]:
                continue
            name = unquoted(match[3], self.escape)
            if not name or any(character.isspace() for character in name):
                continue
            lines: list[str] = []
            while True:
                if number >= len(self.source):
                    raise self._error(
                        first, f"the text that begins with {word} has no end: a line {name} is missing", word
                    )
                line = self.source[number]
                number += 1
                line = line.lstrip("\t") if match[2] else line
                if line == name:
                    break
                lines.append(f"{line}\n")
            expands = name == match[3]
            found.append(
                Heredoc(
                    name=name,
                    content="".join(lines),
                    expands=expands,
                    word=word,
                    descriptor=match[1],
                    strips_tabs=bool(match[2]),
                )
            )
        return tuple(found), number


def _partition(text: str) -> tuple[str, str, str]:
    found = re.match(r"(\S+)(\s*)(.*)", text, re.DOTALL)
    return (found[1], found[2], found[3]) if found else (text, "", "")
