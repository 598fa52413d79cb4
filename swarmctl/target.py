"""Which daemon a command speaks to: a flag's, the environment's, or that of a context.

Every command asks this, so it imports little: the contexts themselves (contexts.py) only where one is used.
"""

from __future__ import annotations

import os

from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.dial import DEFAULT_HOST, Endpoint, Tls, tls_in

DEFAULT = "default"


class Flags:
    """The global flags that have a say."""

    __slots__ = ("config", "context", "host", "tls", "tlscacert", "tlscert", "tlskey", "tlsverify")

    def __init__(
        self,
        host: str,
        context: str,
        config: str,
        tls: bool,
        tlsverify: bool,
        tlscacert: str,
        tlscert: str,
        tlskey: str,
    ) -> None:
        self.host = host
        self.context = context
        self.config = config
        self.tls = tls
        self.tlsverify = tlsverify
        self.tlscacert = tlscacert
        self.tlscert = tlscert
        self.tlskey = tlskey


def directory(config: str) -> str:
    """Where contexts are kept."""
    return config or os.environ.get("SWARMCTL_CONFIG") or os.path.expanduser("~/.swarmd")


def host_in_environment() -> str:
    return os.environ.get("SWARMCTL_HOST") or os.environ.get("DOCKER_HOST") or ""


def context_name(flags: Flags) -> str:
    if flags.host and flags.context:
        raise Refusal("-H and --context both name a daemon: give one of them")
    if flags.context:
        return flags.context
    if flags.host or host_in_environment():
        return DEFAULT
    chosen = os.environ.get("SWARMCTL_CONTEXT") or os.environ.get("DOCKER_CONTEXT")
    return chosen or current(directory(flags.config))


def current(directory: str) -> str:
    """The one that `context use` chose."""
    path = os.path.join(directory, "config.json")
    try:
        with open(path) as file:
            import json

            return str(json.load(file).get("currentContext") or DEFAULT)
    except FileNotFoundError:
        return DEFAULT
    except (OSError, ValueError, AttributeError) as problem:
        raise Refusal(f"{path} cannot be read: {problem}: mend or remove it") from None


def endpoint(flags: Flags) -> Endpoint:
    name = context_name(flags)
    if name != DEFAULT:
        from swarmd.swarmctl.contexts import Store

        found = Store(directory(flags.config)).get(name).endpoint
        return found if found.tls else _with_tls(found.host, flags)
    return _with_tls(flags.host or host_in_environment() or DEFAULT_HOST, flags)


def _with_tls(host: str, flags: Flags) -> Endpoint:
    """A tcp host always has TLS: by the flags, or with the files of Docker's environment."""
    if not host.startswith("tcp:"):
        return Endpoint(host)
    base = tls_in(os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker"))
    verify = flags.tlsverify or not flags.tls
    return Endpoint(host, Tls(flags.tlscacert or base.ca, flags.tlscert or base.cert, flags.tlskey or base.key, verify))
