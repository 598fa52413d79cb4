"""Docker's body of POST /containers/create, read into the runtime's ContainerConfig.

Read top to bottom beside the Engine API's ContainerConfig and NetworkingConfig; HostConfig is `host_config.py`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from swarmd.agent.api import host_config
from swarmd.agent.api.fields import Fields
from swarmd.agent.api.host_config import Inspect
from swarmd.proto.errors import Invalid
from swarmd.runtime.model import ContainerConfig, Health, Link, Mount, NetworkRequest

_UNSUPPORTED = frozenset({"ArgsEscaped", "OnBuild", "Shell"})
_ENDPOINT_UNSUPPORTED = {
    **dict.fromkeys(("DNSNames", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "NetworkID"), ""),
    **dict.fromkeys(("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway"), "there is no IPv6 yet"),
    "DriverOpts": "networks have no options for one container",
    "GwPriority": "the first network that is not internal has the default route",
    "Links": "give them when the container is created",
}
_IPAM_UNSUPPORTED = {
    "IPv6Address": "there is no IPv6 yet",
    "LinkLocalIPs": "choose an address of the network, IPv4Address",
}
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
        _no_anonymous_volumes(fields, ready["mounts"])
        asked = ready.pop("network_mode")
        mode = "none" if fields.flag("NetworkDisabled") else asked
        with fields.part("NetworkingConfig") as networking:
            endpoints = networking.raw("EndpointsConfig")
        links = (*ready.pop("links"), *_links(endpoints))
        networks = _networks(fields, mode, endpoints)
        return ContainerConfig(
            image=_required(fields.text("Image")),
            entrypoint=_entrypoint(fields),
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
            links=tuple(dict.fromkeys(links)),
            network_mode=mode if mode in _MODES or mode.startswith("container:") else "bridge",
            **ready,
        )


def _required(image: str) -> str:
    if not image:
        raise Invalid("field Image is required: name the image to run")
    return image


def _entrypoint(fields: Fields) -> tuple[str, ...] | None:
    """An empty word takes the image's away."""
    given = fields.text_or_texts("Entrypoint") if fields.has("Entrypoint") else None
    return () if given == ("",) else given


def _no_anonymous_volumes(fields: Fields, mounts: Iterable[Mount]) -> None:
    """docker-py and Compose name the targets of binds here too."""
    targets = {os.path.normpath(mount.target) for mount in mounts}
    for target in fields.raw("Volumes"):
        if os.path.normpath(target) in targets:
            continue
        raise Invalid(f"volume {target}: there are no volumes yet: bind a directory of the host, -v /here:{target}")


def _exposed(fields: Fields) -> tuple[str, ...]:
    """Documentation, unless all are to be published: a bridge's ports are open to its own containers."""
    return tuple("{}/{}".format(*host_config.port(text)) for text in fields.raw("ExposedPorts"))


def health(fields: Fields) -> Health:
    """The field Healthcheck."""
    with fields.part("Healthcheck") as check:
        return Health(
            test=check.texts("Test"),
            interval=_seconds(check, "Interval"),
            timeout=_seconds(check, "Timeout"),
            retries=_retries(check),
            start_period=_seconds(check, "StartPeriod"),
            start_interval=_seconds(check, "StartInterval"),
        )


def _seconds(fields: Fields, name: str) -> float:
    """0 inherits: Docker's way to say the image's, or the default."""
    value = fields.number(name)
    if 0 < value < 10**6 or value < 0:
        raise Invalid(f"field {fields.path(name)} is less than a millisecond")
    return value / 1e9


def _retries(fields: Fields) -> int:
    value = fields.number("Retries")
    if value < 0:
        raise Invalid(f"field {fields.path('Retries')} is {value}: a number of failures is 1 or more")
    return value


def _links(endpoints: Mapping[str, Any]) -> Iterator[Link]:
    """A name leads to where both are, whichever network it is given for."""
    for name, wanted in endpoints.items():
        if isinstance(wanted, dict):
            given = Fields({"Links": wanted.pop("Links", None)}, f"NetworkingConfig.EndpointsConfig.{name}")
            yield from map(host_config.link, given.texts("Links"))


def _networks(fields: Fields, mode: str, endpoints: Mapping[str, Any]) -> tuple[NetworkRequest, ...]:
    """The networks to join: those of EndpointsConfig, or the one that NetworkMode names."""
    mac = fields.text("MacAddress")
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
    own = mode not in ("none", "host") and not mode.startswith("container:")
    if (mac and not own) or any(request.network in ("none", "host") for request in found):
        raise Invalid(f"network {mode or found[0].network} gives no address, MAC address or name: leave them out")
    if mac:
        first, *rest = found or [NetworkRequest(network="bridge")]
        found = [msgspec.structs.replace(first, mac=first.mac or mac), *rest]
    return tuple(found)


def endpoint(name: str, asked: Any, path: str) -> NetworkRequest:
    """What is asked of a network, an EndpointSettings; path names it in refusals."""
    with Fields(asked or {}, path, _ENDPOINT_UNSUPPORTED) as wanted:
        with wanted.part("IPAMConfig", _IPAM_UNSUPPORTED) as ipam:
            address = ipam.text("IPv4Address")
        aliases, mac = wanted.texts("Aliases"), wanted.text("MacAddress")
    if address and name in (*_MODES, "default"):
        raise Invalid(f"address {address} can't be chosen on network {name}: make a network with a subnet of your own")
    return NetworkRequest(network="bridge" if name == "default" else name, address=address, aliases=aliases, mac=mac)
