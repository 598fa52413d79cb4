"""The --change lines of `image import`: a few Dockerfile instructions, applied to an empty image configuration."""

import json
import shlex
from collections.abc import Callable, Iterable

import msgspec

from swarmd.proto.errors import Invalid
from swarmd.runtime.images.config import ImageConfig


def changed(lines: Iterable[str]) -> ImageConfig:
    """The configuration that the instructions make, in their order."""
    config = ImageConfig()
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None or not rest.strip():
            raise Invalid(f"change {line!r}: use one of {', '.join(_INSTRUCTIONS)}, and what to set")
        config = apply(config, rest.strip())
    return config


def _argv(text: str) -> tuple[str, ...]:
    """The exec form, a JSON list; or the shell form, a line for /bin/sh."""
    if text.startswith("["):
        try:
            return tuple(map(str, json.loads(text)))
        except ValueError:
            raise Invalid(f"{text!r} is not a JSON list of strings") from None
    return ("/bin/sh", "-c", text)


def _pairs(text: str) -> dict[str, str]:
    """a=b c="d e", or the old form `a b`."""
    words = shlex.split(text)
    if "=" not in words[0]:
        return {words[0]: " ".join(words[1:])}
    return dict((*word.partition("=")[::2],) for word in words)


def _env(config: ImageConfig, text: str) -> ImageConfig:
    pairs = _pairs(text)
    kept = (line for line in config.env if line.partition("=")[0] not in pairs)
    return msgspec.structs.replace(config, env=(*kept, *(f"{key}={value}" for key, value in pairs.items())))


_INSTRUCTIONS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": lambda config, text: msgspec.structs.replace(config, cmd=_argv(text)),
    "ENTRYPOINT": lambda config, text: msgspec.structs.replace(config, entrypoint=_argv(text)),
    "ENV": _env,
    "EXPOSE": lambda config, text: msgspec.structs.replace(
        config,
        exposed_ports=(*config.exposed_ports, *(port if "/" in port else f"{port}/tcp" for port in text.split())),
    ),
    "LABEL": lambda config, text: msgspec.structs.replace(config, labels={**config.labels, **_pairs(text)}),
    "STOPSIGNAL": lambda config, text: msgspec.structs.replace(config, stop_signal=text),
    "USER": lambda config, text: msgspec.structs.replace(config, user=text),
    "WORKDIR": lambda config, text: msgspec.structs.replace(config, workdir=text),
}
