"""What a service may ask for: each rule takes the spec and raises Invalid, naming the field and what is allowed.

`RULES` is the list; a new rule is a new entry.  Rules that need the store (names, networks, ports of others) are in
services.py.
"""

import re
from collections.abc import Callable

from swarmd.manager.control.validate_container import CONTAINER_RULES
from swarmd.manager.scheduler import constraints
from swarmd.proto.errors import Invalid
from swarmd.proto.objects_pb2 import (
    ENDPOINT_MODE_DNSRR,
    PUBLISH_MODE_INGRESS,
    PortConfig,
    ServiceSpec,
    UpdateConfig,
)

_NAME = re.compile(r"[a-zA-Z0-9](?:[-_.]*[A-Za-z0-9]+)*")
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MAX_NAME = 63  # a DNS label
MAX_REPLICAS = 1_000_000
MIN_MEMORY = 4 << 20
MIN_NANO_CPUS = 1_000_000  # a thousandth of a CPU


def validate_service(spec: ServiceSpec) -> None:
    for rule in RULES:
        rule(spec)


def name(spec: ServiceSpec) -> None:
    if not spec.name:
        raise Invalid("a service needs a name")
    if len(spec.name) > MAX_NAME:
        raise Invalid(f"service name {spec.name[:20]}… is too long: at most {MAX_NAME} characters, as it is a DNS name")
    if not _NAME.fullmatch(spec.name):
        raise Invalid(f"service name {spec.name!r} is not valid: letters, digits, and '-', '_' or '.' between them")


def mode(spec: ServiceSpec) -> None:
    if spec.mode.replicated.replicas > MAX_REPLICAS:
        raise Invalid(f"service {spec.name} asks for {spec.mode.replicated.replicas} replicas: at most {MAX_REPLICAS}")


def runtime(spec: ServiceSpec) -> None:
    if spec.task.runtime not in ("", "container"):
        raise Invalid(f"runtime {spec.task.runtime!r} is not supported: tasks are containers")


def container(spec: ServiceSpec) -> None:
    for rule in CONTAINER_RULES:
        rule(spec.task.container)


def log_driver(spec: ServiceSpec) -> None:
    """Only its shape: which drivers there are is a matter of the node that runs the task, and of its sentence."""
    driver = spec.task.log_driver
    if driver.name and not _WORD.fullmatch(driver.name):
        raise Invalid(f"log driver {driver.name!r} is no name: it is written as json-file")
    for option in sorted(driver.options):
        if not _WORD.fullmatch(option):
            raise Invalid(f"log option {option!r} is no name: it is written as max-size=10m")


def resources(spec: ServiceSpec) -> None:
    limits, reservations = spec.task.resources.limits, spec.task.resources.reservations
    for what, asked in (("limit", limits), ("reservation", reservations)):
        if asked.memory_bytes and asked.memory_bytes < MIN_MEMORY:
            raise Invalid(f"memory {what} of {asked.memory_bytes} bytes is too small: at least 4 MiB")
        if asked.nano_cpus and asked.nano_cpus < MIN_NANO_CPUS:
            raise Invalid(f"CPU {what} of {asked.nano_cpus / 1e9:g} is too small: at least 0.001")
    if limits.pids < 0:
        raise Invalid(f"the limit of processes is {limits.pids}: it has to be positive, or 0 for none")
    if limits.memory_bytes and reservations.memory_bytes > limits.memory_bytes:
        raise Invalid(f"memory reservation {reservations.memory_bytes} is above the limit {limits.memory_bytes}")
    if limits.nano_cpus and reservations.nano_cpus > limits.nano_cpus:
        raise Invalid(f"CPU reservation {reservations.nano_cpus / 1e9:g} is above the limit {limits.nano_cpus / 1e9:g}")


def restart(spec: ServiceSpec) -> None:
    _positive("restart delay", spec.task.restart.delay)
    _positive("restart window", spec.task.restart.window)


def placement(spec: ServiceSpec) -> None:
    constraints.parse(spec.task.placement.constraints)
    for preference in spec.task.placement.preferences:
        descriptor = preference.spread.spread_descriptor
        if not re.fullmatch(r"(node|engine)\.labels\..+", descriptor):
            raise Invalid(
                f"placement preference {descriptor!r} is not of the form node.labels.KEY or engine.labels.KEY"
            )


def updates(spec: ServiceSpec) -> None:
    for what, config in (("update", spec.update), ("rollback", spec.rollback)):
        _update_config(what, config)


def _update_config(what: str, config: UpdateConfig) -> None:
    _positive(f"{what} delay", config.delay)
    _positive(f"{what} monitor", config.monitor)
    if not 0 <= config.max_failure_ratio <= 1:
        raise Invalid(f"{what} max failure ratio {config.max_failure_ratio:g} is not between 0 and 1")
    if what == "rollback" and config.failure_action == 2:
        raise Invalid("rollback failure action can't be rollback: pause or continue")


def ports(spec: ServiceSpec) -> None:
    seen: set[tuple[int, str, int]] = set()
    for port in spec.endpoint.ports:
        _port(port)
        key = (port.published_port, port.protocol, port.publish_mode)
        if port.published_port and key in seen:
            raise Invalid(f"port {port.published_port}/{port.protocol} is published twice")
        seen.add(key)
        if spec.endpoint.mode == ENDPOINT_MODE_DNSRR and port.publish_mode == PUBLISH_MODE_INGRESS:
            raise Invalid(
                "endpoint mode dnsrr can't publish ports in ingress mode: use mode=host, or endpoint mode vip"
            )


def _port(port: PortConfig) -> None:
    if port.protocol not in ("tcp", "udp"):
        raise Invalid(f"port protocol {port.protocol!r} is not supported: tcp or udp")
    if not 1 <= port.target_port <= 65535:
        raise Invalid(f"target port {port.target_port} is not between 1 and 65535")
    if port.published_port > 65535:
        raise Invalid(f"published port {port.published_port} is not between 1 and 65535")


def _positive(what: str, value: int) -> None:
    if value < 0:
        raise Invalid(f"{what} is negative: {value / 1e9:g} s")


RULES: tuple[Callable[[ServiceSpec], None], ...] = (
    name,
    mode,
    runtime,
    container,
    log_driver,
    resources,
    restart,
    placement,
    updates,
    ports,
)
