"""Turns what a container is asked to be into the OCI config.json that its shim runs.

What the OCI specification has no place for stands in `annotations` under "swarmd.": the image's layers, the cgroup's
files, the user by name (only the container's own passwd file can resolve it), the log.
"""

import json
import os
import re
import resource
import signal
from pathlib import Path
from typing import Any

import msgspec

from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import BindMount, ContainerConfig, Health, Mount, TmpfsMount
from swarmd.runtime.ports import Image, Sandbox
from swarmd.runtime.stages import syscalls
from swarmd.runtime.stages.privileges import CAPABILITIES, DEFAULT_PATH

DEFAULT_CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID"),
        *("SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)
_MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# Only what belongs to a namespace of the container's own.
_SYSCTLS = re.compile(r"kernel\.(sem|msg\w+|shm\w+)|fs\.mqueue\.\w+|net\.[\w.]+")
_RESTART = re.compile(r"no|always|unless-stopped|on-failure(:\d+)?")
_SHM_SIZE = 64 * 1024 * 1024


def check(config: ContainerConfig, image: Image) -> None:
    """Raise Invalid for what can never start, so that it is refused when it is created."""
    arguments(config, image)
    stop_signal(config, image)
    capabilities(config)
    for name in _names(config.security.cap_add) - {"CAP_ALL"}:
        if not syscalls.has_capability(CAPABILITIES.index(name)):
            raise Invalid(f"capability {name} can't be added: this host's swarmd lacks it itself")
    for name in config.sysctls:
        if not _SYSCTLS.fullmatch(name) or (name.startswith("net.") and config.network_mode == "host"):
            raise Invalid(f"sysctl {name} does not belong to the container's own namespaces")
    for limit in config.ulimits:
        if not hasattr(resource, f"RLIMIT_{limit.name.upper()}"):
            raise Invalid(f"ulimit {limit.name} is not known")
        if 0 <= limit.hard < limit.soft:
            raise Invalid(f"ulimit {limit.name}: soft limit {limit.soft} is above the hard limit {limit.hard}")
    for mount in config.mounts:
        _check_mount(mount)
    if not _RESTART.fullmatch(config.restart):
        raise Invalid(f"restart policy {config.restart} is none of no, on-failure[:n], always, unless-stopped")
    if config.log.driver not in ("json-file", "none"):
        raise Invalid(f"log driver {config.log.driver} is neither json-file nor none")


def _check_mount(mount: Mount) -> None:
    if not mount.target.startswith("/") or os.path.normpath(mount.target) == "/":
        raise Invalid(f"mount target {mount.target!r} must be an absolute path other than /")
    if isinstance(mount, BindMount) and not mount.source.startswith("/"):
        raise Invalid(f"mount source {mount.source!r} must be an absolute path")


def arguments(config: ContainerConfig, image: Image) -> tuple[str, ...]:
    """Return what is run: a given entrypoint drops the image's command too, as in Docker."""
    if config.entrypoint is not None:
        found = config.entrypoint + (config.command or ())
    else:
        found = image.config.entrypoint + (image.config.cmd if config.command is None else config.command)
    if not found:
        raise Invalid(f"image {config.image} names no command, and none was given")
    return found


def stop_signal(config: ContainerConfig, image: Image) -> int:
    name = config.stop_signal or image.config.stop_signal or "SIGTERM"
    if name.isdigit() and int(name) in signal.valid_signals():
        return int(name)
    try:
        return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        raise Invalid(f"stop signal {name} is not known") from None


def health(config: ContainerConfig, image: Image) -> Health | None:
    """The probe to run: the container's own, with the image's test when it names none; None for NONE."""
    found = config.health or image.config.health
    if found and not found.test and image.config.health:
        found = msgspec.structs.replace(found, test=image.config.health.test)
    return found if found and found.test and found.test[0] != "NONE" else None


def capabilities(config: ContainerConfig) -> frozenset[str]:
    if config.security.privileged:
        return frozenset(CAPABILITIES)
    added, dropped = _names(config.security.cap_add), _names(config.security.cap_drop)
    base = frozenset[str]() if "CAP_ALL" in dropped else DEFAULT_CAPABILITIES - dropped
    return frozenset(CAPABILITIES) - dropped if "CAP_ALL" in added else base | added


def _names(given: tuple[str, ...]) -> frozenset[str]:
    names = frozenset(name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}" for name in given)
    if unknown := names - frozenset(CAPABILITIES) - {"CAP_ALL"}:
        raise Invalid(f"capability {min(unknown)} is not known")
    return names


def build(
    id: str, directory: Path, config: ContainerConfig, image: Image, sandbox: Sandbox, procs: list[str], bpf: bool
) -> dict[str, Any]:
    """Return config.json for one start; directory holds the container's own files."""
    return {
        "ociVersion": "1.0.2",
        "hostname": hostname(id, config),
        "root": {"path": "rootfs", "readonly": config.security.read_only_root},
        "process": _process(id, config, image),
        "mounts": [*_system_mounts(config), *_file_mounts(directory), *_user_mounts(config)],
        "linux": _linux(id, config, sandbox),
        "annotations": _annotations(directory, config, image, procs, bpf),
    }


def hostname(id: str, config: ContainerConfig) -> str:
    return config.hostname or id[:12]


def _process(id: str, config: ContainerConfig, image: Image) -> dict[str, Any]:
    given = [*image.config.env, f"HOSTNAME={hostname(id, config)}", *config.env]
    env = {"PATH": DEFAULT_PATH} | ({"TERM": "xterm"} if config.tty else {})
    env |= dict(entry.partition("=")[::2] for entry in given)
    allowed = sorted(capabilities(config), key=CAPABILITIES.index)
    limits = ((f"RLIMIT_{u.name.upper()}", u.soft, u.hard) for u in config.ulimits)
    return {
        "terminal": config.tty,
        "user": {"uid": 0, "gid": 0},
        "args": list(arguments(config, image)),
        "env": [f"{key}={value}" for key, value in env.items()],
        "cwd": config.workdir or image.config.workdir or "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), allowed),
        "rlimits": [{"type": name, "soft": soft, "hard": hard} for name, soft, hard in limits],
        "noNewPrivileges": config.security.no_new_privileges,
        "oomScoreAdj": config.oom_score_adj,
    }


def _system_mounts(config: ContainerConfig) -> list[dict[str, Any]]:
    plain = ["nosuid", "noexec", "nodev"]
    system = ["rw"] if config.security.privileged else ["ro"]
    # Each device in it is a mount of its own, see stages/init.py; only a privileged container may make more.
    dev = ["nosuid", "mode=755", "size=65536k", *([] if config.security.privileged else ["nodev"])]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": plain},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": dev},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*plain, *system]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": plain},
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*plain, "mode=1777", f"size={_SHM_SIZE}"],
        },
    ]


def _file_mounts(directory: Path) -> list[dict[str, Any]]:
    return [
        {"destination": f"/etc/{name}", "type": "bind", "source": str(directory / name), "options": ["bind"]}
        for name in ("hostname", "hosts", "resolv.conf")
    ]


def _user_mounts(config: ContainerConfig) -> list[dict[str, Any]]:
    # Parents before what is mounted below them.
    return [
        _mount(mount, config.security.privileged)
        for mount in sorted(config.mounts, key=lambda m: os.path.normpath(m.target).count("/"))
    ]


def _mount(mount: Mount, devices: bool) -> dict[str, Any]:
    access = "ro" if mount.read_only else "rw"
    if isinstance(mount, TmpfsMount):
        size = [f"size={mount.size}"] if mount.size else []
        options = ["nosuid", "nodev", "noexec", access, f"mode={mount.mode:o}", *size]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    # Else a program that may mknod would make itself the host's disk there; cgroup v2 alone would not stop it.
    options = ["rbind" if mount.recursive else "bind", access, mount.propagation, "dev" if devices else "nodev"]
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": options}


def _linux(id: str, config: ContainerConfig, sandbox: Sandbox) -> dict[str, Any]:
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")]
    if sandbox.netns_path:
        namespaces.append({"type": "network", "path": sandbox.netns_path})
    covered = not config.security.privileged
    return {
        "namespaces": namespaces,
        "cgroupsPath": f"/swarmd/{id}",
        "sysctl": config.sysctls,
        "maskedPaths": list(_MASKED) if covered else [],
        "readonlyPaths": list(_READ_ONLY) if covered else [],
        "devices": [] if covered else _host_devices(),
    }


def _host_devices() -> list[dict[str, Any]]:
    apart = ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx")
    return [
        {
            "path": str(path),
            "type": "b" if path.is_block_device() else "c",
            "major": os.major(path.stat().st_rdev),
            "minor": os.minor(path.stat().st_rdev),
        }
        for path in sorted(Path("/dev").iterdir())
        if not path.is_symlink() and (path.is_block_device() or path.is_char_device()) and path.name not in apart
    ]


def _annotations(directory: Path, config: ContainerConfig, image: Image, procs: list[str], bpf: bool) -> dict[str, str]:
    kept = config.log.driver == "json-file"
    log = {
        "path": str(directory / "container.log" if kept else "/dev/null"),
        "max_size": config.log.max_size if kept else 0,  # what is not kept is not rotated
        "max_file": max(1, config.log.max_file),
    }
    found = {
        "swarmd.cgroup.procs": json.dumps(procs),
        "swarmd.overlay.lower": json.dumps([str(layer) for layer in reversed(image.layers)]),
        "swarmd.user": config.user or image.config.user,
        "swarmd.groups": json.dumps(config.groups),
        "swarmd.log": json.dumps(log),
        "swarmd.seccomp.bpf": "seccomp.bpf" if bpf else "",
        "swarmd.init": "1" if config.init else "",
        "swarmd.stdin": "1" if config.open_stdin else "",
        "swarmd.privileged": "1" if config.security.privileged else "",
    }
    return {key: value for key, value in found.items() if value}


def hosts_file(config: ContainerConfig, sandbox: Sandbox) -> str:
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{' '.join(names)}" for address, names in sandbox.hosts]
    for entry in config.extra_hosts:
        name, _, address = entry.partition(":")
        lines.append(f"{address}\t{name}")
    return "\n".join(lines) + "\n"


def resolv_conf(config: ContainerConfig, sandbox: Sandbox) -> str:
    """The container's resolvers: those asked for, those of its networks, or the host's own."""
    servers = config.dns.nameservers or sandbox.nameservers
    if not servers and not sandbox.netns_path:
        return Path("/etc/resolv.conf").read_text()
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"search {' '.join(config.dns.search)}"] if config.dns.search else []
    lines += [f"options {' '.join(config.dns.options)}"] if config.dns.options else []
    return "".join(f"{line}\n" for line in lines)
