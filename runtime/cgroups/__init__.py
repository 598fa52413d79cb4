"""Limits, measures and kills all processes of a container together; see `interface.py` for what and how."""

from pathlib import Path

from swarmd.runtime.cgroups import v1, v2
from swarmd.runtime.cgroups.interface import Cgroup, Hierarchy, Stats
from swarmd.runtime.errors import Unsupported

__all__ = ["Cgroup", "Hierarchy", "Stats", "detect"]

_MOUNTINFO = Path("/proc/self/mountinfo")


def detect(parent: str, mountinfo: Path = _MOUNTINFO) -> Hierarchy:
    """The host's hierarchy, groups made as <mount>/<parent>/<id>.

    v1 where v1 has the memory or pids controller (a "hybrid" host, whose v2 mount is then only for systemd), else v2.
    """
    controllers: dict[str, Path] = {}
    unified: Path | None = None
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount, (kind, _, options) = Path(_unescaped(before.split()[4])), after.split()[:3]
        if kind == "cgroup2":
            unified = unified or mount
        elif kind == "cgroup":
            controllers |= {name: mount for name in options.split(",") if name in v1.CONTROLLERS}
    if controllers.keys() & {"memory", "pids"}:
        return v1.Hierarchy(controllers, parent)
    if unified is not None:
        return v2.Hierarchy(unified, parent)
    raise Unsupported("no cgroup hierarchy with the memory or pids controller is mounted: mount one on /sys/fs/cgroup")


def _unescaped(path: str) -> str:
    """Mount points with blanks are written in octal."""
    return path.encode().decode("unicode_escape") if "\\" in path else path
