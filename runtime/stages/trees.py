"""The mounts that nearly every container has, as entries of an OCI config, and the trees of them made before a start.

A tree is mounted nowhere until it is attached, as a whole, where a config wants just what it is made of.
"""

import contextlib
import os
import posixpath
from collections.abc import Callable
from typing import Any

from swarmd.runtime.stages import mounts, syscalls

_PLAIN = ["nosuid", "noexec", "nodev"]
MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
SHM_SIZE = 64 * 1024 * 1024

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def entry(kind: str, destination: str, *options: str) -> dict[str, Any]:
    """Of an OCI config's mounts: a file system of the kernel's own."""
    return {"destination": destination, "type": kind, "source": kind, "options": [*_PLAIN, *options]}


def device_entry(nodev: bool = True) -> dict[str, Any]:
    """Each device in it is a mount of its own; with nodev, nodes that are made in it are no devices."""
    options = ["nosuid", "mode=755", "size=65536k", *(["nodev"] if nodev else [])]
    return {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": options}


def shared_memory_entry(size: int) -> dict[str, Any]:
    return entry("tmpfs", "/dev/shm", "mode=1777", f"size={size}")


TERMINALS: dict[str, Any] = {
    "destination": "/dev/pts",
    "type": "devpts",
    "source": "devpts",
    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
}
PROC = entry("proc", "/proc")
QUEUES = entry("mqueue", "/dev/mqueue")


class Tree:
    """What is mounted at a place and below it; nothing of it shows whose container it will be in."""

    def __init__(self, place: str, entries: list[dict[str, Any]], finish: Callable[[int], None]) -> None:
        self._place, self._entries = place, entries
        self._fd = -1
        # Before Linux 6.15 nothing can be mounted on what is itself mounted nowhere: there the steps do it.
        with contextlib.suppress(OSError):
            self._fd = _assembled(place, entries, finish)

    def fits(self, config: dict[str, Any]) -> bool:
        linux = config["linux"]
        covered = ((linux.get("maskedPaths"), MASKED), (linux.get("readonlyPaths"), READ_ONLY))
        return (
            self._fd >= 0
            and [one for one in config.get("mounts", []) if self.holds(one["destination"])] == self._entries
            and all([*filter(self.holds, paths or ())] == [*filter(self.holds, usual)] for paths, usual in covered)
        )

    def holds(self, path: str) -> bool:
        return f"{posixpath.normpath(path)}/".startswith(f"{self._place}/")

    def attach(self, root: int) -> None:
        mounts.attach(self._fd, root, self._place)
        os.close(self._fd)


def _assembled(place: str, entries: list[dict[str, Any]], finish: Callable[[int], None]) -> int:
    top = -1
    try:
        for one in entries:
            attributes, _, data = mounts.parse_options(one["options"])
            fd = syscalls.new_filesystem(one["type"], [("source", one["source"]), *data], attributes)
            if top < 0:
                top = fd
                continue
            try:
                mounts.attach(fd, top, one["destination"].removeprefix(place))
            finally:
                os.close(fd)
        finish(top)
    except OSError:
        if top >= 0:
            os.close(top)
        raise
    return top


def usual() -> list[Tree]:
    """Those that need no more to be known of a container than that it has process and IPC namespaces of its own."""
    devices = [device_entry(), TERMINALS, QUEUES, shared_memory_entry(SHM_SIZE)]
    return [Tree("/proc", [PROC], _cover), Tree("/dev", devices, add_devices)]


def _cover(proc: int) -> None:
    for path in READ_ONLY:
        if path.startswith("/proc/"):
            mounts.make_read_only(proc, path.removeprefix("/proc"))
    for path in MASKED:
        if path.startswith("/proc/"):
            mounts.mask(proc, path.removeprefix("/proc"))


def add_devices(dev: int) -> None:
    """The host's own nodes, bound one by one: the file systems around them are nodev, so mknod gives no device."""
    for name in DEVICES:
        path = f"/dev/{name}"
        fd = syscalls.open_tree(path, False)
        # Else what is mounted on it from inside would be mounted on the host's too.
        syscalls.set_mount_attributes(fd, 0, syscalls.PROPAGATION["private"], False, path)
        mounts.attach(fd, dev, name)
        os.close(fd)
    for link, target in _LINKS.items():
        with contextlib.suppress(FileExistsError):
            os.symlink(target, link, dir_fd=dev)
