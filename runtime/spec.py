"""Turns what a container is asked to be, and what its run was given on this host, into an OCI config.json.

It is complete for the runtime that is to run it.  What the specification has no place for, and our own runtime makes
use of, stands in `annotations` under "swarmd.": the image's layers, the cgroup's files, the user by name (only the
container's own passwd file can resolve it), the compiled seccomp filter, the log.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarmd.runtime import cdi, devices, etc_files, log_drivers
from swarmd.runtime.effective import arguments, capabilities, environment, hostname
from swarmd.runtime.model import ContainerConfig, ImageMount, Mount, TmpfsMount
from swarmd.runtime.ports import Image, Sandbox
from swarmd.runtime.resources import resources
from swarmd.runtime.stages import trees
from swarmd.runtime.stages.privileges import CAPABILITIES
from swarmd.runtime.userns import UserNamespace

# A network namespace has nobody else's ports to protect.
_NET_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


@dataclass(frozen=True, slots=True)
class Peer:
    """A running container whose namespaces another shares."""

    pid: int
    directory: Path


@dataclass(frozen=True, slots=True)
class Given:
    """What one run was given on this host.

    peers: by kind of namespace, "pid", "ipc" or "network"; layers: of the images that are mounted, lowest first.
    """

    sandbox: Sandbox
    procs: Sequence[str]
    name: str = ""  # of the container
    cgroup_path: str = ""
    user: UserNamespace | None = None
    peers: Mapping[str, Peer] = field(default_factory=dict)
    layers: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    seccomp: Mapping[str, Any] | None = None  # the profile in OCI's form; None: unconfined
    device_edits: Sequence[cdi.Edits] = ()
    runtime: str = ""  # the program of another OCI runtime
    empty: Path = Path("/var/empty")  # a directory with nothing in it


def build(id: str, directory: Path, config: ContainerConfig, image: Image, given: Given) -> dict[str, Any]:
    """Return config.json for one start; directory holds the container's own files."""
    document: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "root": {"path": str(directory / "rootfs"), "readonly": config.security.read_only_root},
        "process": _process(id, config, image),
        "mounts": [*_system_mounts(config), *_file_mounts(directory, given), *_user_mounts(config, given)],
        "linux": _linux(config, given),
        "annotations": config.annotations | _annotations(id, directory, config, image, given),
    }
    if config.namespaces.uts != "host":
        document |= {"hostname": hostname(id, config)}
        document |= {"domainname": config.domainname} if config.domainname else {}
    cdi.apply(document, given.device_edits)
    return document


def _process(id: str, config: ContainerConfig, image: Image) -> dict[str, Any]:
    allowed = sorted(capabilities(config), key=CAPABILITIES.index)
    limits = ((f"RLIMIT_{u.name.upper()}", u.soft, u.hard) for u in config.ulimits)
    process = {
        "terminal": config.tty,
        "user": {"uid": 0, "gid": 0},
        "args": list(arguments(config, image)),
        "env": environment(id, config, image),
        "cwd": config.workdir or image.config.workdir or "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), allowed),
        "rlimits": [{"type": name, "soft": soft, "hard": hard} for name, soft, hard in limits],
        "noNewPrivileges": config.security.no_new_privileges,
        "oomScoreAdj": config.oom_score_adj,
    }
    if config.tty and any(config.console_size):
        height, width = config.console_size
        process["consoleSize"] = {"height": height, "width": width}
    if config.security.apparmor not in ("", "unconfined"):
        process["apparmorProfile"] = config.security.apparmor
    return process


def _system_mounts(config: ContainerConfig) -> list[dict[str, Any]]:
    access = "rw" if config.security.privileged else "ro"
    found = [
        trees.PROC,
        trees.device_entry(nodev=not _own_nodes(config)),
        trees.TERMINALS,
        trees.entry("sysfs", "/sys", access),
        trees.entry("cgroup", "/sys/fs/cgroup", access),
        trees.QUEUES,
    ]
    taken = {os.path.normpath(mount.target) for mount in config.mounts}
    if config.namespaces.ipc != "none" and "/dev/shm" not in taken:
        size = config.shm_size or trees.SHM_SIZE
        found.append(_bind("/dev/shm") if config.namespaces.ipc == "host" else trees.shared_memory_entry(size))
    return found


def _own_nodes(config: ContainerConfig) -> bool:
    """Whether nodes that it makes itself are devices: it was given more than those that are bound in place."""
    return config.security.privileged or bool(config.device_rules)


def _bind(path: str) -> dict[str, Any]:
    options = ["bind", "nosuid", "noexec", "nodev"]
    return {"destination": path, "type": "bind", "source": path, "options": options}


def _file_mounts(directory: Path, given: Given) -> list[dict[str, Any]]:
    """In another's network, those files are that one's."""
    owner = given.peers["network"].directory if "network" in given.peers else directory
    # The container's own directory has its ids mapped as a whole.
    options = ["bind", *(["idmap"] if given.user and owner != directory else [])]
    return [
        {"destination": f"/etc/{name}", "type": "bind", "source": str(owner / name), "options": options}
        for name in etc_files.NAMES
    ]


def _user_mounts(config: ContainerConfig, given: Given) -> list[dict[str, Any]]:
    # Parents before what is mounted below them.
    ordered = sorted(config.mounts, key=lambda m: os.path.normpath(m.target).count("/"))
    return [_mount(mount, config.security.privileged, given) for mount in ordered]


def _mount(mount: Mount, nodes: bool, given: Given) -> dict[str, Any]:
    access = "ro" if mount.read_only else "rw"
    if isinstance(mount, TmpfsMount):
        size = [f"size={mount.size}"] if mount.size else []
        options = ["nosuid", "nodev", "noexec", access, f"mode={mount.mode:o}", *size, *mount.options]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    if isinstance(mount, ImageMount):
        # An overlay has two lower directories at least, an image perhaps one layer.
        layers = [*reversed(given.layers[mount.image]), given.empty]
        options = [f"lowerdir={':'.join(map(str, layers))}", "ro", "nodev"]
        options += [f"swarmd.subpath={mount.subpath}"] if mount.subpath else []
        return {"destination": mount.target, "type": "overlay", "source": "overlay", "options": options}
    # Else a program that may mknod would make itself the host's disk there; cgroup v2 alone would not stop it.
    options = ["rbind" if mount.recursive else "bind", access, mount.propagation, "dev" if nodes else "nodev"]
    options += ["rro"] if mount.read_only and mount.read_only_recursive and mount.recursive else []
    options += ["ridmap" if mount.recursive else "idmap"] if given.user else []
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": options}


def _linux(config: ContainerConfig, given: Given) -> dict[str, Any]:
    covered = not config.security.privileged
    masked, read_only = config.security.masked_paths, config.security.readonly_paths
    own_network = bool(given.sandbox.netns_path) and "network" not in given.peers
    linux = {
        "namespaces": _namespaces(config, given),
        "cgroupsPath": given.cgroup_path,
        "sysctl": (_NET_SYSCTLS if own_network else {}) | config.sysctls,
        "maskedPaths": list(masked if masked is not None else trees.MASKED if covered else ()),
        "readonlyPaths": list(read_only if read_only is not None else trees.READ_ONLY if covered else ()),
        "devices": devices.nodes(config),
        "resources": resources(config.limits, devices.rules(config, cdi.rules(given.device_edits))),
    }
    shared = {"shared", "rshared"} & {getattr(mount, "propagation", "") for mount in config.mounts}
    linux |= {"rootfsPropagation": "shared"} if shared else {}
    linux |= {"uidMappings": given.user.mapping(), "gidMappings": given.user.mapping()} if given.user else {}
    # Our own init takes the compiled filter; to read this would take it longer than all the rest.
    linux |= {"seccomp": given.seccomp} if given.seccomp and given.runtime else {}
    clocks = {"monotonic": config.namespaces.monotonic, "boottime": config.namespaces.boottime}
    if _times(config):
        linux["timeOffsets"] = {clock: _offset(ahead) for clock, ahead in clocks.items()}
    return linux


def _namespaces(config: ContainerConfig, given: Given) -> list[dict[str, str]]:
    wanted = config.namespaces
    found = [{"type": "mount"}]
    for kind, mode in (("pid", wanted.pid), ("ipc", wanted.ipc), ("uts", wanted.uts), ("cgroup", wanted.cgroup)):
        if kind in given.peers:
            found.append({"type": kind, "path": f"/proc/{given.peers[kind].pid}/ns/{kind}"})
        elif mode != "host":
            found.append({"type": kind})
    if given.sandbox.netns_path:
        found.append({"type": "network", "path": given.sandbox.netns_path})
    if given.user:
        found.append({"type": "user", "path": given.user.user})
    if _times(config):
        found.append({"type": "time"})
    return found


def _times(config: ContainerConfig) -> bool:
    return bool(config.namespaces.monotonic or config.namespaces.boottime)


def _offset(ahead: float) -> dict[str, int]:
    seconds = math.floor(ahead)
    return {"secs": seconds, "nanosecs": round((ahead - seconds) * 1e9)}


def _annotations(id: str, directory: Path, config: ContainerConfig, image: Image, given: Given) -> dict[str, str]:
    log = log_drivers.request(id, given.name, directory, config, image)
    found = {
        "swarmd.cgroup.procs": json.dumps([*given.procs]),
        "swarmd.overlay.lower": json.dumps([str(layer) for layer in reversed(image.layers)]),
        "swarmd.user": config.user or image.config.user or "0",
        "swarmd.groups": json.dumps(config.groups),
        "swarmd.log": json.dumps(log) if log else "",
        "swarmd.seccomp.bpf": "seccomp.bpf" if given.seccomp else "",
        "swarmd.runtime": given.runtime,
        "swarmd.init": "1" if config.init else "",
        "swarmd.stdin": "" if not config.open_stdin else "once" if config.stdin_once else "open",
        "swarmd.nodes": "1" if _own_nodes(config) else "",
    }
    return {key: value for key, value in found.items() if value}
