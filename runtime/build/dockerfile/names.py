"""Doubtful names in a Dockerfile: variables that nothing declares, and what FROM lines make of arguments.

What an image from elsewhere sets is not known here, so a variable of a stage is doubted only if the stage begins with
nothing, or if it is nearly one that the Dockerfile has.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches

import msgspec

from swarmd.runtime.build.dockerfile import words
from swarmd.runtime.build.dockerfile.expand import expand
from swarmd.runtime.build.dockerfile.instructions import Arg, Dockerfile, Instruction, Pairs, Stage
from swarmd.runtime.build.dockerfile.lines import Line
from swarmd.runtime.build.variables import PREDEFINED
from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.references import Reference

_OF_PLATFORMS = {f"{side}{part}" for side in ("BUILD", "TARGET") for part in ("PLATFORM", "OS", "ARCH", "VARIANT")}
_FOR_FROM = _OF_PLATFORMS | {"TARGETSTAGE"}
_EXPANDED = ("ADD", "ARG", "COPY", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
_NEAR = 0.8
_ARCHITECTURE = re.compile(
    r"(?:^|[-_.])(?:amd64|x86_64|arm64|aarch64|arm|386|i386|ppc64le|s390x|riscv64|mips64le|loong64|linux|windows|darwin)"
    r"(?:$|[-_.v])"
)
Found = Iterator[tuple[Line, str]]


def undefined_variables(made: Dockerfile) -> Found:
    before_from = {argument.name for argument in made.arguments} | _OF_PLATFORMS
    of_stages: list[tuple[set[str], bool]] = []
    for stage in made.stages:
        known, all_known = _inherited(made, stage, of_stages)
        for one in stage.instructions:
            if one.line.keyword in _EXPANDED:
                for name in sorted(_plain(one.line.rest, made.escape) - known):
                    if name in before_from:
                        yield one.line, f"variable {name} has no value here: the stage needs a line ARG {name} before"
                    elif near := get_close_matches(name, known - {"PATH"}, 1, _NEAR):
                        yield one.line, f"variable {name} is not set: did you mean {near[0]}?"
                    elif all_known:
                        yield one.line, f"variable {name} is not set"
            known |= _set_by(one)
        of_stages.append((known, all_known))


def _inherited(made: Dockerfile, stage: Stage, before: list[tuple[set[str], bool]]) -> tuple[set[str], bool]:
    """What is set when a stage begins, and whether that is all."""
    earlier = msgspec.structs.replace(made, stages=made.stages[: stage.index]).stage(stage.begin.image)
    if earlier is not None:
        known, all_known = before[earlier.index]
        return {*known}, all_known
    return {"PATH"} | PREDEFINED, stage.begin.image == "scratch"


def _set_by(one: Instruction) -> set[str]:
    if isinstance(one, Arg):
        return {argument.name for argument in one.arguments}
    if isinstance(one, Pairs) and one.line.keyword == "ENV":
        return {name for name, _ in one.pairs}
    return set()


def _plain(text: str, escape: str) -> set[str]:
    """Variables that a text uses without saying what to do if they are not set."""
    found: set[str] = set()
    for word in words.split(text, escape):
        used: set[str] = set()
        try:
            expand(word, {}, escape, used=used)
        except Invalid:
            continue  # the build says what is wrong
        found |= {name for name in used if re.search(rf"\$(?:{name}(?![A-Za-z0-9_])|{{{name}}})", word)}
    return {name for name in found if name.isidentifier()}


def undefined_in_from(made: Dockerfile) -> Found:
    known = {argument.name for argument in made.arguments} | _FOR_FROM
    for stage in made.stages:
        for name in sorted(_plain(stage.begin.line.rest, made.escape) - known):
            near = get_close_matches(name, known, 1, _NEAR)
            hint = f"did you mean {near[0]}?" if near else f"it needs a line ARG {name} before the first FROM"
            yield stage.begin.line, f"argument {name} is not declared: {hint}"


def bad_default_in_from(made: Dockerfile) -> Found:
    values = dict.fromkeys(_FOR_FROM, "linux")
    for argument in made.arguments:
        try:
            values[argument.name] = expand(argument.value or "", values, made.escape)
        except Invalid:
            return
    for stage in made.stages:
        text = stage.begin.image
        used = _plain(text, made.escape)
        if not used or used - values.keys():
            continue
        try:
            name = expand(text, values, made.escape)
            if name:
                Reference.parse(name)
                continue
        except Invalid:
            pass
        yield (
            stage.begin.line,
            f"{text} names no image unless a build argument is given: give {_listed(used)} a default",
        )


def _listed(names: set[str]) -> str:
    return " and ".join(sorted(names))


def constant_platforms(made: Dockerfile) -> Found:
    for stage in made.stages:
        platform = stage.begin.platform
        if platform and "$" not in platform and not _ARCHITECTURE.search(stage.begin.name.lower()):
            yield (
                stage.begin.line,
                f"--platform={platform} makes the stage the same whatever is built for: use a variable",
            )


def redundant_platforms(made: Dockerfile) -> Found:
    for stage in made.stages:
        if stage.begin.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            yield stage.begin.line, f"--platform={stage.begin.platform} is what stages are built for anyway"
