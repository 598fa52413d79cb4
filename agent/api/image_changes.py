"""The --change lines of `import` and `commit`: those Dockerfile instructions that change only a configuration."""

import json
import posixpath
import re
import shlex
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from swarmd.agent.api import query
from swarmd.proto.errors import Invalid
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.model import Health

_VARIABLE = re.compile(r"('[^']*')|\\(\$)|\$(?:(\w+)|\{(\w+)\})", re.ASCII)
_PORT = re.compile(r"\d{1,5}(?:-\d{1,5})?(?:/(?:tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
_PROBE_FLAGS = {
    **{"interval": "interval", "timeout": "timeout", "start-period": "start_period"},
    **{"start-interval": "start_interval", "retries": "retries"},
}


@dataclass(frozen=True, slots=True)
class _Change:
    """One instruction, and the configuration it is applied to."""

    config: ImageConfig
    text: str
    line: str
    has_cmd: bool  # an instruction before it has set the command

    def wrong(self, why: str) -> Invalid:
        return Invalid(f"change {self.line[:200]!r}: {why}")

    def expanded(self, text: str) -> str:
        """With variables of the image's environment, but for those in single quotes."""
        env = dict(entry.partition("=")[::2] for entry in self.config.env)
        return _VARIABLE.sub(lambda m: m[1] or m[2] or env.get(m[3] or m[4], ""), text)

    def words(self, text: str) -> list[str]:
        try:
            return shlex.split(text)
        except ValueError as error:
            raise self.wrong(f"its quotes don't match: {error}") from None

    def listed(self, text: str) -> tuple[str, ...] | None:
        """A JSON list of strings, None for anything else."""
        if not text.startswith("["):
            return None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
            raise self.wrong("what begins with [ must be a JSON list of strings in double quotes")
        return tuple(found)

    def argv(self, text: str) -> tuple[str, ...]:
        """The exec form, a JSON list; or the shell form, a line for the image's shell."""
        listed = self.listed(text)
        return (*(self.config.shell or ("/bin/sh", "-c")), text) if listed is None else listed

    def pairs(self) -> dict[str, str]:
        """a=b c="d e", or the old form `a b`."""
        text = self.expanded(self.text)
        words = self.words(text)
        if "=" not in words[0]:
            key, _, value = text.partition(" ")
            if not value:
                raise self.wrong("it needs a name and a value")
            return {key: value.strip()}
        if bad := next((word for word in words if word.partition("=")[1] != "=" or word.startswith("=")), None):
            raise self.wrong(f"{bad!r} is not of the form name=value")
        return dict(word.partition("=")[::2] for word in words)


def changed(config: ImageConfig, lines: Iterable[str]) -> ImageConfig:
    """The configuration after the instructions, in their order; Invalid naming the line that is wrong."""
    has_cmd = False
    for line in (line for given in lines for line in given.splitlines() if line.strip()):
        word, _, rest = line.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None or not rest.strip():
            raise Invalid(f"change {line[:200]!r}: use one of {', '.join(_INSTRUCTIONS)}, and what to set")
        config = apply(_Change(config, rest.strip(), line, has_cmd))
        has_cmd = has_cmd or word.upper() == "CMD"
    return config


def _cmd(change: _Change) -> ImageConfig:
    return msgspec.structs.replace(change.config, cmd=change.argv(change.text))


def _entrypoint(change: _Change) -> ImageConfig:
    """A command that was meant for another entrypoint goes."""
    kept = change.config.cmd if change.has_cmd else ()
    return msgspec.structs.replace(change.config, entrypoint=change.argv(change.text), cmd=kept)


def _env(change: _Change) -> ImageConfig:
    given = change.pairs()
    had = dict(entry.partition("=")[::2] for entry in change.config.env)
    return msgspec.structs.replace(
        change.config, env=tuple(f"{key}={value}" for key, value in {**had, **given}.items())
    )


def _expose(change: _Change) -> ImageConfig:
    ports = []
    for text in change.expanded(change.text).split():
        if not _PORT.fullmatch(text):
            raise change.wrong(f"{text!r} is not of the form port[-port][/tcp|udp|sctp]")
        numbers, _, protocol = text.lower().partition("/")
        first, _, last = numbers.partition("-")
        if not 0 < int(first) <= int(last or first) < 65536:
            raise change.wrong(f"{text!r} is no range of ports")
        ports += [f"{number}/{protocol or 'tcp'}" for number in range(int(first), int(last or first) + 1)]
    return msgspec.structs.replace(
        change.config, exposed_ports=tuple(dict.fromkeys((*change.config.exposed_ports, *ports)))
    )


def _healthcheck(change: _Change) -> ImageConfig:
    """[--interval=30s ...] CMD command, or NONE."""
    given: dict[str, float] = {}
    rest = change.text
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        name, _, value = flag[2:].partition("=")
        field = _PROBE_FLAGS.get(name)
        if field is None:
            raise change.wrong(f"{flag!r} is none of --{', --'.join(_PROBE_FLAGS)}")
        try:
            given[field] = int(value) if field == "retries" else query.duration(value) / 1e9
        except (ValueError, Invalid):
            raise change.wrong(
                f"{value!r} of --{name} is no {'number' if field == 'retries' else 'duration'}"
            ) from None
        rest = rest.strip()
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE" and not command:
        return msgspec.structs.replace(change.config, health=Health(test=("NONE",)))
    if kind.upper() != "CMD" or not command.strip():
        raise change.wrong("after its flags comes CMD with a command, or NONE")
    listed = change.listed(command.strip())
    test = ("CMD-SHELL", command.strip()) if listed is None else ("CMD", *listed)
    return msgspec.structs.replace(change.config, health=msgspec.structs.replace(Health(test=test), **given))


def _label(change: _Change) -> ImageConfig:
    return msgspec.structs.replace(change.config, labels={**change.config.labels, **change.pairs()})


def _onbuild(change: _Change) -> ImageConfig:
    word = change.text.partition(" ")[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        raise change.wrong(f"{word} can't be put off to another build")
    return msgspec.structs.replace(change.config, onbuild=(*change.config.onbuild, change.text))


def _stop_signal(change: _Change) -> ImageConfig:
    name = change.expanded(change.text)
    known = name.isdigit() and int(name) in {*signal.valid_signals()}
    if not known and f"SIG{name.upper().removeprefix('SIG')}" not in signal.Signals.__members__:
        raise change.wrong(f"{name!r} is no signal")
    return msgspec.structs.replace(change.config, stop_signal=name)


def _user(change: _Change) -> ImageConfig:
    return msgspec.structs.replace(change.config, user=change.expanded(change.text))


def _volume(change: _Change) -> ImageConfig:
    paths = change.listed(change.text) or tuple(change.expanded(change.text).split())
    if "" in paths:
        raise change.wrong("a volume needs a path")
    return msgspec.structs.replace(change.config, volumes=tuple(dict.fromkeys((*change.config.volumes, *paths))))


def _workdir(change: _Change) -> ImageConfig:
    path = posixpath.normpath(posixpath.join("/", change.config.workdir, change.expanded(change.text)))
    return msgspec.structs.replace(change.config, workdir=path)


_INSTRUCTIONS: dict[str, Callable[[_Change], ImageConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
