"""Reads a bundle's config.json as the OCI runtime specification 1.0 and 1.1 have it, into what the stages work on."""

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import msgspec

from swarmd.runtime.devices import DEFAULT_RULES
from swarmd.runtime.errors import Invalid, NotFound
from swarmd.runtime.model import DeviceLimit, DeviceRule, Limits

# Asking for these and not getting them would be a surprise; empty values ask for nothing.
_UNSUPPORTED = ("intelRdt", "personality", "mountLabel")
_UNSUPPORTED_RESOURCES = ("hugepageLimits", "network", "rdma", "unified")
_NEEDED = ("ociVersion", "root", "process", "linux")


class _Rate(TypedDict):
    major: int
    minor: int
    rate: int


class _BlockIO(TypedDict, total=False):
    weight: int | None
    throttleReadBpsDevice: list[_Rate] | None
    throttleWriteBpsDevice: list[_Rate] | None
    throttleReadIOPSDevice: list[_Rate] | None
    throttleWriteIOPSDevice: list[_Rate] | None


class _Cpu(TypedDict, total=False):
    shares: int | None
    quota: int | None
    period: int | None
    realtimeRuntime: int | None
    realtimePeriod: int | None
    cpus: str | None
    mems: str | None


class _Memory(TypedDict, total=False):
    limit: int | None
    reservation: int | None
    swap: int | None
    swappiness: int | None
    disableOOMKiller: bool | None


class _Pids(TypedDict, total=False):
    limit: int | None


class _Device(TypedDict):
    allow: bool
    type: NotRequired[str | None]
    major: NotRequired[int | None]
    minor: NotRequired[int | None]
    access: NotRequired[str | None]


class _Resources(TypedDict, total=False):
    cpu: _Cpu | None
    memory: _Memory | None
    blockIO: _BlockIO | None
    pids: _Pids | None
    devices: list[_Device] | None


class _Linux(TypedDict, total=False):
    namespaces: list[dict[str, Any]]
    resources: _Resources | None


class _Process(TypedDict):
    args: list[str]


class _Root(TypedDict):
    path: str


class _Config(TypedDict):
    """The form of what is read here; the stages name what else they miss."""

    root: _Root
    process: _Process
    linux: _Linux
    annotations: NotRequired[dict[str, str] | None]


def load(bundle: Path) -> dict[str, Any]:
    """Raises NotFound or Invalid, naming the file and the field."""
    path = bundle / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; a bundle has a config.json") from None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise Invalid(f"{path} holds no object")
    for field in _NEEDED:
        if field not in config:
            raise Invalid(f"{path}: {field} is missing")
    if not str(config["ociVersion"]).startswith("1."):
        raise Invalid(f"{path}: version {config['ociVersion']} of the specification is not known; 1.x is")
    try:
        msgspec.convert(config, _Config)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise Invalid(f"{path} is malformed: {error}") from None
    if not config["process"]["args"]:
        raise Invalid(f"{path}: process.args is empty")
    linux = config["linux"]
    for field in _UNSUPPORTED:
        if linux.get(field):
            raise Invalid(f"{path}: linux.{field} is not supported")
    if config["process"].get("selinuxLabel"):
        raise Invalid(f"{path}: process.selinuxLabel is not supported")
    for field in _UNSUPPORTED_RESOURCES:
        if (linux.get("resources") or {}).get(field):
            raise Invalid(f"{path}: linux.resources.{field} is not supported")
    linux.setdefault("namespaces", [])
    root = Path(config["root"]["path"])
    config["root"]["path"] = str(root if root.is_absolute() else bundle.resolve() / root)
    config["annotations"] = {k: v for k, v in (config.get("annotations") or {}).items() if not k.startswith("swarmd.")}
    return config


def limits(resources: dict[str, Any]) -> Limits:
    cpu, memory, block = (resources.get(name) or {} for name in ("cpu", "memory", "blockIO"))
    return Limits(
        cpu_shares=cpu.get("shares") or 0,
        cpu_quota=cpu.get("quota") or 0,
        cpu_period=cpu.get("period") or 0,
        realtime_runtime=cpu.get("realtimeRuntime") or 0,
        realtime_period=cpu.get("realtimePeriod") or 0,
        cpuset_cpus=cpu.get("cpus") or "",
        cpuset_mems=cpu.get("mems") or "",
        memory=max(0, memory.get("limit") or 0),
        memory_reservation=max(0, memory.get("reservation") or 0),
        memory_swap=memory.get("swap") or 0,
        swappiness=memory.get("swappiness"),
        oom_kill_disable=bool(memory.get("disableOOMKiller")),
        pids=max(0, (resources.get("pids") or {}).get("limit") or 0),
        blkio_weight=block.get("weight") or 0,
        blkio_read_bps=_rates(block, "throttleReadBpsDevice"),
        blkio_write_bps=_rates(block, "throttleWriteBpsDevice"),
        blkio_read_iops=_rates(block, "throttleReadIOPSDevice"),
        blkio_write_iops=_rates(block, "throttleWriteIOPSDevice"),
    )


def _rates(block: dict[str, Any], name: str) -> tuple[DeviceLimit, ...]:
    found = block.get(name) or ()
    return tuple(DeviceLimit(path=f"/dev/block/{d['major']}:{d['minor']}", value=d["rate"]) for d in found)


def device_rules(resources: dict[str, Any]) -> list[DeviceRule] | None:
    """None when all is allowed: no rule, or one that says so. The usual devices are a runtime's to add."""
    rules = resources.get("devices") or []
    if not rules:
        return None
    found: list[DeviceRule] = []
    for rule in rules:
        kind = rule.get("type") or "a"
        major, minor = (None if rule.get(key, -1) in (-1, None) else rule[key] for key in ("major", "minor"))
        if kind == "a":
            found.clear()
            if rule["allow"]:
                return None
            continue
        access = rule.get("access") or "rwm"
        found.append(DeviceRule(kind=kind, major=major, minor=minor, access=access, allow=rule["allow"]))
    return [*found, *DEFAULT_RULES]
