"""What instructions do to an image's configuration, in the words they come to after expansion."""

import os
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from swarmd.runtime import signals
from swarmd.runtime.build.dockerfile.instructions import Healthcheck
from swarmd.runtime.build.faults import WrongWord
from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.model import Health

SHELL = ("/bin/sh", "-c")


def env(config: ImageConfig, pairs: Mapping[str, str]) -> ImageConfig:
    """A variable keeps its place when it gets another value."""
    values = dict(line.partition("=")[::2] for line in config.env) | dict(pairs)
    return msgspec.structs.replace(config, env=tuple(f"{key}={value}" for key, value in values.items()))


def label(config: ImageConfig, pairs: Mapping[str, str]) -> ImageConfig:
    return msgspec.structs.replace(config, labels={**config.labels, **pairs})


def expose(config: ImageConfig, words: Iterable[str]) -> ImageConfig:
    """Of a mapping like 8080:80 only the container's side counts."""
    ports = dict.fromkeys(config.exposed_ports)
    for word in words:
        number, _, protocol = word.rpartition(":")[2].partition("/")
        first, dash, last = number.partition("-")
        numbers = range(_port(first, word), _port(last if dash else first, word) + 1)
        if protocol.lower() not in ("", "tcp", "udp", "sctp") or not numbers:
            raise WrongWord(f"EXPOSE {word}: give a port or a range, and tcp, udp or sctp: 80/tcp, 8000-8010", word)
        ports |= dict.fromkeys(f"{one}/{protocol.lower() or 'tcp'}" for one in numbers)
    return msgspec.structs.replace(config, exposed_ports=tuple(ports))


def _port(text: str, word: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise WrongWord(f"EXPOSE {word}: {text!r} is no port", word)
    return int(text)


def volume(config: ImageConfig, paths: Iterable[str]) -> ImageConfig:
    found = dict.fromkeys((*config.volumes, *paths))
    return msgspec.structs.replace(config, volumes=tuple(found))


def user(config: ImageConfig, name: str) -> ImageConfig:
    return msgspec.structs.replace(config, user=name)


def workdir(config: ImageConfig, path: str) -> ImageConfig:
    """A relative path goes on from the one before."""
    whole = path if path.startswith("/") else f"{config.workdir or '/'}/{path}"
    return msgspec.structs.replace(config, workdir=f"/{os.path.normpath(whole).lstrip('/')}")


def shell(config: ImageConfig, words: Sequence[str]) -> ImageConfig:
    return msgspec.structs.replace(config, shell=tuple(words))


def argv(config: ImageConfig, words: Sequence[str], in_shell: bool) -> tuple[str, ...]:
    """What an instruction's words come to: the exec form as it is, the shell form as one line for the shell."""
    return (*(config.shell or SHELL), *words) if in_shell else tuple(words)


def cmd(config: ImageConfig, words: Sequence[str], in_shell: bool) -> ImageConfig:
    return msgspec.structs.replace(config, cmd=argv(config, words, in_shell))


def entrypoint(config: ImageConfig, words: Sequence[str], in_shell: bool, cmd_is_ours: bool) -> ImageConfig:
    """cmd_is_ours: this build has set CMD; one of the base image belonged to its own entrypoint."""
    changed = msgspec.structs.replace(config, entrypoint=argv(config, words, in_shell))
    return changed if cmd_is_ours else msgspec.structs.replace(changed, cmd=())


def stop_signal(config: ImageConfig, name: str) -> ImageConfig:
    try:
        signals.number_of(name)  # refused now, and not when a container is to stop
    except Invalid as error:
        raise WrongWord(str(error), name) from None
    return msgspec.structs.replace(config, stop_signal=name)


def healthcheck(config: ImageConfig, one: Healthcheck) -> ImageConfig:
    return msgspec.structs.replace(config, health=_health(one))


def _health(one: Healthcheck) -> Health:
    if not one.test:
        return Health(test=("NONE",))
    given = {
        name: value
        for name in ("interval", "timeout", "start_period", "start_interval", "retries")
        if (value := getattr(one, name)) is not None
    }
    return msgspec.structs.replace(Health(test=("CMD-SHELL" if one.in_shell else "CMD", *one.test)), **given)


def onbuild(config: ImageConfig, line: str) -> ImageConfig:
    return msgspec.structs.replace(config, onbuild=(*config.onbuild, line))
