"""From a task to the container that the runtime is asked for.

A setting that this node can't honour is refused by name; nothing is left out in silence.
"""

import re
from collections.abc import Iterable

from swarmd.agent.controller import Refused
from swarmd.proto.objects_pb2 import PUBLISH_MODE_HOST, ContainerSpec, HealthConfig, Task
from swarmd.proto.objects_pb2 import Mount as MountSpec
from swarmd.runtime import log_drivers
from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import (
    BindMount,
    ContainerConfig,
    Dns,
    Health,
    Limits,
    LogConfig,
    Mount,
    Namespaces,
    NetworkRequest,
    PortMapping,
    Security,
    TmpfsMount,
    Ulimit,
)

SECOND = 1_000_000_000
DEFAULT_GRACE = 10.0  # s
SERVICE_ID = "com.docker.swarm.service.id"
TASK_ID = "com.docker.swarm.task.id"
TASK_NAME = "com.docker.swarm.task.name"
_TEMPLATE = re.compile(r"\{\{\s*([^}]*?)\s*\}\}")


def container_name(task: Task) -> str:
    return f"{task.service_name}.{task.slot}.{task.id}"


def container_config(task: Task, hostname: str, own_ids: bool = False) -> ContainerConfig:
    """own_ids: the node can give a container user ids of its own, and does unless told otherwise. Raises Refused."""
    spec = task.spec.container
    words = _words(task, hostname)
    return ContainerConfig(
        image=spec.image,
        entrypoint=tuple(spec.command) or None,
        command=tuple(spec.args) or None,
        env=tuple(_filled(entry, words) for entry in spec.env),
        workdir=spec.dir,
        user=spec.user,
        groups=tuple(spec.groups),
        hostname=_filled(spec.hostname, words),
        labels={**spec.labels, **_labels(task)},
        tty=spec.tty,
        init=spec.init,
        stop_signal=spec.stop_signal,
        stop_timeout=spec.stop_grace_period / SECOND if spec.HasField("stop_grace_period") else DEFAULT_GRACE,
        health=_health(spec.healthcheck) if spec.HasField("healthcheck") else None,
        limits=Limits(
            nano_cpus=task.spec.resources.limits.nano_cpus,
            memory=task.spec.resources.limits.memory_bytes,
            memory_reservation=task.spec.resources.reservations.memory_bytes,
            pids=task.spec.resources.limits.pids,
        ),
        mounts=tuple(_mount(mount, words) for mount in spec.mounts),
        namespaces=Namespaces(user=spec.userns_mode or ("auto" if own_ids else "host")),
        security=_security(spec),
        sysctls=dict(spec.sysctls),
        ulimits=tuple(Ulimit(name=limit.name, soft=limit.soft, hard=limit.hard) for limit in spec.ulimits),
        oom_score_adj=spec.oom_score_adj,
        networks=tuple(_networks(task)),
        ports=tuple(
            PortMapping(container_port=port.target_port, host_port=port.published_port, protocol=port.protocol)
            for port in task.ports
            if port.publish_mode == PUBLISH_MODE_HOST
        ),
        dns=Dns(
            nameservers=tuple(spec.dns_config.nameservers),
            search=tuple(spec.dns_config.search),
            options=tuple(spec.dns_config.options),
        ),
        extra_hosts=tuple(f"{name}:{address}" for address, *names in map(str.split, spec.hosts) for name in names),
        log=_log(task),
    )


def _labels(task: Task) -> dict[str, str]:
    name = container_name(task)
    return {
        "com.docker.swarm.node.id": task.node_id,
        SERVICE_ID: task.service_id,
        "com.docker.swarm.service.name": task.service_name,
        "com.docker.swarm.task": "",
        TASK_ID: task.id,
        TASK_NAME: name,
    }


def _words(task: Task, hostname: str) -> dict[str, str]:
    return {
        ".Service.ID": task.service_id,
        ".Service.Name": task.service_name,
        ".Node.ID": task.node_id,
        ".Node.Hostname": hostname,
        ".Task.ID": task.id,
        ".Task.Name": container_name(task),
        ".Task.Slot": str(task.slot),
    }


def _filled(text: str, words: dict[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        if match[1] not in words:
            raise Refused(f"unknown template {match[0]}: known are {', '.join(words)}")
        return words[match[1]]

    return _TEMPLATE.sub(fill, text)


def _health(config: HealthConfig) -> Health:
    """0 stands for the image's, or the default, as in the Engine API."""
    return Health(
        test=tuple(config.test),
        interval=config.interval / SECOND,
        timeout=config.timeout / SECOND,
        retries=config.retries,
        start_period=config.start_period / SECOND,
        start_interval=config.start_interval / SECOND,
    )


def _mount(mount: MountSpec, words: dict[str, str]) -> Mount:
    if mount.type == "bind":
        return BindMount(
            source=_filled(mount.source, words),
            target=mount.target,
            read_only=mount.read_only,
            propagation=mount.bind_options.propagation or "rprivate",
            recursive=not mount.bind_options.non_recursive,
            create_source=mount.bind_options.create_mountpoint,
        )
    if mount.type == "tmpfs":
        options = mount.tmpfs_options
        return TmpfsMount(
            target=mount.target, size=options.size_bytes, mode=options.mode or 0o1777, read_only=mount.read_only
        )
    raise Refused(f"mounts of type {mount.type!r} are not available: use bind or tmpfs")


def _security(spec: ContainerSpec) -> Security:
    seccomp = spec.privileges.seccomp
    mode = seccomp.mode or "default"
    privileges = spec.privileges
    return Security(
        cap_add=tuple(spec.capability_add),
        cap_drop=tuple(spec.capability_drop),
        no_new_privileges=privileges.no_new_privileges if privileges.HasField("no_new_privileges") else True,
        seccomp=seccomp.profile if mode == "custom" else mode,
        read_only_root=spec.read_only,
    )


def _networks(task: Task) -> Iterable[NetworkRequest]:
    for attachment in task.networks:
        if not attachment.addresses:
            name = attachment.network_name or attachment.network_id
            raise Refused(f"the task has no address on network {name}: update the service with --force to make it anew")
        yield NetworkRequest(
            network=attachment.network_id, address=attachment.addresses[0], aliases=tuple(attachment.aliases)
        )


def _log(task: Task) -> LogConfig:
    driver = task.spec.log_driver
    try:
        return log_drivers.parse(driver.name, driver.options)
    except Invalid as error:
        raise Refused(str(error)) from None
