"""Reads a Dockerfile: each line becomes the value of its instruction, the instructions stages."""

import re
from collections.abc import Callable, Sequence

from swarmd.runtime.build.dockerfile import words
from swarmd.runtime.build.dockerfile.checks import NOTHING, LeftOut, warnings_of
from swarmd.runtime.build.dockerfile.errors import DockerfileError, near, placed
from swarmd.runtime.build.dockerfile.instructions import (
    Arg,
    Argument,
    Command,
    Copy,
    Dockerfile,
    From,
    Healthcheck,
    Instruction,
    Onbuild,
    Pairs,
    Run,
    Stage,
    Value,
    Words,
)
from swarmd.runtime.build.dockerfile.lines import Heredoc, Line, Lines
from swarmd.runtime.build.dockerfile.references import wrong_references
from swarmd.runtime.build.faults import WrongWord
from swarmd.runtime.build.mounts import parse as parse_mount

_STAGE = re.compile(r"[a-z][a-z0-9._-]*", re.IGNORECASE | re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|µs|ns))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_NOT_ONBUILD = ("FROM", "ONBUILD", "MAINTAINER")
_NETWORKS = ("default", "none", "host")
_SECURITY = ("sandbox", "insecure")


def parse(text: str, file: str = "Dockerfile", left_out: LeftOut = NOTHING) -> Dockerfile:
    """left_out: of the build context. Raises DockerfileError, which says where and what was expected."""
    lines = Lines(text, file)
    reader = _Reader(lines, file)
    arguments: list[Argument] = []
    stages: list[Stage] = []
    current: list[Instruction] = []
    begin: From | None = None

    def finish() -> None:
        if begin is not None:
            stages.append(
                Stage(
                    index=len(stages),
                    name=begin.name.lower() or str(len(stages)),
                    begin=begin,
                    instructions=tuple(current),
                )
            )

    for line in lines:
        found = reader.instruction(line)
        if isinstance(found, From):
            finish()
            begin, current = found, []
            if any(stage.name == found.name.lower() for stage in stages):
                raise reader.error(line, f"a stage is called {found.name} already", found.name)
        elif begin is not None:
            current.append(found)
        elif isinstance(found, Arg):
            arguments += found.arguments
        else:
            raise reader.error(line, f"{line.keyword} stands before the first FROM, where only ARG may", line.written)
    finish()
    if not stages:
        raise DockerfileError(file, 1, "there is no FROM: say which image to begin with, or FROM scratch")
    for line, why, word in wrong_references(tuple(stages)):
        raise reader.error(line, why, word)
    made = Dockerfile(file=file, escape=lines.escape, arguments=tuple(arguments), stages=tuple(stages))
    return warnings_of(made, lines.directives.get("check", ""), left_out)


def parse_line(text: str, file: str = "ONBUILD") -> Instruction:
    """One instruction by itself: a trigger of ONBUILD, a --change of commit."""
    lines = Lines(text, file)
    found = [_Reader(lines, file).instruction(line) for line in lines]
    if len(found) != 1:
        raise DockerfileError(file, 1, f"this is not one instruction but {len(found)}", source=text)
    return found[0]


class _Reader:
    def __init__(self, lines: Lines, file: str) -> None:
        self._lines, self._file, self._escape = lines, file, lines.escape

    def error(self, line: Line, why: str, word: str = "") -> DockerfileError:
        return placed(self._file, self._lines.source, (line.first, line.last), why, word)

    def instruction(self, line: Line) -> Instruction:
        read = _READERS.get(line.keyword)
        if read is None:
            why = f"unknown instruction {line.written}{near(line.keyword, _READERS)}"
            raise self.error(line, why, line.written)
        if not line.rest.strip():
            raise self.error(line, f"{line.keyword} needs {_NEEDS[line.keyword]}", line.written)
        if line.keyword not in _FLAGGED:
            self._flags(line, ())
        return read(self, line)

    def _exec_form(self, line: Line, text: str) -> tuple[str, ...] | None:
        try:
            return words.exec_form(text)
        except words.NotWords:
            raise self.error(line, f"the list of {line.keyword} has something in it that is no string") from None

    def _flags(self, line: Line, known: Sequence[str]) -> tuple[dict[str, list[str]], str]:
        """Values by their flags, and the rest of the line; one without a value is "true"."""
        given, rest = words.flags(line.rest, self._escape)
        found: dict[str, list[str]] = {}
        for name, value in given:
            if name == "device" and line.keyword == "RUN":
                raise self.error(line, "RUN --device can't be given: no step of a build gets devices", "--device")
            if name not in known:
                allowed = f": it may have {', '.join(f'--{flag}' for flag in known)}" if known else _NO_FLAGS
                why = near(f"--{name}", [f"--{flag}" for flag in known]) or allowed
                raise self.error(line, f"{line.keyword} has no flag --{name}{why}", f"--{name}")
            if value is None and name not in _SWITCHES:
                raise self.error(line, f"--{name} needs a value: --{name}=...", f"--{name}")
            if name in found and name not in _REPEATED:
                raise self.error(line, f"--{name} stands here twice", f"--{name}")
            found.setdefault(name, []).append("true" if value is None else words.unquoted_if_whole(value))
        return found, rest

    def _switch(self, line: Line, given: dict[str, list[str]], name: str) -> bool:
        value = given.get(name, ["false"])[0].lower()
        if value not in ("true", "false"):
            raise self.error(line, f"--{name} is true or false, not {value!r}", f"--{name}")
        return value == "true"

    # ------------------------------------------------------------ one for each instruction

    def from_(self, line: Line) -> From:
        given, rest = self._flags(line, ("platform",))
        parts = words.split(rest, self._escape)
        if len(parts) == 1:
            name = ""
        elif len(parts) == 3 and parts[1].upper() == "AS":
            name = parts[2]
            if not _STAGE.fullmatch(name):
                raise self.error(line, f"{name!r} can't name a stage: letters, digits, . _ and -, a letter first", name)
        else:
            raise self.error(line, "FROM takes an image, and AS with a name for the stage if you want one")
        return From(line=line, image=parts[0], platform=given.get("platform", [""])[0], name=name)

    def arg(self, line: Line) -> Arg:
        found = []
        for word in words.split(line.rest, self._escape):
            name, equals, value = word.partition("=")
            if not _VARIABLE.fullmatch(words.unquoted(name, self._escape)):
                raise self.error(line, f"{name!r} can't name an argument: ARG name or ARG name=default", word)
            found.append(Argument(name=words.unquoted(name, self._escape), value=value if equals else None))
        return Arg(line=line, arguments=tuple(found))

    def run(self, line: Line) -> Run:
        given, rest = self._flags(line, ("mount", "network", "security"))
        network, security = given.get("network", ["default"])[0], given.get("security", ["sandbox"])[0]
        if network not in _NETWORKS:
            raise self.error(line, f"--network is {', '.join(_NETWORKS)}, not {network!r}", network)
        if security not in _SECURITY:
            raise self.error(line, f"--security is {' or '.join(_SECURITY)}, not {security!r}", security)
        if not rest.strip():
            raise self.error(line, "RUN needs a command after its flags")
        for text in given.get("mount", ()):
            self._check_mount(line, text)
        exec_form = None if line.heredocs else self._exec_form(line, rest)
        if exec_form is not None and not exec_form:
            raise self.error(line, "RUN needs a command: its list is empty")
        return Run(
            line=line,
            words=exec_form if exec_form is not None else (rest,),
            in_shell=exec_form is None,
            mounts=tuple(given.get("mount", ())),
            network=network,
            insecure=security == "insecure",
        )

    def _check_mount(self, line: Line, text: str) -> None:
        if "$" in text:  # known when it is expanded
            return
        try:
            parse_mount(text)
        except WrongWord as error:
            raise self.error(line, str(error), error.word) from None

    def copy(self, line: Line) -> Copy:
        add = line.keyword == "ADD"
        known = ["chown", "chmod", "link", "parents", "exclude"]
        known += ["checksum", "keep-git-dir", "unpack"] if add else ["from"]
        given, rest = self._flags(line, known)
        parts = self._exec_form(line, rest)
        if parts is None:
            parts = tuple(words.split(rest, self._escape))
        if len(parts) < 2:
            raise self.error(line, f"{line.keyword} needs a source and a destination")
        heredocs = {heredoc.word: heredoc for heredoc in line.heredocs}
        sources = tuple(part for part in parts[:-1] if part not in heredocs)
        contents: tuple[Heredoc, ...] = tuple(heredocs[part] for part in parts[:-1] if part in heredocs)
        if contents and given.get("from"):
            raise self.error(line, "--from can't be given for a text that stands in the Dockerfile", "--from")
        return Copy(
            line=line,
            sources=sources,
            destination=parts[-1],
            add=add,
            from_=given.get("from", [""])[0],
            owner=given.get("chown", [""])[0],
            mode=given.get("chmod", [""])[0],
            linked=self._switch(line, given, "link"),
            parents=self._switch(line, given, "parents"),
            excludes=tuple(given.get("exclude", ())),
            contents=contents,
            checksum=given.get("checksum", [""])[0],
            keep_git_dir=self._switch(line, given, "keep-git-dir"),
            unpack=self._switch(line, given, "unpack") if "unpack" in given else None,
        )

    def pairs(self, line: Line) -> Pairs:
        parts = words.split(line.rest, self._escape)
        if "=" not in parts[0]:
            name, _, value = line.rest.strip().partition(" ") if " " in line.rest else line.rest.strip().partition("\t")
            if not value.strip():
                raise self.error(line, f"{line.keyword} {name} has no value: write {name}=value", name)
            return Pairs(line=line, pairs=((name, value.strip()),))
        found = []
        for part in parts:
            name, equals, value = part.partition("=")
            if not equals or not name:
                raise self.error(line, f"{part!r} is not name=value: quote a value that has blanks in it", part)
            found.append((name, value))
        return Pairs(line=line, pairs=tuple(found))

    def words_(self, line: Line) -> Words:
        found = self._exec_form(line, line.rest) if line.keyword == "VOLUME" else None
        if found is not None:
            if not found or not all(path.strip() for path in found):
                raise self.error(line, "VOLUME needs paths, and has an empty one")
            return Words(line=line, words=found, exact=True)
        return Words(line=line, words=tuple(words.split(line.rest, self._escape)))

    def value(self, line: Line) -> Value:
        single = line.keyword in ("USER", "STOPSIGNAL")
        if single and len(words.split(line.rest, self._escape)) != 1:
            raise self.error(line, f"{line.keyword} takes one word")
        return Value(line=line, value=line.rest.strip())

    def command(self, line: Line) -> Command:
        found = self._exec_form(line, line.rest)
        if line.keyword == "SHELL" and not found:
            raise self.error(line, 'SHELL takes a JSON list of words, like ["/bin/bash", "-c"]')
        return Command(line=line, words=found if found is not None else (line.rest,), in_shell=found is None)

    def healthcheck(self, line: Line) -> Healthcheck:
        given, rest = self._flags(line, ("interval", "timeout", "start-period", "start-interval", "retries"))
        kind, _, command = rest.strip().partition(" ")
        if kind.upper() == "NONE":
            if command.strip() or given:
                raise self.error(line, "HEALTHCHECK NONE takes nothing else")
            return Healthcheck(line=line, test=())
        if kind.upper() != "CMD" or not command.strip():
            raise self.error(line, "HEALTHCHECK takes CMD with a command, or NONE", kind)
        found = self._exec_form(line, command)
        retries = given.get("retries", [""])[0]
        if (retries and not retries.isascii()) or (retries and not retries.isdigit()):
            raise self.error(line, f"--retries is a number, not {retries!r}", retries)
        return Healthcheck(
            line=line,
            test=found if found is not None else (command.strip(),),
            in_shell=found is None,
            interval=self._seconds(line, given, "interval"),
            timeout=self._seconds(line, given, "timeout"),
            start_period=self._seconds(line, given, "start-period"),
            start_interval=self._seconds(line, given, "start-interval"),
            retries=int(retries) if retries else None,
        )

    def _seconds(self, line: Line, given: dict[str, list[str]], name: str) -> float | None:
        if name not in given:
            return None
        text = given[name][0]
        if not _DURATION.fullmatch(text):
            raise self.error(line, f"--{name} is a duration like 30s or 1m30s, not {text!r}", text)
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))

    def onbuild(self, line: Line) -> Onbuild:
        keyword = line.rest.split(None, 1)[0].upper()
        if keyword in _NOT_ONBUILD:
            raise self.error(line, f"ONBUILD can't have {keyword}", line.rest.split(None, 1)[0])
        text = line.rest
        for heredoc in line.heredocs:
            text += f"\n{heredoc.content}{heredoc.name}"
        try:
            parse_line(text, self._file)
        except DockerfileError as error:
            raise self.error(line, error.why, error.word) from None
        return Onbuild(line=line, text=text)


_FLAGGED = ("ADD", "COPY", "FROM", "HEALTHCHECK", "RUN")
_NO_FLAGS = ": what begins with -- can be a word in a JSON list"
_SWITCHES = ("link", "parents", "keep-git-dir", "unpack")
_REPEATED = ("mount", "exclude")
_READERS: dict[str, Callable[[_Reader, Line], Instruction]] = {
    "ADD": _Reader.copy,
    "ARG": _Reader.arg,
    "CMD": _Reader.command,
    "COPY": _Reader.copy,
    "ENTRYPOINT": _Reader.command,
    "ENV": _Reader.pairs,
    "EXPOSE": _Reader.words_,
    "FROM": _Reader.from_,
    "HEALTHCHECK": _Reader.healthcheck,
    "LABEL": _Reader.pairs,
    "MAINTAINER": _Reader.value,
    "ONBUILD": _Reader.onbuild,
    "RUN": _Reader.run,
    "SHELL": _Reader.command,
    "STOPSIGNAL": _Reader.value,
    "USER": _Reader.value,
    "VOLUME": _Reader.words_,
    "WORKDIR": _Reader.value,
}
_NEEDS = {
    "ADD": "a source and a destination",
    "ARG": "a name",
    "CMD": "a command",
    "COPY": "a source and a destination",
    "ENTRYPOINT": "a command",
    "ENV": "name=value",
    "EXPOSE": "a port",
    "FROM": "an image, or scratch",
    "HEALTHCHECK": "CMD with a command, or NONE",
    "LABEL": "name=value",
    "MAINTAINER": "a name",
    "ONBUILD": "an instruction",
    "RUN": "a command",
    "SHELL": 'a JSON list of words, like ["/bin/bash", "-c"]',
    "STOPSIGNAL": "a signal",
    "USER": "a name or a number",
    "VOLUME": "a path",
    "WORKDIR": "a path",
}
