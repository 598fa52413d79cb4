"""Devices by name, `vendor.com/class=name`: the Container Device Interface, specification 0.8.

The host's specs say what a device needs: nodes, mounts, variables, groups and hooks.  They are read at each start, as
drivers write them anew; of two that name the same device, the one in the later directory counts.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import msgspec

from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import DeviceRule

DIRECTORIES = (Path("/etc/cdi"), Path("/var/run/cdi"))
_GPUS = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/gpu")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

Edits = Mapping[str, Any]


class _Node(TypedDict):
    path: str
    hostPath: NotRequired[str]
    type: NotRequired[str]
    major: NotRequired[int]
    minor: NotRequired[int]
    fileMode: NotRequired[int]
    uid: NotRequired[int]
    gid: NotRequired[int]
    permissions: NotRequired[str]


class _Mount(TypedDict):
    hostPath: str
    containerPath: str
    options: NotRequired[list[str]]


class _Hook(TypedDict):
    hookName: str
    path: str
    args: NotRequired[list[str]]
    env: NotRequired[list[str]]
    timeout: NotRequired[int]


class _Edits(TypedDict, total=False):
    env: list[str] | None
    deviceNodes: list[_Node] | None
    mounts: list[_Mount] | None
    hooks: list[_Hook] | None
    additionalGids: list[int] | None


class _Device(TypedDict):
    name: str | int  # YAML reads an unquoted 0 as a number
    containerEdits: NotRequired[_Edits | None]


class _Spec(TypedDict):
    """The form of a spec, which `_read` holds every one to."""

    cdiVersion: str
    kind: str
    devices: NotRequired[list[_Device] | None]
    containerEdits: NotRequired[_Edits | None]


def edits(names: Sequence[str], directories: Sequence[Path] = DIRECTORIES) -> list[Edits]:
    """The containerEdits of these devices, each spec's own before its first device. Raises Invalid by name."""
    known: dict[str, tuple[Edits, Edits]] = {}
    for kind, spec in _specs(directories):
        for device in spec.get("devices") or ():
            known[f"{kind}={device['name']}"] = (spec.get("containerEdits") or {}, device.get("containerEdits") or {})
    found: list[Edits] = []
    for name in names:
        if name not in known:
            where = " or ".join(map(str, directories))
            raise Invalid(f"device {name}: no CDI spec in {where} names it{_hint(name, known)}")
        found += [edit for edit in known[name] if edit not in found]
    return found


def gpus(count: int, ids: Sequence[str] = (), directories: Sequence[Path] = DIRECTORIES) -> list[str]:
    """Names for these GPUs, or for so many, -1 for all, of the first vendor that this host has."""
    kinds = dict(_specs(directories))
    for kind in _GPUS:
        if kind not in kinds:
            continue
        if ids:
            return [f"{kind}={id}" for id in ids]
        names = [str(device["name"]) for device in kinds[kind].get("devices") or ()]
        if count < 0:
            return [f"{kind}=all"] if "all" in names else [f"{kind}={name}" for name in names]
        single = [name for name in names if name.isdigit()]
        if count > len(single):
            raise Invalid(f"{count} GPUs asked for, but this host's CDI specs name {len(single)}")
        return [f"{kind}={name}" for name in single[:count]]
    where = " or ".join(map(str, directories))
    raise Invalid(f"GPUs asked for, but no CDI spec for any is in {where}: install the vendor's container toolkit")


def rules(found: Sequence[Edits]) -> list[DeviceRule]:
    """What the cgroup must allow for their nodes."""
    nodes = [(node, _device(node)) for edit in found for node in edit.get("deviceNodes") or ()]
    return [
        DeviceRule(kind=made["type"], major=made["major"], minor=made["minor"], access=node.get("permissions") or "rwm")
        for node, made in nodes
    ]


def apply(document: dict[str, Any], found: Sequence[Edits]) -> None:
    """Change an OCI config as the edits say."""
    process, linux = document["process"], document["linux"]
    for edit in found:
        process["env"] += edit.get("env") or []
        process["user"].setdefault("additionalGids", []).extend(edit.get("additionalGids") or [])
        for node in edit.get("deviceNodes") or ():
            linux["devices"].append(_device(node))
        for mount in edit.get("mounts") or ():
            made = {"destination": mount["containerPath"], "source": mount["hostPath"]}
            document["mounts"].append(made | {"type": "bind", "options": mount.get("options") or ["rbind", "ro"]})
        for hook in edit.get("hooks") or ():
            if hook["hookName"] not in _HOOKS:
                raise Invalid(f"CDI hook {hook['path']} is for {hook['hookName']}, which no runtime has")
            made = {key: hook[key] for key in ("path", "args", "env", "timeout") if hook.get(key)}
            document.setdefault("hooks", {}).setdefault(hook["hookName"], []).append(made)


def _device(node: Mapping[str, Any]) -> dict[str, Any]:
    source = node.get("hostPath") or node["path"]
    made = {"path": node["path"], **{key: node[key] for key in ("fileMode", "uid", "gid") if key in node}}
    if node.get("type") and "major" in node:
        return made | {"type": node["type"], "major": node["major"], "minor": node.get("minor", 0)}
    try:
        found = Path(source).stat()
    except OSError as error:
        raise Invalid(f"CDI device node {source}: {error.strerror}") from None
    kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
    return made | {"type": kind, "major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}


def _specs(directories: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for directory in directories:
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            if path.suffix in (".json", ".yaml", ".yml"):
                spec = _read(path)
                yield str(spec["kind"]), spec


def _read(path: Path) -> Mapping[str, Any]:
    import yaml  # late: few hosts have such specs, and all daemons would carry it

    try:
        spec = msgspec.json.decode(path.read_bytes()) if path.suffix == ".json" else yaml.safe_load(path.read_bytes())
    except (msgspec.DecodeError, yaml.YAMLError, UnicodeError, RecursionError, OSError) as error:
        raise Invalid(f"CDI spec {path} can't be read: {error}") from None
    if not isinstance(spec, dict) or "kind" not in spec or "cdiVersion" not in spec:
        raise Invalid(f"CDI spec {path} has no kind or no cdiVersion")
    try:
        msgspec.convert(spec, _Spec)
    except msgspec.ValidationError as error:
        raise Invalid(f"CDI spec {path} is malformed: {error}") from None
    return spec


def _hint(name: str, known: Mapping[str, object]) -> str:
    near = sorted(other for other in known if other.partition("=")[0] == name.partition("=")[0])
    return f"; there are {', '.join(near)}" if near else ""
