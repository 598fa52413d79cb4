"""What is allowed and seldom meant: sentences for the build's output, by rules that `# check=skip=...` turns off."""

from collections.abc import Callable, Iterator
from functools import partial
from posixpath import normpath

import msgspec

from swarmd.runtime.build.dockerfile import names
from swarmd.runtime.build.dockerfile.errors import DockerfileError
from swarmd.runtime.build.dockerfile.instructions import (
    Command,
    Copy,
    Dockerfile,
    Instruction,
    Pairs,
    Run,
    Stage,
    Value,
    Words,
)
from swarmd.runtime.build.dockerfile.lines import Line

_SECRETS = {"APIKEY", "AUTH", "CREDENTIAL", "CREDENTIALS", "KEY", "PASSWD", "PASSWORD", "PWORD", "SECRET", "TOKEN"}
Found = Iterator[tuple[Line, str]]
LeftOut = tuple[str, Callable[[str], str]]  # a file of patterns, and which of them leaves a path out, '' for none
NOTHING: LeftOut = ("", lambda path: "")


def warnings_of(made: Dockerfile, check: str, left_out: LeftOut) -> Dockerfile:
    """check: the directive's value, skip=Rule,Rule;error=true. Raises DockerfileError where it asks for errors."""
    rules: dict[str, Callable[[Dockerfile], Found]] = {
        **_RULES,
        "CopyIgnoredFile": partial(_ignored, left_out=left_out),
    }
    options = dict(part.strip().partition("=")[::2] for part in check.split(";") if part.strip())
    skipped = {name.strip() for name in options.get("skip", "").split(",")}
    found = [
        (line, f"{name}: {why}")
        for name, rule in rules.items()
        if not skipped & {name, "all"}
        for line, why in rule(made)
    ]
    found.sort(key=lambda one: one[0].first)
    if found and options.get("error", "").lower() == "true":
        line, why = found[0]
        raise DockerfileError(made.file, line.first, why, source=line.text)
    return msgspec.structs.replace(made, warnings=tuple(f"{made.file}:{line.first}: {why}" for line, why in found))


def _each(made: Dockerfile) -> Iterator[tuple[Stage, Instruction]]:
    return ((stage, one) for stage in made.stages for one in stage.instructions)


def _json_recommended(made: Dockerfile) -> Found:
    for stage, one in _each(made):
        own_shell = any(other.line.keyword == "SHELL" for other in stage.instructions)
        if isinstance(one, Command) and one.in_shell and not own_shell:
            yield one.line, f"{one.line.keyword} in the shell form does not get signals: use a JSON list"


def _no_list(made: Dockerfile) -> Found:
    for _, one in _each(made):
        words = one.words[:1] if isinstance(one, Command | Run) and one.in_shell else ()
        words = one.sources[:1] if isinstance(one, Copy) else words
        if words and words[0].lstrip().startswith(('["', "['")):
            why = "its words stand in double quotes, with commas between and ] at the end"
            yield one.line, f"{one.line.keyword} begins like a JSON list, and is none: {why}"


def _stage_casing(made: Dockerfile) -> Found:
    return (
        (s.begin.line, f"stage {s.begin.name} is in mixed case")
        for s in made.stages
        if s.begin.name.lower() != s.begin.name
    )


def _as_casing(made: Dockerfile) -> Found:
    for stage in made.stages:
        if stage.begin.name:
            written = stage.begin.line.rest.split()[-2]
            if written.isupper() != stage.begin.line.written.isupper():
                yield stage.begin.line, f"{stage.begin.line.written} and {written} are not written alike"


def _keyword_casing(made: Dockerfile) -> Found:
    lines = [line for stage in made.stages for line in (stage.begin.line, *(one.line for one in stage.instructions))]
    upper = sum(line.written.isupper() for line in lines)
    usual = str.upper if 2 * upper >= len(lines) else str.lower
    return (
        (line, f"{line.written} is not written as the others are")
        for line in lines
        if line.written != usual(line.written)
    )


def _legacy_pairs(made: Dockerfile) -> Found:
    for _, one in _each(made):
        if isinstance(one, Pairs) and "=" not in one.line.rest.split(None, 1)[0]:
            yield one.line, f"write {one.line.keyword} {one.pairs[0][0]}=value"


def _maintainer(made: Dockerfile) -> Found:
    lines = (one.line for _, one in _each(made) if one.line.keyword == "MAINTAINER")
    return ((line, "MAINTAINER is deprecated: use LABEL org.opencontainers.image.authors") for line in lines)


def _relative_workdir(made: Dockerfile) -> Found:
    for stage in made.stages:
        for one in stage.instructions:
            if isinstance(one, Value) and one.line.keyword == "WORKDIR":
                if not one.value.startswith(("/", "$", '"/', "'/")):
                    yield one.line, f"where {one.value} leads depends on the base image"
                break


def _secrets(made: Dockerfile) -> Found:
    for _, one in _each(made):
        if one.line.keyword in ("ARG", "ENV"):
            for name in [name for name, _ in one.pairs] if isinstance(one, Pairs) else _names(one):
                parts = {*name.upper().split("_")}
                if parts & _SECRETS and "PUBLIC" not in parts:
                    yield one.line, f"{name} looks like a secret, and stays in the image: use RUN --mount=type=secret"


def _names(one: Instruction) -> list[str]:
    return [argument.name for argument in getattr(one, "arguments", ())]


def _repeated(made: Dockerfile) -> Found:
    for stage in made.stages:
        for keyword in ("CMD", "ENTRYPOINT", "HEALTHCHECK"):
            lines = [one.line for one in stage.instructions if one.line.keyword == keyword]
            yield from ((line, f"only the last {keyword} of a stage counts") for line in lines[:-1])


def _reserved(made: Dockerfile) -> Found:
    taken = ("scratch", "context")
    return (
        (s.begin.line, f"{s.name} has a meaning of its own: call the stage something else")
        for s in made.stages
        if s.name in taken
    )


def _exposed(made: Dockerfile) -> Found:
    for _, one in _each(made):
        if one.line.keyword == "EXPOSE" and "/" in one.line.rest and one.line.rest.lower() != one.line.rest:
            yield one.line, "write protocols in lower case"


def _mapped(made: Dockerfile) -> Found:
    for _, one in _each(made):
        for word in one.words if isinstance(one, Words) and one.line.keyword == "EXPOSE" else ():
            if ":" in word and "$" not in word:
                port = word.rpartition(":")[2]
                yield one.line, f"{word} maps a port, which only who runs the image can do: write EXPOSE {port}"


def _ignored(made: Dockerfile, left_out: LeftOut) -> Found:
    file, pattern_of = left_out
    for _, one in _each(made):
        sources = one.sources if isinstance(one, Copy) and not one.from_ else ()
        for source in sources:
            if (
                "$" not in source
                and "://" not in source
                and (pattern := pattern_of(normpath(f"/{source}").lstrip("/")))
            ):
                yield one.line, f"{source} does not come into the build: {file} leaves it out with {pattern!r}"


def _gaps(made: Dockerfile) -> Found:
    lines = (line for stage in made.stages for line in (stage.begin.line, *(one.line for one in stage.instructions)))
    return ((line, "an empty line stands where the line before it goes on") for line in lines if line.gap)


_RULES: dict[str, Callable[[Dockerfile], Found]] = {
    "JSONArgsRecommended": _json_recommended,
    "MalformedList": _no_list,
    "StageNameCasing": _stage_casing,
    "FromAsCasing": _as_casing,
    "ConsistentInstructionCasing": _keyword_casing,
    "NoEmptyContinuation": _gaps,
    "LegacyKeyValueFormat": _legacy_pairs,
    "MaintainerDeprecated": _maintainer,
    "WorkdirRelativePath": _relative_workdir,
    "SecretsUsedInArgOrEnv": _secrets,
    "MultipleInstructionsDisallowed": _repeated,
    "ReservedStageName": _reserved,
    "ExposeProtoCasing": _exposed,
    "ExposeInvalidFormat": _mapped,
    "UndefinedVar": names.undefined_variables,
    "UndefinedArgInFrom": names.undefined_in_from,
    "InvalidDefaultArgInFrom": names.bad_default_in_from,
    "FromPlatformFlagConstDisallowed": names.constant_platforms,
    "RedundantTargetPlatform": names.redundant_platforms,
}
