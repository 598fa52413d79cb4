"""What a container's configuration comes to with its image: what is run, as what, and how it is asked to end."""

import socket

import msgspec

from swarmd.runtime import signals
from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import ContainerConfig, Health, PortMapping
from swarmd.runtime.ports import Image
from swarmd.runtime.stages.privileges import CAPABILITIES, DEFAULT_PATH

DEFAULT_CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID"),
        *("SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)

_TIMES = ("interval", "timeout", "retries", "start_period", "start_interval")


def arguments(config: ContainerConfig, image: Image) -> tuple[str, ...]:
    """Return what is run: a given entrypoint drops the image's command too, as in Docker."""
    if config.entrypoint is not None:
        found = config.entrypoint + (config.command or ())
    else:
        found = image.config.entrypoint + (image.config.cmd if config.command is None else config.command)
    if not found:
        raise Invalid(f"image {config.image} names no command, and none was given")
    return found


def environment(id: str, config: ContainerConfig, image: Image) -> list[str]:
    given = [*image.config.env, f"HOSTNAME={hostname(id, config)}", *config.env]
    env = {"PATH": DEFAULT_PATH} | ({"TERM": "xterm"} if config.tty else {})
    for entry in given:
        key, equals, value = entry.partition("=")
        if equals:
            env[key] = value
        else:
            env.pop(key, None)  # "NAME" alone takes the image's away, as in Docker
    return [f"{key}={value}" for key, value in env.items()]


def hostname(id: str, config: ContainerConfig) -> str:
    """Of one on the host's network the host's, unless it has one of its own."""
    if config.namespaces.uts == "host" or (config.network_mode == "host" and not (config.hostname or config.networks)):
        return socket.gethostname()
    return config.hostname or id[:12]


def host_names(id: str, config: ContainerConfig) -> tuple[str, ...]:
    """What its own address means in /etc/hosts: the name with its domain, and without."""
    full = f"{hostname(id, config)}.{config.domainname}" if config.domainname else hostname(id, config)
    return tuple(dict.fromkeys((full, full.partition(".")[0])))


def exposed(config: ContainerConfig, image: Image) -> tuple[str, ...]:
    """Ports that it says it has, "80/tcp"; what an image says and can be none is passed over."""
    return tuple(dict.fromkeys((*filter(_is_port, image.config.exposed_ports), *config.exposed)))


def _is_port(text: str) -> bool:
    number = text.partition("/")[0]
    return number.isascii() and number.isdigit() and 0 < int(number[:6]) < 65536


def ports(config: ContainerConfig, image: Image) -> tuple[PortMapping, ...]:
    """Ports to publish: those asked for, and with `publish_all` every other that is exposed."""
    if not config.publish_all:
        return config.ports
    asked = {(port.container_port, port.protocol) for port in config.ports}
    others = (
        (int(number), (protocol or "tcp").lower())
        for number, _, protocol in (e.partition("/") for e in exposed(config, image))
    )
    wanted = ((n, p) for n, p in others if p in ("tcp", "udp") and (n, p) not in asked)
    return (*config.ports, *(PortMapping(container_port=n, protocol=p) for n, p in wanted))


def stop_signal(config: ContainerConfig, image: Image) -> int:
    name = config.stop_signal or image.config.stop_signal or "SIGTERM"
    return signals.number_of(name)


def health(config: ContainerConfig, image: Image) -> Health | None:
    """The probe to run: the container's own, with what the image says where that says nothing; None for NONE."""
    found = healthcheck(config, image)
    return found if found and found.test and found.test[0] != "NONE" else None


def healthcheck(config: ContainerConfig, image: Image) -> Health | None:
    """The same, and shown even if it is NONE."""
    own, theirs = config.health, image.config.health
    if own is None or (own.test and own.test[0] == "NONE"):
        return own or theirs
    base = theirs or Health()
    times = {name: getattr(own, name) or getattr(base, name) for name in _TIMES}
    return msgspec.structs.replace(own, test=own.test or base.test, **times)


def capabilities(config: ContainerConfig) -> frozenset[str]:
    if config.security.privileged:
        return frozenset(CAPABILITIES)
    added, dropped = capability_names(config.security.cap_add), capability_names(config.security.cap_drop)
    base = frozenset[str]() if "CAP_ALL" in dropped else DEFAULT_CAPABILITIES - dropped
    return frozenset(CAPABILITIES) - dropped if "CAP_ALL" in added else base | added


def capability_names(given: tuple[str, ...]) -> frozenset[str]:
    names = frozenset(name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}" for name in given)
    if unknown := names - frozenset(CAPABILITIES) - {"CAP_ALL"}:
        raise Invalid(f"capability {min(unknown)} is not known")
    return names
