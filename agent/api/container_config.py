"""Docker's body of POST /containers/create, read into the runtime's ContainerConfig.

Read top to bottom beside the Engine API's ContainerConfig and NetworkingConfig; HostConfig is `host_config.py`.
"""

from typing import Any

import msgspec

from swarmd.agent.api import host_config
from swarmd.agent.api.fields import Fields
from swarmd.agent.api.host_config import Inspect
from swarmd.proto.errors import Invalid
from swarmd.runtime.model import ContainerConfig, Health, NetworkRequest

_UNSUPPORTED = frozenset({"ArgsEscaped", "OnBuild", "Shell"})
_ENDPOINT_UNSUPPORTED = frozenset(
    {
        *("DNSNames", "DriverOpts", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "GwPriority"),
        *("IPAddress", "IPPrefixLen", "IPv6Gateway", "Links", "NetworkID"),
    }
)
_MODES = frozenset({"bridge", "none", "host"})


def container_config(body: object, inspect: Inspect) -> ContainerConfig:
    """Raise Invalid naming the field that is unknown, malformed, or asks for what the runtime cannot do.

    inspect finds another container, whose mounts are to be shared.
    """
    with Fields(body, unsupported=_UNSUPPORTED) as fields:
        with fields.part("HostConfig", host_config.UNSUPPORTED) as host:
            ready = host_config.read(host, inspect)
        for stream in ("AttachStdin", "AttachStdout", "AttachStderr"):
            fields.flag(stream)  # whether the client means to attach: it will say so itself
        _no_anonymous_volumes(fields)
        asked = ready.pop("network_mode")
        mode = "none" if fields.flag("NetworkDisabled") else asked
        networks = _networks(fields, mode)
        return ContainerConfig(
            image=_required(fields.text("Image")),
            entrypoint=fields.text_or_texts("Entrypoint") if fields.has("Entrypoint") else None,
            command=fields.text_or_texts("Cmd") if fields.has("Cmd") else None,
            env=fields.texts("Env"),
            workdir=fields.text("WorkingDir"),
            user=fields.text("User"),
            hostname=fields.text("Hostname"),
            domainname=fields.text("Domainname"),
            labels=fields.mapping("Labels"),
            tty=fields.flag("Tty"),
            open_stdin=fields.flag("OpenStdin"),
            stdin_once=fields.flag("StdinOnce"),
            stop_signal=fields.text("StopSignal"),
            stop_timeout=float(fields.number("StopTimeout", 10)),
            exposed=_exposed(fields),
            health=health(fields) if fields.has("Healthcheck") else None,
            networks=networks,
            network_mode=mode if mode in _MODES or mode.startswith("container:") else "bridge",
            **ready,
        )


def _required(image: str) -> str:
    if not image:
        raise Invalid("field Image is required: name the image to run")
    return image


def _no_anonymous_volumes(fields: Fields) -> None:
    for target in fields.raw("Volumes"):
        raise Invalid(f"unsupported field Volumes.{target}: bind a host directory there instead")


def _exposed(fields: Fields) -> tuple[str, ...]:
    """Documentation, unless all are to be published: a bridge's ports are open to its own containers."""
    return tuple("{}/{}".format(*host_config.port(text)) for text in fields.raw("ExposedPorts"))


def health(fields: Fields) -> Health:
    """The field Healthcheck."""
    with fields.part("Healthcheck") as check:
        return Health(
            test=check.texts("Test"),
            interval=_seconds(check, "Interval", 30),
            timeout=_seconds(check, "Timeout", 30),
            retries=check.number("Retries") or 3,
            start_period=_seconds(check, "StartPeriod", 0),
            start_interval=_seconds(check, "StartInterval", 5),
        )


def _seconds(fields: Fields, name: str, default: float) -> float:
    """0 inherits: Docker's way to say the default."""
    value = fields.number(name)
    if 0 < value < 10**6 or value < 0:
        raise Invalid(f"field {fields.path(name)} is less than a millisecond")
    return value / 1e9 or default


def _networks(fields: Fields, mode: str) -> tuple[NetworkRequest, ...]:
    """The networks to join: those of EndpointsConfig, or the one that NetworkMode names."""
    mac = fields.text("MacAddress")
    with fields.part("NetworkingConfig") as networking:
        endpoints = networking.raw("EndpointsConfig")
    requests = [
        endpoint(name, wanted, f"NetworkingConfig.EndpointsConfig.{name}") for name, wanted in endpoints.items()
    ]
    found = [
        request
        for request in requests
        if request.network not in (*_MODES, "default") or request.address or request.mac or request.aliases
    ]
    if mode not in (*_MODES, "", "default", *endpoints) and not mode.startswith("container:"):
        found.append(NetworkRequest(network=mode))
    if mac:
        first, *rest = found or [NetworkRequest(network="bridge")]
        found = [msgspec.structs.replace(first, mac=first.mac or mac), *rest]
    return tuple(found)


def endpoint(name: str, asked: Any, path: str) -> NetworkRequest:
    """What is asked of a network, an EndpointSettings; path names it in refusals."""
    with Fields(asked or {}, path, _ENDPOINT_UNSUPPORTED) as wanted:
        with wanted.part("IPAMConfig", ("IPv6Address", "LinkLocalIPs")) as ipam:
            address = ipam.text("IPv4Address")
        aliases, mac = wanted.texts("Aliases"), wanted.text("MacAddress")
    if address and name in (*_MODES, "default"):
        raise Invalid(f"address {address} can't be chosen on network {name}: make a network with a subnet of your own")
    return NetworkRequest(network="bridge" if name == "default" else name, address=address, aliases=aliases, mac=mac)
