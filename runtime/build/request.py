"""What a build is asked for, and what it tells on the way."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Platform
from swarmd.runtime.model import Limits, Struct, Ulimit

_NO_LIMITS = Limits()


class Request(Struct, frozen=True):
    """dockerfile: its text; file: its name in errors; network: of RUN, default, none, host or a network's name.

    cache_from: images whose steps may be used; inline_cache: the image is to tell of its own; fresh: stages whose steps
    are made anew.  secrets by their ids; ssh: agents' sockets on this host by theirs.  allowed: of security.insecure
    and network.host, which a RUN may otherwise not ask for.  annotations: of the manifest.
    """

    dockerfile: str
    file: str = "Dockerfile"
    refs: tuple[str, ...] = ()
    target: str = ""
    args: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    platform: Platform | None = None
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    no_cache: bool = False
    fresh: tuple[str, ...] = ()
    pull: bool = False
    squash: bool = False
    cache_from: tuple[str, ...] = ()
    inline_cache: bool = False
    network: str = "default"
    extra_hosts: tuple[str, ...] = ()
    limits: Limits = _NO_LIMITS
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    secrets: dict[str, bytes] = msgspec.field(default_factory=dict)
    ssh: dict[str, Path] = msgspec.field(default_factory=dict)
    allowed: tuple[str, ...] = ()


class Step(Struct, frozen=True):
    """One instruction of one stage; number and count are of all the steps that this build takes.

    place and places: which it is of its stage's, and how many these are; 0 where that is not known.
    """

    number: int
    count: int
    stage: str
    text: str
    place: int = 0
    places: int = 0


class Progress(Struct, frozen=True):
    """state: started, output (with data), cached, done or failed, or warning (with data), of no step.

    seconds: since it started.
    """

    step: Step
    state: str
    data: bytes = b""
    stream: str = ""
    seconds: float = 0.0


Report = Callable[[Progress], None]
# Brings an image that is not here, or with True whatever its registry has by now.
Pull = Callable[[str, Platform, bool], Awaitable[Image]]
