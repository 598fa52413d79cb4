"""Device nodes of a container: which there are, and which of them its cgroup lets be opened."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import ContainerConfig, Device, DeviceRule

# Any node may be made, only these opened (OCI runtime specification, "Default Devices").
DEFAULT_RULES = (
    DeviceRule(kind="c", major=None, minor=None, access="m"),
    DeviceRule(kind="b", major=None, minor=None, access="m"),
    *(DeviceRule(kind="c", major=1, minor=minor, access="rwm") for minor in (3, 5, 7, 8, 9)),  # null ... urandom
    *(DeviceRule(kind="c", major=5, minor=minor, access="rwm") for minor in (0, 1, 2)),  # tty, console, ptmx
    DeviceRule(kind="c", major=136, minor=None, access="rwm"),  # pts
)
_APART = ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx")


def nodes(config: ContainerConfig) -> list[dict[str, Any]]:
    """`linux.devices` beyond the usual ones: those asked for, or for a privileged container all of the host's."""
    if config.security.privileged:
        wanted = [Device(source=str(path), target=str(path)) for path in _host_nodes()]
    else:
        wanted = [found for device in config.devices for found in _expanded(device)]
    return [_node(device) for device in wanted]


def rules(config: ContainerConfig, extra: Sequence[DeviceRule] = ()) -> tuple[DeviceRule, ...] | None:
    """What its cgroup allows; None: everything."""
    if config.security.privileged:
        return None
    own = []
    for device in (found for asked in config.devices for found in _expanded(asked)):
        node = _node(device)
        own.append(DeviceRule(kind=node["type"], major=node["major"], minor=node["minor"], access=device.access))
    return (*DEFAULT_RULES, *own, *config.device_rules, *extra)


def _host_nodes() -> Iterator[Path]:
    for path in sorted(Path("/dev").iterdir()):
        if path.name not in _APART and not path.is_symlink() and _is_device(path):
            yield path


def _expanded(device: Device) -> Iterator[Device]:
    """The device itself; of a directory, those in it."""
    source = Path(device.source)
    if not source.is_dir():
        yield device
        return
    for path in sorted(source.rglob("*")):
        if not path.is_symlink() and _is_device(path):
            target = f"{device.target.rstrip('/')}/{path.relative_to(source)}"
            yield Device(source=str(path), target=target, access=device.access)


def _is_device(path: Path) -> bool:
    return path.is_block_device() or path.is_char_device()


def _node(device: Device) -> dict[str, Any]:
    try:
        found = Path(device.source).stat()
    except OSError as error:
        why = "it is not there" if error.errno == errno.ENOENT else (error.strerror or "it cannot be read").lower()
        raise Invalid(f"device {device.source}: {why} on this host") from None
    if not stat.S_ISBLK(found.st_mode) and not stat.S_ISCHR(found.st_mode):
        raise Invalid(f"device {device.source}: it is neither a block nor a character device")
    return {
        "path": device.target,
        "type": "b" if stat.S_ISBLK(found.st_mode) else "c",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }
