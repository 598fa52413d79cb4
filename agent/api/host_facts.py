"""What /info says of the host: read each time, as a host's controllers, file systems and settings are its own."""

import os
import re
import urllib.request
from pathlib import Path
from typing import Any

_CREDENTIALS = re.compile(r"^(\w+://)?[^/@]*@")


def facts(data_root: Path, groups: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> dict[str, Any]:
    """data_root: where containers are stored; groups: where control groups are mounted."""
    limits = _limits_v1(groups) if (groups / "memory").is_dir() else _limits_v2(groups)
    options = {"name=seccomp,profile=builtin": "sys/kernel/seccomp/actions_avail", "name=cgroupns": "self/ns/cgroup"}
    return {
        "DriverStatus": [["Backing Filesystem", file_system(data_root, proc)]],
        "IPv4Forwarding": _text(proc / "sys/net/ipv4/ip_forward") == "1",
        "SecurityOptions": [option for option, needed in options.items() if (proc / needed).exists()],
        "Warnings": [f"WARNING: this host can't limit {what}" for key, what in _WARNINGS.items() if not limits[key]],
        **limits,
        **_proxies(),
    }


_WARNINGS = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "CpuCfsQuota": "processor time",
    "CPUShares": "shares of processor time",
    "CPUSet": "the set of processors",
    "PidsLimit": "the number of processes",
}


def _limits_v1(groups: Path) -> dict[str, Any]:
    files = {
        "MemoryLimit": "memory/memory.limit_in_bytes",
        "SwapLimit": "memory/memory.memsw.limit_in_bytes",
        "OomKillDisable": "memory/memory.oom_control",
        "CpuCfsPeriod": "cpu/cpu.cfs_period_us",
        "CpuCfsQuota": "cpu/cpu.cfs_quota_us",
        "CPUShares": "cpu/cpu.shares",
        "CPUSet": "cpuset/cpuset.cpus",
        "PidsLimit": "pids",  # the topmost group has no limit
    }
    return {"CgroupVersion": "1"} | {key: (groups / file).exists() for key, file in files.items()}


def _limits_v2(groups: Path) -> dict[str, Any]:
    there = _text(groups / "cgroup.controllers").split()
    processors = "cpu" in there
    # Only groups below the topmost have limits; without any to look at, the controller has to do.
    below = [group for group in groups.glob("*") if (group / "memory.max").exists()]
    return {
        "CgroupVersion": "2",
        "MemoryLimit": "memory" in there,
        "SwapLimit": "memory" in there and (not below or any((group / "memory.swap.max").exists() for group in below)),
        "OomKillDisable": False,
        "CpuCfsPeriod": processors,
        "CpuCfsQuota": processors,
        "CPUShares": processors,
        "CPUSet": "cpuset" in there,
        "PidsLimit": "pids" in there,
    }


def file_system(path: Path, proc: Path = Path("/proc")) -> str:
    """The kind of the file system that holds a path, as the kernel calls it."""
    path, best, kind = path.resolve(), Path(), "unknown"
    for line in _text(proc / "self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        mount = Path(before.split()[4].encode().decode("unicode_escape"))
        # The last one mounted on a place hides those before it.
        if path.is_relative_to(mount) and len(mount.parts) >= len(best.parts):
            best, kind = mount, after.split()[0]
    return kind


def _proxies() -> dict[str, str]:
    """Those that the daemon itself goes by, without the credentials."""
    found = urllib.request.getproxies_environment()
    shown = {"HttpProxy": found.get("http", ""), "HttpsProxy": found.get("https", ""), "NoProxy": found.get("no", "")}
    return {key: _CREDENTIALS.sub(r"\1xxxxx:xxxxx@", value) for key, value in shown.items()}


def _text(path: Path) -> str:
    try:
        return os.fsdecode(path.read_bytes()).strip()
    except OSError:
        return ""
