"""Docker's HostConfig, field by field: read into the runtime's configuration, and shown again from it.

What is listed as unsupported is accepted while it asks for nothing; `ignore` lines name what clients always send.
"""

import re
from collections.abc import Callable
from typing import Any

from swarmd.agent.api import mounts
from swarmd.agent.api.fields import Fields
from swarmd.proto.errors import Invalid
from swarmd.runtime import cdi, log_drivers
from swarmd.runtime.model import (
    ContainerConfig,
    ContainerState,
    Device,
    DeviceLimit,
    DeviceRule,
    Dns,
    Limits,
    Link,
    LogConfig,
    Mount,
    Namespaces,
    PortMapping,
    Security,
    Ulimit,
)

_WINDOWS = ("CpuCount", "CpuPercent", "IOMaximumBandwidth", "IOMaximumIOps", "Isolation")
UNSUPPORTED = {
    **dict.fromkeys(_WINDOWS, "it is for Windows containers"),
    **dict.fromkeys(("KernelMemory", "KernelMemoryTCP"), "Linux has no such limit any more: Memory counts all"),
    "Cgroup": "",
    "CgroupParent": "all containers are in swarmd's own group, which its --cgroup-parent names",
    "StorageOpt": "the overlay of an ordinary file system has no quota",
    "VolumeDriver": "there are no volumes yet: bind a directory of the host",
}
_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
_DEVICE_RULE = re.compile(r"([abc]) (\d{1,10}|\*):(\d{1,10}|\*) ([rwm]{1,3})", re.ASCII)
_HOST_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_RATES = {
    "BlkioDeviceReadBps": "blkio_read_bps",
    "BlkioDeviceWriteBps": "blkio_write_bps",
    "BlkioDeviceReadIOps": "blkio_read_iops",
    "BlkioDeviceWriteIOps": "blkio_write_iops",
}

Inspect = Callable[[str], ContainerState]


def read(host: Fields, inspect: Inspect) -> dict[str, Any]:
    """The part of the configuration that Docker keeps in HostConfig, by its name in ContainerConfig."""
    host.ignore("Isolation", "default")
    host.ignore("VolumeDriver", "local")
    host.text("ContainerIDFile")  # the client's own business
    return {
        "groups": host.texts("GroupAdd"),
        "init": host.flag("Init"),
        "limits": limits(host),
        "mounts": _mounts(host, inspect),
        "security": _security(host),
        "namespaces": _namespaces(host),
        "devices": _devices(host),
        "device_rules": tuple(_device_rule(text) for text in host.texts("DeviceCgroupRules")),
        "cdi_devices": _device_requests(host),
        "sysctls": host.mapping("Sysctls"),
        "ulimits": _ulimits(host),
        "oom_score_adj": host.number("OomScoreAdj"),
        "shm_size": host.number("ShmSize"),
        "network_mode": host.text("NetworkMode"),
        "ports": _ports(host),
        "publish_all": host.flag("PublishAllPorts"),
        "links": tuple(map(link, host.texts("Links"))),
        "dns": Dns(nameservers=host.texts("Dns"), search=host.texts("DnsSearch"), options=host.texts("DnsOptions")),
        "extra_hosts": host.texts("ExtraHosts"),
        "log": _log(host),
        "restart": restart(host),
        "auto_remove": host.flag("AutoRemove"),
        "runtime": host.text("Runtime"),
        "annotations": _annotations(host),
        "console_size": _console_size(host),
    }


def limits(host: Fields) -> Limits:
    """Docker's Resources; also the body of an update."""
    swappiness = host.number("MemorySwappiness", -1)
    rates = {ours: _per_device(host, theirs, "Rate") for theirs, ours in _RATES.items()}
    return Limits(
        nano_cpus=host.number("NanoCpus"),
        cpu_period=host.number("CpuPeriod"),
        cpu_quota=host.number("CpuQuota"),
        cpu_shares=host.number("CpuShares"),
        realtime_period=host.number("CpuRealtimePeriod"),
        realtime_runtime=host.number("CpuRealtimeRuntime"),
        cpuset_cpus=host.text("CpusetCpus"),
        cpuset_mems=host.text("CpusetMems"),
        memory=host.number("Memory"),
        memory_reservation=host.number("MemoryReservation"),
        memory_swap=host.number("MemorySwap"),
        swappiness=None if swappiness < 0 else swappiness,
        oom_kill_disable=host.flag("OomKillDisable"),
        pids=max(0, host.number("PidsLimit")),
        blkio_weight=host.number("BlkioWeight"),
        blkio_weight_device=_per_device(host, "BlkioWeightDevice", "Weight"),
        **rates,
    )


def _per_device(host: Fields, name: str, key: str) -> tuple[DeviceLimit, ...]:
    found = []
    for fields in host.parts(name):
        with fields:
            found.append(DeviceLimit(path=fields.text("Path"), value=fields.number(key)))
    return tuple(found)


def _mounts(host: Fields, inspect: Inspect) -> tuple[Mount, ...]:
    """Its own, and those of other containers where it has none itself."""
    own = (*mounts.binds(host.texts("Binds")), *mounts.tmpfs(host.mapping("Tmpfs")), *mounts.mounts(host))
    targets = {mount.target for mount in own}
    borrowed = [mount for text in host.texts("VolumesFrom") for mount in mounts.borrowed(text, inspect)]
    return (*(mount for mount in borrowed if mount.target not in targets), *own)


def _security(host: Fields) -> Security:
    seccomp, apparmor, no_new_privileges = "default", "", False
    masked, read_only = _paths(host, "MaskedPaths"), _paths(host, "ReadonlyPaths")
    for option in host.texts("SecurityOpt"):
        name, value = (*re.split("[=:]", option, maxsplit=1), "")[:2]
        if name == "no-new-privileges" and value in ("", "true", "false"):
            no_new_privileges = value != "false"
        elif name == "seccomp" and value:
            seccomp = "default" if value == "builtin" else value
        elif name == "apparmor" and value:
            apparmor = value
        elif option == "systempaths=unconfined":
            masked, read_only = (), ()
        elif option not in ("label=disable", "disable"):  # there is no SELinux here to turn off
            known = "no-new-privileges, seccomp=PROFILE, apparmor=PROFILE, systempaths=unconfined"
            raise Invalid(f"security option {option} is not supported: use {known}")
    return Security(
        cap_add=host.texts("CapAdd"),
        cap_drop=host.texts("CapDrop"),
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        apparmor=apparmor,
        privileged=host.flag("Privileged"),
        read_only_root=host.flag("ReadonlyRootfs"),
        masked_paths=masked,
        readonly_paths=read_only,
    )


def _paths(host: Fields, name: str) -> tuple[str, ...] | None:
    return host.texts(name) if host.has(name) else None


def _namespaces(host: Fields) -> Namespaces:
    with host.part("TimeOffsets") as clocks:
        monotonic, boottime = clocks.number("Monotonic") / 1e9, clocks.number("Boottime") / 1e9
    return Namespaces(
        pid=host.text("PidMode") or "private",
        ipc=host.text("IpcMode") or "private",
        uts=host.text("UTSMode") or "private",
        cgroup=host.text("CgroupnsMode") or "private",
        user=host.text("UsernsMode"),
        monotonic=monotonic,
        boottime=boottime,
    )


def _devices(host: Fields) -> tuple[Device, ...]:
    found = []
    for fields in host.parts("Devices"):
        with fields:
            source, access = fields.text("PathOnHost"), fields.text("CgroupPermissions") or "rwm"
            target = fields.text("PathInContainer") or source
        if not access or set(access) - set("rwm"):
            raise Invalid(f"device {source}: permissions {access!r} are letters of rwm")
        found.append(Device(source=source, target=target, access=access))
    return tuple(found)


def _device_rule(text: str) -> DeviceRule:
    match = _DEVICE_RULE.fullmatch(text)
    if not match:
        raise Invalid(f"device rule {text!r} is not of the form 'c 10:229 rwm'")
    major, minor = (None if number == "*" else int(number) for number in match.group(2, 3))
    return DeviceRule(kind=match[1], major=major, minor=minor, access=match[4])


def _device_requests(host: Fields) -> tuple[str, ...]:
    """Devices by name of the Container Device Interface; GPUs by how many, or by which."""
    names: list[str] = []
    for fields in host.parts("DeviceRequests"):
        with fields:
            driver, count, ids = fields.text("Driver"), fields.number("Count"), fields.texts("DeviceIDs")
            capabilities = fields.lists("Capabilities")
            fields.mapping("Options")
        if driver == "cdi":
            names += ids
        elif driver in ("", "nvidia") and any("gpu" in words for words in capabilities):
            names += cdi.gpus(count, ids)
        else:
            raise Invalid(f"device driver {driver!r} with capabilities {capabilities} is not known: use cdi, or gpu")
    return tuple(names)


def _ulimits(host: Fields) -> tuple[Ulimit, ...]:
    found = []
    for fields in host.parts("Ulimits"):
        with fields:
            found.append(Ulimit(name=fields.text("Name"), soft=fields.number("Soft"), hard=fields.number("Hard")))
    return tuple(found)


def _ports(host: Fields) -> tuple[PortMapping, ...]:
    bindings = host.raw("PortBindings")
    ports: list[PortMapping] = []
    for key in bindings:
        number, protocol = port(key)
        if protocol == "sctp":
            raise Invalid(f"port {key} can't be published: only tcp and udp lead to containers")
        for binding in Fields(bindings, "HostConfig.PortBindings").parts(key) or [Fields({})]:
            with binding:
                host_ip, (first, last) = binding.text("HostIp"), _host_port(binding.text("HostPort"))
            ports.append(
                PortMapping(
                    container_port=number, host_port=first, host_port_end=last, protocol=protocol, host_ip=host_ip
                ),
            )
    return tuple(ports)


def port(text: str) -> tuple[int, str]:
    """Of "80/tcp" or "80"."""
    match = _PORT.fullmatch(text)
    if not match or not 0 < int(match[1]) < 65536:
        raise Invalid(f"port {text!r} is not of the form 80/tcp or 53/udp")
    return int(match[1]), (match[2] or "tcp").lower()


def link(text: str) -> Link:
    """Of "db" or "db:database"."""
    container, _, alias = text.removeprefix("/").partition(":")
    if not container:
        raise Invalid(f"link {text!r} names no container: write it as name or name:alias")
    return Link(container=container, alias=alias.rpartition("/")[2] or container)


def _host_port(text: str) -> tuple[int, int]:
    """The port, or the first of a range and its last."""
    match = _HOST_PORT.fullmatch(text or "0")
    first, last = (int(match[1]), int(match[2] or 0)) if match else (65536, 0)
    if max(first, last) > 65535 or (last and not 0 < first <= last):
        raise Invalid(f"host port {text!r} is no port: it is a number from 0 to 65535, or two as in 8000-8010")
    return first, last if last > first else 0


def _log(host: Fields) -> LogConfig:
    with host.part("LogConfig") as log:
        return log_drivers.parse(log.text("Type"), log.mapping("Config"))


def restart(host: Fields) -> str:
    with host.part("RestartPolicy") as policy:
        name, retries = policy.text("Name") or "no", policy.number("MaximumRetryCount")
    if name not in ("no", "always", "unless-stopped", "on-failure"):
        raise Invalid(f"restart policy {name} is unknown: use no, always, unless-stopped or on-failure")
    if retries and name != "on-failure":
        raise Invalid(f"restart policy {name} has no maximum of retries: that is on-failure's")
    if retries < 0:
        raise Invalid(f"{retries} retries are fewer than none")
    return f"{name}:{retries}" if retries else name


def _annotations(host: Fields) -> dict[str, str]:
    found = host.mapping("Annotations")
    for key in found:
        if not key or key.startswith("swarmd."):
            raise Invalid(f"annotation {key!r} can't be set: names that begin with swarmd. are the runtime's own")
    return found


def _console_size(host: Fields) -> tuple[int, int]:
    size = host.numbers("ConsoleSize")
    if size and len(size) != 2:
        raise Invalid("field HostConfig.ConsoleSize is a height and a width")
    return (size[0], size[1]) if size else (0, 0)


# Shown


def shown(config: ContainerConfig) -> dict[str, Any]:
    """HostConfig, as Docker's clients read it."""
    security, spaces = config.security, config.namespaces
    name, _, retries = config.restart.partition(":")
    return {
        "Binds": [mounts.bind_text(mount) for mount in config.mounts if mounts.is_bind(mount)] or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": config.log.driver, "Config": log_drivers.shown(config.log)},
        "NetworkMode": config.networks[0].network if config.networks else config.network_mode,
        "PortBindings": bindings(config.ports),
        "RestartPolicy": {"Name": name, "MaximumRetryCount": int(retries or 0)},
        "AutoRemove": config.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": None,
        "ConsoleSize": list(config.console_size),
        "Annotations": config.annotations,
        "CapAdd": list(security.cap_add) or None,
        "CapDrop": list(security.cap_drop) or None,
        "CgroupnsMode": spaces.cgroup,
        "Dns": list(config.dns.nameservers),
        "DnsOptions": list(config.dns.options),
        "DnsSearch": list(config.dns.search),
        "ExtraHosts": list(config.extra_hosts) or None,
        "GroupAdd": list(config.groups) or None,
        "IpcMode": spaces.ipc,
        "Cgroup": "",
        "Links": [f"{link.container}:{link.alias}" for link in config.links] or None,
        "OomScoreAdj": config.oom_score_adj,
        "PidMode": "" if spaces.pid == "private" else spaces.pid,
        "Privileged": security.privileged,
        "PublishAllPorts": config.publish_all,
        "ReadonlyRootfs": security.read_only_root,
        "SecurityOpt": _security_options(security),
        "UTSMode": "" if spaces.uts == "private" else spaces.uts,
        "UsernsMode": spaces.user,
        "TimeOffsets": {"Monotonic": round(spaces.monotonic * 1e9), "Boottime": round(spaces.boottime * 1e9)},
        "ShmSize": config.shm_size or 64 << 20,
        "Sysctls": config.sysctls,
        "Runtime": config.runtime or "swarmd",
        "Isolation": "",
        "Init": config.init,
        "Mounts": [mounts.specified(mount) for mount in config.mounts if not mounts.is_bind(mount)],
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in config.ulimits],
        "Devices": [
            {"PathOnHost": d.source, "PathInContainer": d.target, "CgroupPermissions": d.access} for d in config.devices
        ],
        "DeviceCgroupRules": [_rule_text(rule) for rule in config.device_rules] or None,
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": list(config.cdi_devices)}] if config.cdi_devices else None,
        "MaskedPaths": None if security.masked_paths is None else list(security.masked_paths),
        "ReadonlyPaths": None if security.readonly_paths is None else list(security.readonly_paths),
        **limits_shown(config.limits),
    }


def limits_shown(limits: Limits) -> dict[str, Any]:
    return {
        "NanoCpus": limits.nano_cpus,
        "CpuPeriod": limits.cpu_period,
        "CpuQuota": limits.cpu_quota,
        "CpuShares": limits.cpu_shares,
        "CpuRealtimePeriod": limits.realtime_period,
        "CpuRealtimeRuntime": limits.realtime_runtime,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "CgroupParent": "",
        "Memory": limits.memory,
        "MemoryReservation": limits.memory_reservation,
        "MemorySwap": limits.memory_swap or 2 * limits.memory,
        "MemorySwappiness": limits.swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids or None,
        "BlkioWeight": limits.blkio_weight,
        "BlkioWeightDevice": [{"Path": d.path, "Weight": d.value} for d in limits.blkio_weight_device],
        **{theirs: _rates(getattr(limits, ours)) for theirs, ours in _RATES.items()},
    }


def _rates(limits: tuple[DeviceLimit, ...]) -> list[dict[str, Any]]:
    return [{"Path": limit.path, "Rate": limit.value} for limit in limits]


def _security_options(security: Security) -> list[str] | None:
    found = ["no-new-privileges"] if security.no_new_privileges else []
    found += [f"seccomp={security.seccomp}"] if security.seccomp != "default" else []
    found += [f"apparmor={security.apparmor}"] if security.apparmor else []
    return found or None


def _rule_text(rule: DeviceRule) -> str:
    major, minor = ("*" if number is None else number for number in (rule.major, rule.minor))
    return f"{rule.kind} {major}:{minor} {rule.access}"


def bindings(ports: tuple[PortMapping, ...]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for mapped in ports:
        last = f"-{mapped.host_port_end}" if mapped.host_port_end else ""
        binding = {"HostIp": mapped.host_ip, "HostPort": f"{mapped.host_port or ''}{last}"}
        found.setdefault(f"{mapped.container_port}/{mapped.protocol}", []).append(binding)
    return found
