"""A container's state as the Engine API shows it: in a listing, and inspected."""

from typing import Any

from swarmd.agent.api import host_config, mounts
from swarmd.agent.api.streams import stamp
from swarmd.runtime.model import ContainerState, HealthState, Phase, PortMapping

_NEVER = "0001-01-01T00:00:00Z"


def summary(state: ContainerState, now: int) -> dict[str, Any]:
    return {
        "Id": state.id,
        "Names": [f"/{state.name}"],
        "Image": state.config.image,
        "ImageID": state.image_id,
        "Command": " ".join((*(state.config.entrypoint or ()), *(state.config.command or ()))),
        "Created": state.created // 10**9,
        "Ports": [_public_port(port) for port in state.ports],
        "Labels": state.config.labels,
        "State": state.phase.value,
        "Status": status(state, now),
        "HostConfig": {"NetworkMode": state.config.network_mode},
        "NetworkSettings": {"Networks": _networks(state)},
        "Mounts": [mounts.point(mount) for mount in state.config.mounts],
    }


def status(state: ContainerState, now: int) -> str:
    """'Up 3 minutes (healthy)', 'Exited (1) 2 hours ago'."""
    if state.phase is Phase.RUNNING:
        health = {HealthState.NONE: "", HealthState.STARTING: " (health: starting)"}
        return f"Up {ago(now - state.started)}" + health.get(state.health, f" ({state.health.value})")
    if state.exit is not None:
        return f"Exited ({state.exit.code}) {ago(now - state.exit.at)} ago"
    return state.phase.value.capitalize()


def ago(ns: int) -> str:
    seconds = max(0, ns // 10**9)
    for unit, length in (("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= (2 * length if unit in ("week", "day") else length):
            count = seconds // length
            return f"{count} {unit}s" if count > 1 else f"About {'an' if unit == 'hour' else 'a'} {unit}"
    return "Less than a second" if seconds < 1 else f"{seconds} second{'s' * (seconds != 1)}"


def inspected(state: ContainerState) -> dict[str, Any]:
    config = state.config
    argv = (*(config.entrypoint or ()), *(config.command or ()))
    return {
        "Id": state.id,
        "Name": f"/{state.name}",
        "Created": stamp(state.created),
        "Path": argv[0] if argv else "",
        "Args": list(argv[1:]),
        "Image": state.image_id,
        "RestartCount": state.restart_count,
        "Driver": "overlay",
        "Platform": "linux",
        "State": _state(state),
        "Config": _config(state),
        "HostConfig": host_config.shown(config),
        "Mounts": [mounts.point(mount) for mount in config.mounts],
        "NetworkSettings": {"Ports": _port_map(state), "Networks": _networks(state)},
    }


def _state(state: ContainerState) -> dict[str, Any]:
    end = state.exit
    shown: dict[str, Any] = {
        "Status": state.phase.value,
        "Running": state.phase is Phase.RUNNING,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": end.oom_killed if end else False,
        "Dead": state.phase is Phase.DEAD,
        "Pid": state.pid,
        "ExitCode": end.code if end else 0,
        "Error": end.error if end else "",
        "StartedAt": stamp(state.started) if state.started else _NEVER,
        "FinishedAt": stamp(end.at) if end else _NEVER,
    }
    if state.health is not HealthState.NONE:
        shown["Health"] = {
            "Status": state.health.value,
            "FailingStreak": state.health_failing_streak,
            "Log": [
                {"Start": stamp(p.start), "End": stamp(p.end), "ExitCode": p.exit_code, "Output": p.output}
                for p in state.health_log
            ],
        }
    return shown


def _config(state: ContainerState) -> dict[str, Any]:
    config = state.config
    shown: dict[str, Any] = {
        "Hostname": config.hostname or state.id[:12],
        "Domainname": config.domainname,
        "ExposedPorts": {port: {} for port in config.exposed},
        "User": config.user,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": list(config.env),
        "Cmd": None if config.command is None else list(config.command),
        "Entrypoint": None if config.entrypoint is None else list(config.entrypoint),
        "Image": config.image,
        "WorkingDir": config.workdir,
        "Labels": config.labels,
        "StopTimeout": int(config.stop_timeout),
    }
    if config.stop_signal:
        shown["StopSignal"] = config.stop_signal
    if config.health is not None:
        health = config.health
        shown["Healthcheck"] = {
            "Test": list(health.test),
            "Interval": _ns(health.interval),
            "Timeout": _ns(health.timeout),
            "Retries": health.retries,
            "StartPeriod": _ns(health.start_period),
            "StartInterval": _ns(health.start_interval),
        }
    return shown


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _public_port(port: PortMapping) -> dict[str, Any]:
    return {
        "IP": port.host_ip or "0.0.0.0",
        "PrivatePort": port.container_port,
        "PublicPort": port.host_port,
        "Type": port.protocol,
    }


def _port_map(state: ContainerState) -> dict[str, list[dict[str, str]] | None]:
    """Ports that are exposed and not published are there, without a binding."""
    shown: dict[str, list[dict[str, str]] | None] = dict.fromkeys(state.config.exposed)
    for key, found in host_config.bindings(state.ports).items():
        shown[key] = [binding | {"HostIp": binding["HostIp"] or "0.0.0.0"} for binding in found]
    return shown


def _networks(state: ContainerState) -> dict[str, Any]:
    shown = {}
    for network in state.networks:
        address, _, prefix = network.address.partition("/")
        shown[network.network] = {
            "IPAddress": address,
            "IPPrefixLen": int(prefix or 0),
            "Gateway": network.gateway,
            "MacAddress": network.mac,
        }
    return shown
