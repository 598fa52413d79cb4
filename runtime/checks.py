"""What is refused when a container is created rather than when it is started, and what is done otherwise than asked."""

import ipaddress
import os
import re
import resource
import shutil
from pathlib import Path

from swarmd.runtime import cdi, devices, log_drivers, probes, userns
from swarmd.runtime.effective import arguments, capabilities, capability_names, environment, stop_signal
from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import BindMount, ContainerConfig, Limits, Mount, Namespaces, TmpfsMount, Ulimit
from swarmd.runtime.ports import Image
from swarmd.runtime.stages import mounts, syscalls
from swarmd.runtime.stages.privileges import CAPABILITIES

# Only what belongs to a namespace of the container's own.
_NET_SYSCTLS = re.compile(r"net\.[\w./-]+")
_IPC_SYSCTLS = re.compile(r"kernel\.(sem|msg\w+|shm\w+)|fs\.mqueue\.\w+")
_UTS_SYSCTLS = re.compile(r"kernel\.domainname")
_RESTART = re.compile(r"no|always|unless-stopped|on-failure(:\d+)?")
_SHARED = re.compile(r"container:.+")
_MODES = {
    "pid": ("private", "host"),
    "ipc": ("none", "private", "shareable", "host"),
    "uts": ("private", "host"),
    "cgroup": ("private", "host"),
}
_PROBES = ("CMD", "CMD-SHELL", "NONE", *probes.KINDS)
_SYS_RESOURCE = CAPABILITIES.index("CAP_SYS_RESOURCE")
_APPARMOR = Path("/sys/kernel/security/apparmor/profiles")
_LEAST_MEMORY = 6 << 20
_LEAST_QUOTA, _MOST_PERIOD = 1_000, 1_000_000  # us
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_LEAST_CPUS = 10**7  # in billionths: one thousandth of a second in a tenth, the least that the kernel takes
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def check(config: ContainerConfig, image: Image) -> None:
    """Raise Invalid for what can never start."""
    _check_texts(config, image)
    stop_signal(config, image)
    capabilities(config)
    for name in capability_names(config.security.cap_add) - {"CAP_ALL"}:
        if not syscalls.has_capability(CAPABILITIES.index(name)):
            raise Invalid(f"capability {name} can't be added: this host's swarmd lacks it itself")
    _check_namespaces(config)
    _check_runtime(config)
    _check_network(config)
    if config.workdir and not config.workdir.startswith("/"):
        raise Invalid(f"working directory {config.workdir} is not absolute: begin it with /")
    for name in config.sysctls:
        _check_sysctl(name, config)
    for limit in config.ulimits:
        _check_ulimit(limit)
    targets: set[str] = set()
    for mount in config.mounts:
        _check_mount(mount)
        if (target := os.path.normpath(mount.target)) in targets:
            raise Invalid(f"mount target {target} is given twice: leave one of them out")
        targets.add(target)
    _check_limits(config)
    if not -1000 <= config.oom_score_adj <= 1000:
        raise Invalid(f"OOM score adjustment {config.oom_score_adj} is not from -1000 to 1000")
    log_drivers.check_here(config.log)
    devices.rules(config)
    cdi.edits(config.cdi_devices)
    if not _RESTART.fullmatch(config.restart):
        raise Invalid(f"restart policy {config.restart} is none of no, on-failure[:n], always, unless-stopped")
    if config.auto_remove and config.restart != "no":
        raise Invalid(f"restart policy {config.restart} and removal at exit contradict one another: choose one")
    if config.health and config.health.test and config.health.test[0] not in _PROBES:
        raise Invalid(f"health check {config.health.test[0]} is none of {', '.join(_PROBES)}")
    if config.health and config.health.test and config.health.test[0] in probes.KINDS:
        probes.target(config.health.test)
    if config.security.apparmor not in ("", "unconfined") and not _APPARMOR.exists():
        raise Invalid(f"AppArmor profile {config.security.apparmor}: this host's kernel runs without AppArmor")


def _check_texts(config: ContainerConfig, image: Image) -> None:
    """What the kernel is given ends at the first NUL."""
    texts = {
        "command": arguments(config, image),
        "environment": environment("", config, image),
        "working directory": (config.workdir, image.config.workdir),
        "user": (config.user, image.config.user),
        "mounts": [mount.target for mount in config.mounts],
    }
    for what, given in texts.items():
        if any("\0" in text for text in given):
            raise Invalid(f"the {what} of {config.image} can't hold a NUL character: leave it out")


def check_sources(config: ContainerConfig) -> None:
    """Raise Invalid for a mount whose source is not there, and is not to be made."""
    for mount in config.mounts:
        if isinstance(mount, BindMount) and not mount.create_source and not os.path.lexists(mount.source):
            raise Invalid(f"the source {mount.source} of a mount is not on this host: make it first")


def runtime_path(name: str) -> str:
    """The program of another OCI runtime; "" for our own. Raises Invalid when it is not installed."""
    if name in ("", "swarmd"):
        return ""
    found = shutil.which(name)
    if not found:
        raise Invalid(f"runtime {name} is not on this host: install it, or leave it to swarmd's own")
    return found


def _check_runtime(config: ContainerConfig) -> None:
    """What an OCI config can't say, or no runtime but ours does."""
    if not runtime_path(config.runtime):
        return
    lacking = {
        "user ids of its own": userns.wanted_size(config.namespaces.user),
        "clocks of its own": config.namespaces.monotonic or config.namespaces.boottime,
        "an init": config.init,
        "a part of an image as a mount": any(getattr(mount, "subpath", "") for mount in config.mounts),
    }
    if asked := [what for what, wanted in lacking.items() if wanted]:
        raise Invalid(f"{' and '.join(asked)} can't be given by runtime {config.runtime}: leave it to swarmd's own")


def _check_namespaces(config: ContainerConfig) -> None:
    wanted: Namespaces = config.namespaces
    for kind, modes in _MODES.items():
        mode = getattr(wanted, kind)
        if mode not in modes and not (kind in ("pid", "ipc") and _SHARED.fullmatch(mode)):
            also = " or container:NAME" if kind in ("pid", "ipc") else ""
            raise Invalid(f"{kind} namespace mode {mode!r} is none of {', '.join(modes)}{also}")
    if userns.wanted_size(wanted.user) and config.security.privileged:
        raise Invalid("a privileged container can't have ids of its own: use --userns=host, or name its capabilities")
    if wanted.uts == "host" and (config.hostname or config.domainname):
        raise Invalid("a hostname can't be set for a container in the host's UTS namespace")
    if config.network_mode.startswith("container:"):
        for what, given in (("ports", config.ports), ("networks", config.networks), ("hostname", config.hostname)):
            if given:
                raise Invalid(f"{what} can't be given to a container in the network of another: give them to that one")


def _check_network(config: ContainerConfig) -> None:
    for name, most in ((config.hostname, 64), (config.domainname, 64)):
        if len(name) > most:
            raise Invalid(f"host name {name} is longer than {most} characters, the most that Linux knows")
    for address in config.dns.nameservers:
        if not _is_address(address):
            raise Invalid(f"name server {address} is no IP address")
    for entry in config.extra_hosts:
        name, colon, address = entry.partition(":")
        if not name or not colon or (address != "host-gateway" and not _is_address(address)):
            raise Invalid(f"host entry {entry} is not of the form name:address, with an IP address or host-gateway")
    for request in config.networks:
        if request.mac and not _MAC.fullmatch(request.mac):
            raise Invalid(f"MAC address {request.mac} is not of the form 02:42:ac:11:00:02")
        if request.address and not _is_address(request.address.partition("/")[0]):
            raise Invalid(f"address {request.address} on network {request.network} is no IP address")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_sysctl(name: str, config: ContainerConfig) -> None:
    own = {
        _NET_SYSCTLS: config.network_mode != "host",
        _IPC_SYSCTLS: config.namespaces.ipc != "host",
        _UTS_SYSCTLS: config.namespaces.uts != "host",
    }
    if not any(pattern.fullmatch(name) and apart for pattern, apart in own.items()):
        raise Invalid(f"sysctl {name} does not belong to the container's own namespaces")


def _check_ulimit(limit: Ulimit) -> None:
    if not hasattr(resource, f"RLIMIT_{limit.name.upper()}"):
        raise Invalid(f"ulimit {limit.name} is not known")
    if 0 <= limit.hard < limit.soft:
        raise Invalid(f"ulimit {limit.name}: soft limit {limit.soft} is above the hard limit {limit.hard}")


def _check_mount(mount: Mount) -> None:
    if not mount.target.startswith("/") or os.path.normpath(mount.target) == "/":
        raise Invalid(f"mount target {mount.target!r} must be an absolute path other than /")
    if isinstance(mount, BindMount):
        if not mount.source.startswith("/"):
            raise Invalid(f"mount source {mount.source!r} must be an absolute path")
        if mount.propagation.removeprefix("r") not in syscalls.PROPAGATION:
            raise Invalid(f"mount {mount.target}: propagation {mount.propagation!r} is not known")
    if isinstance(mount, TmpfsMount):
        for option in mount.options:
            if not mounts.is_tmpfs_option(option):
                raise Invalid(f"tmpfs {mount.target}: option {option!r} is not known")


def _check_limits(config: ContainerConfig) -> None:
    limits = config.limits
    if 0 < limits.memory < _LEAST_MEMORY:
        raise Invalid(f"memory limit {limits.memory} is too small: a container needs 6 MiB at least")
    if limits.memory_swap > 0 and not limits.memory:
        raise Invalid("a limit of memory and swap together needs one of memory too")
    if 0 < limits.memory_swap < limits.memory:
        raise Invalid("the limit of memory and swap together is below that of memory alone: raise it as well")
    if limits.memory_reservation > limits.memory > 0:
        raise Invalid("the memory reservation is above the memory limit")
    if limits.swappiness is not None and not 0 <= limits.swappiness <= 100:
        raise Invalid(f"swappiness {limits.swappiness} is not from 0 to 100")
    if limits.nano_cpus and (limits.cpu_quota or limits.cpu_period):
        raise Invalid("give a number of CPUs, or a CPU quota and its period, not both")
    if 0 < limits.nano_cpus < _LEAST_CPUS:
        raise Invalid(f"{limits.nano_cpus / 1e9:g} CPUs are too few: a container needs 0.01 at least")
    if limits.nano_cpus > (os.cpu_count() or 1) * 10**9:
        raise Invalid(f"{limits.nano_cpus / 1e9:g} CPUs asked for, but this host has {os.cpu_count()}")
    _check_processors(limits)
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise Invalid(f"block weight {limits.blkio_weight} is not from 10 to 1000")


def _check_processors(limits: Limits) -> None:
    for name, value, least in (
        ("CPU quota", limits.cpu_quota, _LEAST_QUOTA),
        ("CPU period", limits.cpu_period, _LEAST_QUOTA),
        ("CPU shares", limits.cpu_shares, 0),
        ("memory limit", limits.memory, 0),
        ("memory reservation", limits.memory_reservation, 0),
    ):
        if value < least and value != 0 and not (value == -1 and name == "CPU quota"):
            raise Invalid(f"{name} {value} is too small: it is {least} or more")
    if limits.cpu_period > _MOST_PERIOD:
        raise Invalid(f"CPU period {limits.cpu_period} is too long: it is {_MOST_PERIOD} (a second) at most")
    for name, text, there in (
        ("processors", limits.cpuset_cpus, Path("/sys/devices/system/cpu/online")),
        ("memory nodes", limits.cpuset_mems, Path("/sys/devices/system/node/online")),
    ):
        if text and there.exists() and not _numbers(text) <= _numbers(known := there.read_text().strip()):
            raise Invalid(f"{name} {text} are not all on this host, which has {known}")


def _numbers(text: str) -> set[int]:
    """Of "0-2,4"; see cpuset(7), "List format"."""
    found: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if not match:
            raise Invalid(f"{text!r} is no list of numbers such as 0-2,4")
        found |= {*range(int(match[1]), int(match[2] or match[1]) + 1)}
    return found


def warnings(config: ContainerConfig) -> list[str]:
    """One sentence for each thing that will be otherwise than asked."""
    found = []
    for limit in config.ulimits:
        name = f"RLIMIT_{limit.name.upper()}"
        most = resource.getrlimit(getattr(resource, name))[1]
        wanted = resource.RLIM_INFINITY if limit.hard < 0 else limit.hard
        above = most != resource.RLIM_INFINITY and (wanted == resource.RLIM_INFINITY or wanted > most)
        if above and not syscalls.has_capability(_SYS_RESOURCE):
            found.append(f"ulimit {limit.name} will be {most}, not {limit.hard}: swarmd itself lacks CAP_SYS_RESOURCE")
    if config.limits.oom_kill_disable and not config.limits.memory:
        found.append("the OOM killer is off, and no memory limit is set: a leak can stop the whole host")
    if config.network_mode == "host" and config.ports:
        found.append("published ports are of no effect on the host's network")
    return found
