"""What a service's containers may ask for; `CONTAINER_RULES` is the list, read by validate_service.py."""

import ipaddress
import re
import signal
from collections.abc import Callable

from swarmd.proto.errors import Invalid
from swarmd.proto.objects_pb2 import ContainerSpec, Mount

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])"
_REFERENCE = re.compile(
    rf"(?:{_HOST}(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,})?"
)
_USER_IDS = re.compile(r"host|auto(:size=[1-9]\d{0,7})?")
_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_ADDRESS = r"(?:[0-9.]+|localhost|\[[0-9a-fA-F:.]+\])?"
_PATH = r"(?:/[\x21-\x22\x24-\x7e]*)?"
# Probes made from the container's network, without a program in it; the node reads the same in runtime/probes.py.
_PROBES = {
    "HTTP": (re.compile(rf"http://{_ADDRESS}(?::\d{{1,5}})?{_PATH}"), "http://[ADDRESS]:PORT/PATH"),
    "TCP": (re.compile(rf"tcp://{_ADDRESS}:\d{{1,5}}"), "tcp://[ADDRESS]:PORT"),
    "GRPC": (re.compile(rf"grpc://{_ADDRESS}:\d{{1,5}}{_PATH}"), "grpc://[ADDRESS]:PORT[/SERVICE]"),
}
MIN_HEALTH_TIME = 1_000_000  # ns


def image(spec: ContainerSpec) -> None:
    if not spec.image:
        raise Invalid("a service needs an image")
    if not _REFERENCE.fullmatch(spec.image):
        raise Invalid(
            f"image {spec.image!r} is not a valid reference: [HOST/]NAME[:TAG][@DIGEST], the name in lower case"
        )


def env(spec: ContainerSpec) -> None:
    for entry in spec.env:
        if not entry.partition("=")[0] or "\0" in entry:
            raise Invalid(f"environment variable {entry!r} has no name: write NAME=VALUE")


def hostname(spec: ContainerSpec) -> None:
    if spec.hostname and not _HOSTNAME.fullmatch(spec.hostname):
        raise Invalid(f"hostname {spec.hostname!r} is not valid: letters, digits, '-' and '.', at most 63 characters")


def directory(spec: ContainerSpec) -> None:
    if spec.dir and not spec.dir.startswith("/"):
        raise Invalid(f"working directory {spec.dir!r} is not absolute")


def user_ids(spec: ContainerSpec) -> None:
    if spec.userns_mode and not _USER_IDS.fullmatch(spec.userns_mode):
        raise Invalid(f"user namespace mode {spec.userns_mode!r} is none of host, auto and auto:size=N")


def stopping(spec: ContainerSpec) -> None:
    if spec.stop_grace_period < 0:
        raise Invalid("stop grace period is negative")
    name = spec.stop_signal.upper()
    known = name.isdecimal() and 1 <= int(name) <= 64
    if name and not known and f"SIG{name.removeprefix('SIG')}" not in signal.Signals.__members__:
        raise Invalid(f"stop signal {spec.stop_signal!r} is not a signal")


def health(spec: ContainerSpec) -> None:
    check = spec.healthcheck
    if check.test and check.test[0] not in ("NONE", "CMD", "CMD-SHELL", *_PROBES):
        known = ", ".join(("NONE", "CMD", "CMD-SHELL", *_PROBES))
        raise Invalid(f"health check {check.test[0]!r} is not understood: it begins with {known}")
    if check.test and check.test[0] in _PROBES:
        pattern, form = _PROBES[check.test[0]]
        if len(check.test) != 2 or not pattern.fullmatch(check.test[1]):
            raise Invalid(f"health check {' '.join(check.test)!r} is not of the form {check.test[0]} {form}")
    if check.test and check.test[0] != "NONE" and len(check.test) < 2:
        raise Invalid(f"health check {check.test[0]} has no command")
    if check.retries < 0:
        raise Invalid(f"health check retries are negative: {check.retries}")
    for what in ("interval", "timeout", "start_period", "start_interval"):
        value = getattr(check, what)
        if value and value < MIN_HEALTH_TIME:
            raise Invalid(f"health check {what.replace('_', ' ')} is too short: at least 1 ms, or 0 for the default")


def mounts(spec: ContainerSpec) -> None:
    targets: set[str] = set()
    for mount in spec.mounts:
        _mount(mount)
        if mount.target in targets:
            raise Invalid(f"two mounts have the target {mount.target}")
        targets.add(mount.target)


def _mount(mount: Mount) -> None:
    if mount.type not in ("bind", "tmpfs"):
        raise Invalid(f"mount type {mount.type!r} is not supported in services: bind or tmpfs")
    if not mount.target.startswith("/"):
        raise Invalid(f"mount target {mount.target!r} is not an absolute path")
    if mount.type == "bind" and not mount.source.startswith("/"):
        raise Invalid(f"bind mount source {mount.source!r} is not an absolute path")
    if mount.type == "tmpfs" and mount.source:
        raise Invalid(f"a tmpfs mount has no source, but {mount.target} names {mount.source!r}")
    if mount.tmpfs_options.size_bytes < 0:
        raise Invalid(f"tmpfs mount {mount.target} has a negative size")


def hosts(spec: ContainerSpec) -> None:
    for entry in spec.hosts:
        words = entry.split()
        if len(words) < 2 or not _is_address(words[0]):
            raise Invalid(f"host entry {entry!r} is not of the form ADDRESS NAME [NAME...]")


def nameservers(spec: ContainerSpec) -> None:
    for server in spec.dns_config.nameservers:
        if not _is_address(server):
            raise Invalid(f"DNS server {server!r} is not an IP address")


def seccomp(spec: ContainerSpec) -> None:
    mode = spec.privileges.seccomp.mode
    if mode not in ("", "default", "unconfined", "custom"):
        raise Invalid(f"seccomp mode {mode!r} is not understood: default, unconfined or custom")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


CONTAINER_RULES: tuple[Callable[[ContainerSpec], None], ...] = (
    image,
    env,
    hostname,
    directory,
    user_ids,
    stopping,
    health,
    mounts,
    hosts,
    nameservers,
    seccomp,
)
