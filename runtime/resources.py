"""Limits as the OCI runtime specification writes them, `linux.resources`; our own cgroups read `Limits` itself."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import DeviceLimit, DeviceRule, Limits

_PERIOD_US = 100_000


def resources(limits: Limits, rules: Sequence[DeviceRule] | None) -> dict[str, Any]:
    period = limits.cpu_period or (_PERIOD_US if limits.nano_cpus else 0)
    cpu = {
        "shares": limits.cpu_shares,
        "quota": limits.cpu_quota or limits.nano_cpus * period // 10**9,
        "period": period,
        "realtimeRuntime": limits.realtime_runtime,
        "realtimePeriod": limits.realtime_period,
        "cpus": limits.cpuset_cpus,
        "mems": limits.cpuset_mems,
    }
    memory = {
        "limit": limits.memory,
        "reservation": limits.memory_reservation,
        "swap": limits.memory_swap or 2 * limits.memory,
        "disableOOMKiller": limits.oom_kill_disable,
    }
    block = {
        "weight": limits.blkio_weight,
        "weightDevice": _per_device(limits.blkio_weight_device, "weight"),
        "throttleReadBpsDevice": _per_device(limits.blkio_read_bps, "rate"),
        "throttleWriteBpsDevice": _per_device(limits.blkio_write_bps, "rate"),
        "throttleReadIOPSDevice": _per_device(limits.blkio_read_iops, "rate"),
        "throttleWriteIOPSDevice": _per_device(limits.blkio_write_iops, "rate"),
    }
    found = {"cpu": _said(cpu), "memory": _said(memory), "blockIO": _said(block)}
    if limits.swappiness is not None:
        found["memory"]["swappiness"] = limits.swappiness
    if limits.pids > 0:
        found["pids"] = {"limit": limits.pids}
    everything = [{"allow": True, "access": "rwm"}]
    nothing = [{"allow": False, "access": "rwm"}]
    devices = everything if rules is None else [*nothing, *map(_rule, rules)]
    return {"devices": devices, **_said(found)}


def device_number(path: str) -> tuple[int, int]:
    """Of a block device that a limit is for."""
    try:
        found = Path(path).stat()
    except OSError as error:
        why = "it is not there" if error.errno == errno.ENOENT else (error.strerror or "it cannot be read").lower()
        raise Invalid(f"device {path}: {why} on this host") from None
    if not Path(path).is_block_device():
        raise Invalid(f"device {path} is no block device, so its traffic can't be limited")
    return os.major(found.st_rdev), os.minor(found.st_rdev)


def _per_device(limits: Sequence[DeviceLimit], key: str) -> list[dict[str, int]]:
    numbers = [(*device_number(limit.path), limit.value) for limit in limits]
    return [{"major": major, "minor": minor, key: value} for major, minor, value in numbers]


def _rule(rule: DeviceRule) -> dict[str, Any]:
    numbers = {"major": rule.major, "minor": rule.minor}
    said = {key: number for key, number in numbers.items() if number is not None}
    return {"allow": rule.allow, "type": rule.kind, **said, "access": rule.access}


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}
