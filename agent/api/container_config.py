"""Docker's body of POST /containers/create, read into the runtime's ContainerConfig.

Read top to bottom beside the Engine API's ContainerConfig, HostConfig and NetworkingConfig.  What is listed as
unsupported is accepted while it asks for nothing; `ignore` lines name the defaults that Docker's clients always send.
"""

import re
from typing import Any

from swarmd.agent.api.fields import Fields
from swarmd.proto.errors import Invalid
from swarmd.runtime.model import (
    BindMount,
    ContainerConfig,
    Dns,
    Health,
    Limits,
    LogConfig,
    Mount,
    NetworkRequest,
    PortMapping,
    Security,
    TmpfsMount,
    Ulimit,
)

_UNSUPPORTED = frozenset(
    {"ArgsEscaped", "AttachStdin", "Domainname", "MacAddress", "NetworkDisabled", "OnBuild", "Shell", "StdinOnce"}
)
_HOST_UNSUPPORTED = frozenset(
    {
        *("Annotations", "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps", "BlkioDeviceWriteIOps"),
        *("BlkioWeight", "BlkioWeightDevice", "Cgroup", "CgroupParent", "CgroupnsMode", "ContainerIDFile", "CpuCount"),
        *("CpuPercent", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime", "CpusetCpus"),
        *("CpusetMems", "DeviceCgroupRules", "DeviceRequests", "Devices", "IOMaximumBandwidth", "IOMaximumIOps"),
        *("IpcMode", "Isolation", "KernelMemory", "KernelMemoryTCP", "Links", "MaskedPaths", "MemorySwappiness"),
        *("OomKillDisable", "PidMode", "PublishAllPorts", "ReadonlyPaths", "Runtime", "ShmSize", "StorageOpt"),
        *("UTSMode", "UsernsMode", "VolumeDriver", "VolumesFrom"),
    }
)
_ENDPOINT_UNSUPPORTED = frozenset(
    {
        *("DNSNames", "DriverOpts", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "GwPriority"),
        *("IPAMConfig", "IPAddress", "IPPrefixLen", "IPv6Gateway", "Links", "MacAddress", "NetworkID"),
    }
)
_MODES = frozenset({"bridge", "none", "host"})
_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp))?")


def container_config(body: object) -> ContainerConfig:
    """Raise Invalid naming the field that is unknown, malformed, or asks for what the runtime cannot do."""
    with Fields(body, unsupported=_UNSUPPORTED) as fields:
        with fields.part("HostConfig", _HOST_UNSUPPORTED) as host:
            ready = _from_host(host)
        for output in ("AttachStdout", "AttachStderr"):
            fields.flag(output)  # whether the client means to attach; logs are kept in any case
        fields.raw("ExposedPorts")  # documentation only: a bridge's ports are open to its own containers
        _no_anonymous_volumes(fields)
        networks = _networks(fields, ready["network_mode"])
        return ContainerConfig(
            image=_required(fields.text("Image")),
            entrypoint=fields.text_or_texts("Entrypoint") if fields.has("Entrypoint") else None,
            command=fields.text_or_texts("Cmd") if fields.has("Cmd") else None,
            env=fields.texts("Env"),
            workdir=fields.text("WorkingDir"),
            user=fields.text("User"),
            hostname=fields.text("Hostname"),
            labels=fields.mapping("Labels"),
            tty=fields.flag("Tty"),
            open_stdin=fields.flag("OpenStdin"),
            stop_signal=fields.text("StopSignal"),
            stop_timeout=float(fields.number("StopTimeout", 10)),
            health=_health(fields) if fields.has("Healthcheck") else None,
            networks=networks,
            **(ready | {"network_mode": ready["network_mode"] if ready["network_mode"] in _MODES else "bridge"}),
        )


def _from_host(host: Fields) -> dict[str, Any]:
    """The part of the configuration that Docker keeps in HostConfig, by its name in ContainerConfig."""
    host.ignore("MemorySwappiness", -1)
    host.ignore("ConsoleSize", [0, 0])
    host.ignore("CgroupnsMode", "private")
    host.ignore("IpcMode", "private")
    host.ignore("Isolation", "default")
    host.ignore("VolumeDriver", "local")
    return {
        "groups": host.texts("GroupAdd"),
        "init": host.flag("Init"),
        "limits": Limits(
            nano_cpus=host.number("NanoCpus"),
            memory=host.number("Memory"),
            memory_reservation=host.number("MemoryReservation"),
            memory_swap=host.number("MemorySwap"),
            pids=max(0, host.number("PidsLimit")),
            cpu_shares=host.number("CpuShares"),
        ),
        "mounts": (*_binds(host), *_tmpfs(host), *_mounts(host)),
        "security": _security(host),
        "sysctls": host.mapping("Sysctls"),
        "ulimits": _ulimits(host),
        "oom_score_adj": host.number("OomScoreAdj"),
        "network_mode": host.text("NetworkMode"),
        "ports": _ports(host),
        "dns": Dns(nameservers=host.texts("Dns"), search=host.texts("DnsSearch"), options=host.texts("DnsOptions")),
        "extra_hosts": host.texts("ExtraHosts"),
        "log": _log(host),
        "restart": _restart(host),
        "auto_remove": host.flag("AutoRemove"),
    }


def _required(image: str) -> str:
    if not image:
        raise Invalid("field Image is required: name the image to run")
    return image


def _no_anonymous_volumes(fields: Fields) -> None:
    for target in fields.raw("Volumes"):
        raise Invalid(f"unsupported field Volumes.{target}: bind a host directory there instead")


def _health(fields: Fields) -> Health:
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
    return fields.number(name) / 1e9 or default


def _security(host: Fields) -> Security:
    seccomp, no_new_privileges = "default", False
    for option in host.texts("SecurityOpt"):
        name, _, value = option.replace(":", "=", 1).partition("=")
        if name == "no-new-privileges" and value in ("", "true", "false"):
            no_new_privileges = value != "false"
        elif name == "seccomp" and value:
            seccomp = "default" if value == "builtin" else value
        else:
            raise Invalid(f"unsupported security option {option}: use no-new-privileges or seccomp=PROFILE")
    return Security(
        cap_add=host.texts("CapAdd"),
        cap_drop=host.texts("CapDrop"),
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        privileged=host.flag("Privileged"),
        read_only_root=host.flag("ReadonlyRootfs"),
    )


def _binds(host: Fields) -> list[Mount]:
    """Binds: source:target[:options]."""
    mounts: list[Mount] = []
    for text in host.texts("Binds"):
        source, target, options = (*text.split(":", 2), "", "")[:3]
        if not (source.startswith("/") and target.startswith("/")):
            raise Invalid(f"bind {text}: write it as /host/path:/container/path[:ro] (named volumes are not supported)")
        words = set(filter(None, options.split(",")))
        propagation = words & {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
        for unknown in words - propagation - {"ro", "rw"}:
            raise Invalid(f"bind {text}: unsupported option {unknown}")
        mounts.append(
            BindMount(
                source=source,
                target=target,
                read_only="ro" in words,
                propagation=next(iter(propagation), "rprivate"),
                create_source=True,
            )
        )
    return mounts


def _tmpfs(host: Fields) -> list[Mount]:
    """Tmpfs: {target: "size=64m,mode=1777"}."""
    mounts: list[Mount] = []
    for target, text in host.mapping("Tmpfs").items():
        options = dict((*word.partition("=")[::2],) for word in text.split(",") if word)
        read_only = options.pop("ro", None) is not None
        size, mode = _bytes(options.pop("size", "0")), int(options.pop("mode", "1777"), 8)
        for always in ("rw", "noexec", "nosuid", "nodev"):
            options.pop(always, None)
        for unknown in options:
            raise Invalid(f"tmpfs {target}: unsupported option {unknown}")
        mounts.append(TmpfsMount(target=target, size=size, mode=mode, read_only=read_only))
    return mounts


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([kmg]?)", text.lower())
    if not match:
        raise Invalid(f"tmpfs size {text!r} is no size: write it as 64m")
    return int(match[1]) << 10 * " kmg".index(match[2] or " ")


def _mounts(host: Fields) -> list[Mount]:
    mounts: list[Mount] = []
    for fields in host.parts("Mounts", ("VolumeOptions", "ImageOptions", "Consistency", "ClusterOptions")):
        with fields:
            fields.ignore("Consistency", "default")
            mounts.append(_mount(fields))
    return mounts


def _mount(fields: Fields) -> Mount:
    kind, target, read_only = fields.text("Type"), fields.text("Target"), fields.flag("ReadOnly")
    with (
        fields.part("BindOptions", ("ReadOnlyNonRecursive", "ReadOnlyForceRecursive")) as bind,
        fields.part("TmpfsOptions", ("Options",)) as tmpfs,
    ):
        if kind == "bind":
            return BindMount(
                source=fields.text("Source"),
                target=target,
                read_only=read_only,
                propagation=bind.text("Propagation") or "rprivate",
                recursive=not bind.flag("NonRecursive"),
                create_source=bind.flag("CreateMountpoint"),
            )
        if kind == "tmpfs":
            size, mode = tmpfs.number("SizeBytes"), tmpfs.number("Mode") or 0o1777
            return TmpfsMount(target=target, size=size, mode=mode, read_only=read_only)
    raise Invalid(f"field {fields.path('Type')} must be bind or tmpfs, not {kind!r}")


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
        match = _PORT.fullmatch(key)
        if not match or not 0 < int(match[1]) < 65536:
            raise Invalid(f"field HostConfig.PortBindings has {key!r}: write it as 80/tcp")
        for binding in Fields(bindings, "HostConfig.PortBindings").parts(key) or [Fields({})]:
            with binding:
                host_ip, host_port = binding.text("HostIp"), binding.text("HostPort")
                ports.append(
                    PortMapping(
                        container_port=int(match[1]),
                        host_port=_host_port(host_port),
                        protocol=match[2] or "tcp",
                        host_ip=host_ip,
                    )
                )
    return tuple(ports)


def _host_port(text: str) -> int:
    if text and not (text.isdigit() and int(text) < 65536):
        raise Invalid(f"host port {text!r} is no port: it is a number from 0 to 65535")
    return int(text or 0)


def _log(host: Fields) -> LogConfig:
    with host.part("LogConfig") as log:
        driver = log.text("Type") or "json-file"
        options = log.mapping("Config")
    if driver not in ("json-file", "none"):
        raise Invalid(f"log driver {driver} is not supported: use json-file or none")
    size, files = options.pop("max-size", ""), options.pop("max-file", "")
    for unknown in options:
        raise Invalid(f"log option {unknown} is not supported: use max-size and max-file")
    default = LogConfig()
    return LogConfig(
        driver=driver,
        max_size=_bytes(size) if size else default.max_size,
        max_file=int(files) if files.isdigit() else default.max_file,
    )


def _restart(host: Fields) -> str:
    with host.part("RestartPolicy") as policy:
        name, retries = policy.text("Name") or "no", policy.number("MaximumRetryCount")
    if name not in ("no", "always", "unless-stopped", "on-failure"):
        raise Invalid(f"restart policy {name} is unknown: use no, always, unless-stopped or on-failure")
    return f"{name}:{retries}" if name == "on-failure" and retries else name


def _networks(fields: Fields, mode: str) -> tuple[NetworkRequest, ...]:
    """The networks to join: those of EndpointsConfig, or the one that NetworkMode names."""
    with fields.part("NetworkingConfig") as networking:
        endpoints = networking.raw("EndpointsConfig")
    requests: list[NetworkRequest] = []
    for name, endpoint in endpoints.items():
        with Fields(endpoint or {}, f"NetworkingConfig.EndpointsConfig.{name}", _ENDPOINT_UNSUPPORTED) as wanted:
            aliases = wanted.texts("Aliases")
        if name not in (*_MODES, "default"):
            requests.append(NetworkRequest(network=name, aliases=aliases))
    if mode not in (*_MODES, "", "default", *endpoints):
        requests.append(NetworkRequest(network=mode))
    return tuple(requests)
