"""What an image says of the containers made from it, and its form in an OCI image configuration."""

from typing import Any

import msgspec

from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import Health, Struct

_SECOND = 1_000_000_000
_DURATIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start_period": "StartPeriod",
    "start_interval": "StartInterval",
}
_USUAL = Health()  # which is not written


class ImageConfig(Struct, frozen=True):
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    health: Health | None = None
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()  # paths in the container
    onbuild: tuple[str, ...] = ()  # Dockerfile instructions for images that are built from this one
    shell: tuple[str, ...] = ()  # for shell forms of instructions; empty: /bin/sh -c


class _Healthcheck(msgspec.Struct, rename="pascal"):
    """Durations are in ns."""

    test: list[str] | None = None
    interval: int | None = None
    timeout: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    retries: int | None = None


class _Written(msgspec.Struct, rename="pascal"):
    """As others write it; a command that is one word may be no list."""

    entrypoint: list[str] | str | None = None
    cmd: list[str] | str | None = None
    env: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None
    labels: dict[str, str | None] | None = None
    exposed_ports: dict[str, Any] | None = None
    healthcheck: _Healthcheck | None = None
    stop_signal: str | None = None
    volumes: dict[str, Any] | None = None
    on_build: list[str] | None = None
    shell: list[str] | str | None = None


def from_oci(config: dict[str, Any]) -> ImageConfig:
    """Read the "config" of an image configuration; absent and null are the same.  Invalid if it is malformed."""
    try:
        found = msgspec.convert(config, _Written)
    except msgspec.ValidationError as error:
        raise Invalid(f"the configuration of the image is malformed: {error}") from None
    health = found.healthcheck
    return ImageConfig(
        entrypoint=_words(found.entrypoint),
        cmd=_words(found.cmd),
        env=tuple(found.env or ()),
        workdir=found.working_dir or "",
        user=found.user or "",
        labels={name: value or "" for name, value in (found.labels or {}).items()},
        exposed_ports=tuple(found.exposed_ports or ()),
        health=_health(health, health.test) if health and health.test else None,
        stop_signal=found.stop_signal or "",
        volumes=tuple(found.volumes or ()),
        onbuild=tuple(found.on_build or ()),
        shell=_words(found.shell),
    )


def _words(given: list[str] | str | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) and given else tuple(given or ())


def to_oci(config: ImageConfig) -> dict[str, Any]:
    """Write it, leaving out what is empty, so that equal configurations give equal bytes."""
    values: dict[str, Any] = {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Env": list(config.env),
        "WorkingDir": config.workdir,
        "User": config.user,
        "Labels": dict(sorted(config.labels.items())),
        "ExposedPorts": {port: {} for port in sorted(config.exposed_ports)},
        "StopSignal": config.stop_signal,
        "Volumes": {path: {} for path in sorted(config.volumes)},
        "OnBuild": list(config.onbuild),
        "Shell": list(config.shell),
    }
    if health := config.health:
        times = {
            name: round(getattr(health, field) * _SECOND)
            for field, name in _DURATIONS.items()
            if getattr(health, field) != getattr(_USUAL, field)
        }
        retries = {} if health.retries == _USUAL.retries else {"Retries": health.retries}
        values["Healthcheck"] = {"Test": list(health.test), **times, **retries}
    return {name: value for name, value in values.items() if value}


def _health(health: _Healthcheck, test: list[str]) -> Health:
    """What is not positive is as good as absent."""
    times = {field: getattr(health, field) or 0 for field in _DURATIONS}
    given: dict[str, Any] = {field: ns / _SECOND for field, ns in times.items() if ns > 0}
    if health.retries and health.retries > 0:
        given["retries"] = health.retries
    return Health(test=tuple(test), **given)
