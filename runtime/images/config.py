"""What an image says of the containers made from it, and its form in an OCI image configuration."""

from typing import Any

import msgspec

from swarmd.runtime.model import Health, Struct

_SECOND = 1_000_000_000
_DURATIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start_period": "StartPeriod",
    "start_interval": "StartInterval",
}


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


def from_oci(config: dict[str, Any]) -> ImageConfig:
    """Read the "config" of an image configuration; absent and null are the same."""
    health = config.get("Healthcheck")
    return ImageConfig(
        entrypoint=tuple(config.get("Entrypoint") or ()),
        cmd=tuple(config.get("Cmd") or ()),
        env=tuple(config.get("Env") or ()),
        workdir=config.get("WorkingDir") or "",
        user=config.get("User") or "",
        labels=dict(config.get("Labels") or {}),
        exposed_ports=tuple(config.get("ExposedPorts") or ()),
        health=_health(health) if health and health.get("Test") else None,
        stop_signal=config.get("StopSignal") or "",
        volumes=tuple(config.get("Volumes") or ()),
        onbuild=tuple(config.get("OnBuild") or ()),
        shell=tuple(config.get("Shell") or ()),
    )


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
        durations = {name: round(getattr(health, field) * _SECOND) for field, name in _DURATIONS.items()}
        values["Healthcheck"] = {"Test": list(health.test), **durations, "Retries": health.retries}
    return {name: value for name, value in values.items() if value}


def _health(health: dict[str, Any]) -> Health:
    given: dict[str, Any] = {field: health[name] / _SECOND for field, name in _DURATIONS.items() if health.get(name)}
    if health.get("Retries"):
        given["retries"] = health["Retries"]
    return Health(test=tuple(health["Test"]), **given)
