"""The language: what the official parser makes of a Dockerfile ours makes too; what is wrong is said with its place."""

import dockerfile as official
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.runtime.build.dockerfile import DockerfileError, expand, parse
from swarmd.runtime.build.dockerfile.instructions import Command, Copy, Healthcheck, Pairs, Run
from swarmd.runtime.errors import Invalid

ALL = """\
# syntax=docker/dockerfile:1
# escape=\\
ARG BASE=debian
FROM ${BASE}:12 AS build
# a comment
RUN --mount=type=cache,target=/c --network=none apt-get update && \\
    # inside
\\
    apt-get install -y gcc
run ["echo", "a b"]
COPY --from=other --chown=app:app a b* /d/
ADD ["x y", "/z"]
ENV A=1 B="two words" C=a\\ b
ENV OLD value with words
LABEL com.example="a b" other=1
EXPOSE 80 443/tcp
VOLUME ["/data", "/log"]
VOLUME /a /b
USER app:app
WORKDIR /srv
SHELL ["/bin/bash", "-c"]
ENTRYPOINT ["/x"]
CMD exec y
HEALTHCHECK --interval=1m30s --retries=4 CMD curl -f http://localhost/
STOPSIGNAL SIGINT
ONBUILD RUN echo hi
MAINTAINER somebody

FROM scratch
COPY --link --from=0 /a /b
"""


def test_every_instruction_has_the_words_of_the_official_parser() -> None:
    ours = parse(ALL)
    mine = [one.line for stage in ours.stages for one in (stage.begin, *stage.instructions)]
    theirs = [command for command in official.parse_string(ALL) if command.cmd.upper() != "ARG"]
    assert [line.keyword for line in mine] == [command.cmd.upper() for command in theirs]
    assert [(line.first, line.last) for line in mine] == [(c.start_line, c.end_line) for c in theirs]
    for one, command in zip([i for s in ours.stages for i in (s.begin, *s.instructions)], theirs, strict=True):
        if isinstance(one, Run | Command):
            assert one.words == command.value
        elif isinstance(one, Copy):
            assert [*one.sources, one.destination] == [word.strip('"') for word in command.value]
        elif isinstance(one, Pairs):
            assert [w for pair in one.pairs for w in pair] == [w for w in command.value if w not in ("=", " ", "")]


def test_heredocs_are_taken_with_their_lines() -> None:
    text = "FROM x\nRUN <<EOF\necho $a\nEOF\nCOPY <<-'one' <<two /d/\n\tkept $a\n\tone\n$b\ntwo\nUSER u\n"
    run, copy, user = parse(text).stages[0].instructions
    assert [(h.name, h.content, h.expands) for h in run.line.heredocs] == [("EOF", "echo $a\n", True)]
    assert isinstance(copy, Copy)
    assert [(h.name, h.content, h.expands) for h in copy.contents] == [
        ("one", "kept $a\n", False),
        ("two", "$b\n", True),
    ]
    assert (copy.destination, user.line.first) == ("/d/", 10)


def test_health_checks() -> None:
    (one,) = parse('FROM x\nHEALTHCHECK --start-interval=500ms CMD ["a", "b"]').stages[0].instructions
    assert isinstance(one, Healthcheck)
    assert (one.test, one.in_shell, one.start_interval, one.interval) == (("a", "b"), False, 0.5, None)


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("", 1, "there is no FROM"),
        ("RUN x", 1, "RUN stands before the first FROM"),
        ("FROM a\nFORM b", 2, "unknown instruction FORM: did you mean FROM"),
        ("FROM a\nCOPY --form=b x y", 2, "COPY has no flag --form: did you mean --from"),
        ("FROM a\nCOPY x", 2, "a source and a destination"),
        ("FROM a\nRUN", 2, "RUN needs a command"),
        ("FROM a\nENV A=1 B", 2, "'B' is not name=value"),
        ("FROM a\nENV A", 2, "A has no value"),
        ("FROM a b", 1, "AS with a name"),
        ("FROM a AS x\nFROM b AS X", 2, "called X already"),
        ("FROM a\nRUN <<E\nx", 2, "a line E is missing"),
        ("FROM a\nONBUILD FROM x", 2, "ONBUILD can't have FROM"),
        ("FROM a\nONBUILD RUM x", 2, "unknown instruction RUM: did you mean RUN"),
        ("FROM a\nSHELL x", 2, "JSON list"),
        ("FROM a\nHEALTHCHECK x", 2, "CMD with a command, or NONE"),
        ("FROM a\nHEALTHCHECK --interval=3 CMD x", 2, "a duration like 30s"),
        ("# escape=x\nFROM a", 1, "escape character"),
        ("# escape=`\n# escape=`\nFROM a", 2, "twice"),
        ("# escape=`\n# syntax=me/mine:1\nFROM a", 2, "syntax me/mine:1 is a language of its own"),
        ("FROM a\nRUN --network=hots x", 2, "not 'hots'"),
        ("FROM a\nRUN a \\\n  && b\n\nCOPY --chwon=1 x y", 5, "did you mean --chown"),
        ("FROM a\nCMD [1]", 2, "no string"),
        ("FROM a\nCMD --help", 2, "CMD has no flag --help"),
        ("FROM a\nRUN --device=x y", 2, "no step of a build gets devices"),
        ("FROM a\nRUN --mount=type=cache x", 2, "a cache mount needs a target"),
        ("FROM a\nCOPY --from=b /x /y\nFROM c AS b", 2, "stage b comes later"),
        ("FROM a\nCOPY --from=3 /x /y", 2, "there is no stage 3"),
        ("FROM a AS s\nRUN --mount=from=s,target=/x y", 2, "from itself"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, where: int, why: str) -> None:
    with pytest.raises(DockerfileError) as found:
        parse(text)
    assert found.value.line == where
    assert why in str(found.value)


@pytest.mark.parametrize("name", ["docker/dockerfile:1.7-labs", "mirror:5000/x/dockerfile@sha256:0", "dockerfile"])
def test_dockers_own_language_may_be_asked_for(name: str) -> None:
    assert parse(f"# syntax={name}\nFROM a").stages


def test_an_error_shows_the_line_and_marks_the_word() -> None:
    with pytest.raises(DockerfileError) as found:
        parse("FROM a\nCOPY --form=b x y")
    assert found.value.shown().splitlines()[1:] == ["    2 | COPY --form=b x y", "      |      ^^^^^^"]
    with pytest.raises(DockerfileError) as found:
        parse("FROM a\nRUN x \\\n --mount=type=y\nRUN --mount=type=bind,target=/x \\\n  --mount=type=cache,taget=/y z")
    assert found.value.shown().splitlines()[1:] == [
        *("    5 |   --mount=type=cache,taget=/y z", "      |                      ^^^^^"),
    ]


VALUES = {"a": "one", "empty": "", "path": "/usr/local/bin", "dots": "a.b.c"}


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("$a", "one"),
        ("${a}s", "ones"),
        ("$as", ""),
        ("\\$a", "$a"),
        ("'$a'", "$a"),
        ('"$a b"', "one b"),
        ("${no:-x$a}", "xone"),
        ("${empty:-x}", "x"),
        ("${empty-x}", ""),
        ("${a:+set}", "set"),
        ("${empty+set}", "set"),
        ("${empty:+set}", ""),
        ("${path#*/}", "usr/local/bin"),
        ("${path##*/}", "bin"),
        ("${path%/*}", "/usr/local"),
        ("${path%%/*}", ""),
        ("${dots/./-}", "a-b.c"),
        ("${dots//./-}", "a-b-c"),
        ("${no:-${a:-b}}", "one"),
        ("a\\ b", "a b"),
        ('"a\\"b"', 'a"b'),
        ("$", "$"),
    ],
)
def test_variables(word: str, expanded: str) -> None:
    assert expand(word, VALUES) == expanded


@pytest.mark.parametrize(
    ("word", "why"), [("${a", "not closed"), ("'a", "not closed"), ("${no:?must be}", "no: must be")]
)
def test_variables_that_cannot_be_expanded(word: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        expand(word, VALUES)


KEYWORDS = st.sampled_from([*ALL.splitlines(), "RUN <<E", "E", "\\", "  # x", "FROM", "ENV a=${b", '["', "COPY a b \\"])


@given(st.lists(KEYWORDS | st.text(max_size=20), max_size=12).map("\n".join))
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    try:
        made = parse(f"FROM x\n{text}")
    except DockerfileError as error:
        assert 1 <= error.line <= text.count("\n") + 2
        error.shown()
    else:
        assert made.stages


@given(st.text(alphabet="ab${}:-+?#%/'\"\\ ", max_size=30))
def test_any_word_is_expanded_or_refused(word: str) -> None:
    try:
        expand(word, VALUES)
    except Invalid as error:
        assert str(error)


def test_an_empty_line_in_a_continuation_is_warned_of() -> None:
    (warning,) = parse("FROM a\nRUN x \\\n\n  y").warnings
    assert warning.startswith("Dockerfile:2: NoEmptyContinuation")
