"""Dockerfiles of all kinds, and made-up ones, read as the official parser reads them."""

import json
from pathlib import Path

import dockerfile as official
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.runtime.build.dockerfile import parse, words
from swarmd.runtime.build.dockerfile.lines import Line, Lines

_TEXTS = (Path(__file__).parent / "dockerfiles.txt").read_text(encoding="utf-8").removeprefix("%% ").split("\n%% ")
CORPUS = dict(text.split("\n", 1) for text in _TEXTS)
_COMMANDS = ("RUN", "CMD", "ENTRYPOINT", "SHELL", "COPY", "ADD", "VOLUME", "EXPOSE")


def ours(text: str) -> list[tuple[object, ...]]:
    lines = Lines(text, "Dockerfile")
    return [_seen(line, lines.escape) for line in lines]


def _seen(line: Line, escape: str) -> tuple[object, ...]:
    # Only instructions that have flags: in others, words that begin with -- are words.
    given, rest = [], line.rest
    if line.keyword in ("RUN", "COPY", "ADD", "HEALTHCHECK", "FROM"):
        given, rest = words.flags(line.rest, escape)
    flags = tuple(f"--{name}" + ("" if value is None else f"={value}") for name, value in given)
    found: tuple[str, ...] = ()
    if line.keyword in _COMMANDS:
        listed = words.exec_form(rest)
        found = listed if listed is not None else (rest,)
        if listed is None and line.keyword not in ("RUN", "CMD", "ENTRYPOINT", "SHELL"):
            found = tuple(rest.split())
    return line.keyword, line.first, line.last, flags, found


def theirs(text: str) -> list[tuple[object, ...]]:
    return [
        (
            one.cmd.upper(),
            one.start_line,
            one.end_line,
            tuple(one.flags),
            tuple(one.value) if one.cmd.upper() in _COMMANDS else (),
        )
        for one in official.parse_string(text)
    ]


@pytest.mark.parametrize("name", CORPUS)
def test_lines_flags_and_words_are_those_of_the_official_parser(name: str) -> None:
    assert ours(CORPUS[name]) == theirs(CORPUS[name])


@pytest.mark.parametrize("name", CORPUS)
def test_every_dockerfile_of_the_corpus_is_accepted(name: str) -> None:
    assert parse(CORPUS[name]).stages


def test_windows_ends_of_lines_and_a_byte_order_mark_change_nothing() -> None:
    for name, text in CORPUS.items():
        assert ours("\ufeff" + text.replace("\n", "\r\n")) == ours(text), name


_PIECES = st.sampled_from(
    ["a", "b c", "$x", '"q r"', "'s'", "&& \\\n", "\\\n\n  ", "\\\n# note\n", "\\ ", "#", "é", "="]
)
_RUN = st.lists(_PIECES, min_size=1, max_size=8).map(lambda parts: "RUN x " + " ".join(parts) + " y")
_LIST = st.lists(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8), min_size=1, max_size=4
).map(lambda found: f"CMD {json.dumps(found)}")
_HEREDOC = st.lists(st.sampled_from(["a", "# b", "", "c \\"]), max_size=4).map(
    lambda found: "\n".join(["RUN <<E", *found, "E"])
)
_OTHER = st.sampled_from(["USER u", "", "# comment", "EXPOSE 80 81", "COPY --from=x a b", "workdir /w", "\t RUN z"])


@settings(max_examples=300, deadline=None)
@given(st.lists(_RUN | _LIST | _HEREDOC | _OTHER, max_size=6).map(lambda lines: "\n".join(["FROM a", *lines])))
def test_made_up_dockerfiles_are_read_as_the_official_parser_does(text: str) -> None:
    assert ours(text) == theirs(text)
