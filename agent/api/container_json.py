"""A container's state as the Engine API shows it: in a listing, and inspected."""

from pathlib import Path
from typing import Any

from swarmd.agent.api import host_config, mounts
from swarmd.agent.api.streams import stamp
from swarmd.runtime import log_drivers
from swarmd.runtime.effective import arguments, exposed, healthcheck, hostname
from swarmd.runtime.model import ContainerConfig, ContainerState, HealthState, Phase
from swarmd.runtime.ports import Image

_NEVER = "0001-01-01T00:00:00Z"


def summary(state: ContainerState, image: Image, now: int) -> dict[str, Any]:
    return {
        "Id": state.id,
        "Names": [f"/{state.name}"],
        "Image": state.config.image,
        "ImageID": image.id,
        "Command": " ".join(arguments(state.config, image)),
        "Created": state.created // 10**9,
        "Ports": _ports(state, image),
        "Labels": image.config.labels | state.config.labels,
        "State": shown_state(state),
        "Status": status(state, now),
        "HostConfig": {"NetworkMode": _network_mode(state.config), "Annotations": state.config.annotations},
        "NetworkSettings": {"Networks": _networks(state)},
        "Mounts": [mounts.point(mount) for mount in state.config.mounts],
    }


def shown_state(state: ContainerState) -> str:
    """Docker's word for where it is in its life."""
    if state.paused:
        return "paused"
    return "restarting" if state.restarting else state.phase.value


def status(state: ContainerState, now: int) -> str:
    """'Up 3 minutes (healthy)', 'Exited (1) 2 hours ago'."""
    if state.phase is Phase.RUNNING:
        health = {HealthState.NONE: "", HealthState.STARTING: " (health: starting)"}
        said = " (Paused)" if state.paused else health.get(state.health, f" ({state.health.value})")
        return f"Up {ago(now - state.started)}{said}"
    if state.exit is not None:
        word = "Restarting" if state.restarting else "Exited"
        return f"{word} ({state.exit.code}) {ago(now - state.exit.at)} ago"
    return state.phase.value.capitalize()


def ago(ns: int) -> str:
    seconds = max(0, ns // 10**9)
    for unit, length in (("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= (2 * length if unit in ("week", "day") else length):
            count = seconds // length
            return f"{count} {unit}s" if count > 1 else f"About {'an' if unit == 'hour' else 'a'} {unit}"
    return "Less than a second" if seconds < 1 else f"{seconds} second{'s' * (seconds != 1)}"


def inspected(state: ContainerState, image: Image, directory: Path) -> dict[str, Any]:
    config = state.config
    argv = arguments(config, image)
    return {
        "Id": state.id,
        "Name": f"/{state.name}",
        "Created": stamp(state.created),
        "Path": argv[0],
        "Args": list(argv[1:]),
        "Image": image.id,
        "RestartCount": state.restart_count,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": config.security.apparmor,
        "ExecIDs": None,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": str(directory / "container.log") if log_drivers.keeps_file(config.log) else "",
        "State": _state(state),
        "Config": _config(state, image),
        "HostConfig": host_config.shown(config),
        "GraphDriver": {
            "Name": "overlay",
            "Data": {
                "LowerDir": ":".join(str(layer) for layer in reversed(image.layers)),
                "UpperDir": str(directory / "upper"),
                "WorkDir": str(directory / "work"),
                "MergedDir": str(directory / "rootfs"),
            },
        },
        "Mounts": [mounts.point(mount) for mount in config.mounts],
        "NetworkSettings": _network_settings(state, image),
    }


def _state(state: ContainerState) -> dict[str, Any]:
    end = state.exit
    shown: dict[str, Any] = {
        "Status": shown_state(state),
        "Running": state.phase is Phase.RUNNING or state.restarting,  # Docker's clients know it so
        "Paused": state.paused,
        "Restarting": state.restarting,
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


def _config(state: ContainerState, image: Image) -> dict[str, Any]:
    """What was asked, with what the image says where nothing was."""
    config, theirs = state.config, image.config
    command = config.command if config.command is not None or config.entrypoint is not None else theirs.cmd
    entrypoint = config.entrypoint if config.entrypoint is not None else theirs.entrypoint
    given = {entry.partition("=")[0] for entry in config.env}
    inherited = [entry for entry in theirs.env if entry.partition("=")[0] not in given]
    shown: dict[str, Any] = {
        "Hostname": hostname(state.id, config),
        "Domainname": config.domainname,
        "User": config.user or theirs.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": {port: {} for port in exposed(config, image)},
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": [*config.env, *inherited],
        "Cmd": list(command) if command else None,
        "Entrypoint": list(entrypoint) if entrypoint else None,
        "Image": config.image,
        "Volumes": {path: {} for path in theirs.volumes} or None,
        "WorkingDir": config.workdir or theirs.workdir,
        "OnBuild": None,
        "Labels": theirs.labels | config.labels,
        "StopTimeout": int(config.stop_timeout),
    }
    if signal := config.stop_signal or theirs.stop_signal:
        shown["StopSignal"] = signal
    if health := healthcheck(config, image):
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


def _ports(state: ContainerState, image: Image) -> list[dict[str, Any]]:
    """Those published, and those that are only exposed."""
    found: list[dict[str, Any]] = [
        {"IP": p.host_ip or "0.0.0.0", "PrivatePort": p.container_port, "PublicPort": p.host_port, "Type": p.protocol}
        for p in state.ports
    ]
    published = {f"{p.container_port}/{p.protocol}" for p in state.ports}
    for text in exposed(state.config, image):
        number, protocol = host_config.port(text)
        if f"{number}/{protocol}" not in published and state.phase is Phase.RUNNING:
            found.append({"PrivatePort": number, "Type": protocol})
    return found


def _network_mode(config: ContainerConfig) -> str:
    return config.networks[0].network if config.networks else config.network_mode


def _network_settings(state: ContainerState, image: Image) -> dict[str, Any]:
    ports: dict[str, list[dict[str, str]] | None] = dict.fromkeys(exposed(state.config, image))
    for key, found in host_config.bindings(state.ports).items():
        ports[key] = [binding | {"HostIp": binding["HostIp"] or "0.0.0.0"} for binding in found]
    networks = _networks(state)
    bridge = networks.get("bridge", {})
    return {
        "Bridge": "",
        "SandboxID": state.id if state.networks else "",
        "SandboxKey": f"/proc/{state.pid}/ns/net" if state.pid else "",
        "Ports": ports if state.phase is Phase.RUNNING else {},
        "IPAddress": bridge.get("IPAddress", ""),
        "IPPrefixLen": bridge.get("IPPrefixLen", 0),
        "Gateway": bridge.get("Gateway", ""),
        "MacAddress": bridge.get("MacAddress", ""),
        "Networks": networks,
    }


def _networks(state: ContainerState) -> dict[str, Any]:
    asked = {request.network: request for request in state.config.networks}
    names = list(asked) or [state.config.network_mode]
    shown: dict[str, Any] = {name: {"IPAddress": "", "Aliases": None} for name in names if ":" not in name}
    for network in state.networks:
        address, _, prefix = network.address.partition("/")
        aliases = asked[network.network].aliases if network.network in asked else ()
        shown[network.network] = {
            "Aliases": list(aliases) or None,
            "DNSNames": [state.name, state.id[:12], *aliases],
            "IPAddress": address,
            "IPPrefixLen": int(prefix or 0),
            "Gateway": network.gateway,
            "MacAddress": network.mac,
        }
    return shown
