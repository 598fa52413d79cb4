"""--mount of `run` and `create`: 'type=bind,src=/a,dst=/b,ro', with all of Docker's keys."""

from __future__ import annotations

from swarmd.swarmctl import values
from swarmd.swarmctl.parser import BadValue, boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KINDS = ("bind", "volume", "tmpfs", "image", "npipe", "cluster")
_SAME = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}


# Key: the mounts it is for ("" for all), the place in the API's object, and how its value is read.
_KEYS: dict[str, tuple[str, tuple[str, ...], Callable[[str], Any]]] = {
    "type": ("", ("Type",), str),
    "source": ("", ("Source",), str),
    "target": ("", ("Target",), str),
    "readonly": ("", ("ReadOnly",), boolean),
    "consistency": ("", ("Consistency",), str),
    "bind-propagation": ("bind", ("BindOptions", "Propagation"), str),
    "bind-create-src": ("bind", ("BindOptions", "CreateMountpoint"), boolean),
    "volume-subpath": ("volume", ("VolumeOptions", "Subpath"), str),
    "volume-nocopy": ("volume", ("VolumeOptions", "NoCopy"), boolean),
    "volume-driver": ("volume", ("VolumeOptions", "DriverConfig", "Name"), str),
    "image-subpath": ("image", ("ImageOptions", "Subpath"), str),
    "tmpfs-size": ("tmpfs", ("TmpfsOptions", "SizeBytes"), values.size),
    "tmpfs-mode": ("tmpfs", ("TmpfsOptions", "Mode"), values.octal),
}
_MAPS: dict[str, tuple[str, ...]] = {
    "volume-label": ("VolumeOptions", "Labels"),
    "volume-opt": ("VolumeOptions", "DriverConfig", "Options"),
}
# bind-recursive: what of a read-only mount's submounts; Docker's own words.
_RECURSIVE: dict[str, dict[str, bool]] = {
    "enabled": {},
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}


def mount(text: str) -> dict[str, Any]:
    wanted: dict[str, Any] = {"Type": "volume"}
    used: list[tuple[str, str]] = []
    for field in values.comma_separated(text):
        key, equals, value = field.partition("=")
        key = _SAME.get(key.lower(), key.lower())
        if not equals:
            value = "true"
        _set(wanted, key, value, text)
        kind = (
            "volume" if key in _MAPS else "bind" if key.startswith("bind-") else _KEYS[key][0] if key in _KEYS else ""
        )
        used.append((key, kind))
    for key, kind in used:
        if kind and kind != wanted["Type"]:
            raise BadValue(f"{text!r}: {key} is for mounts of type {kind}, not {wanted['Type']}")
    if wanted["Type"] not in _KINDS:
        raise BadValue(f"{text!r}: there are no mounts of type {wanted['Type']!r}")
    if not wanted.get("Target"):
        raise BadValue(f"{text!r} lacks target=/absolute/path, the place in the container")
    if wanted["Type"] == "bind" and not wanted.get("Source"):
        raise BadValue(f"{text!r} lacks source=/absolute/path, the place on the host")
    return wanted


def _set(wanted: dict[str, Any], key: str, value: str, text: str) -> None:
    if key in _KEYS:
        _, path, read = _KEYS[key]
        _put(wanted, path, read(value))
    elif key in _MAPS:
        name, content = values.pair(value)
        _put(wanted, (*_MAPS[key], name), content)
    elif key == "bind-nonrecursive":
        _put(wanted, ("BindOptions", "NonRecursive"), boolean(value))
    elif key == "bind-recursive":
        if value not in _RECURSIVE:
            raise BadValue(f"{text!r}: bind-recursive is one of {', '.join(_RECURSIVE)}")
        for option, on in _RECURSIVE[value].items():
            _put(wanted, ("BindOptions", option), on)
    elif key == "tmpfs-options":
        raise BadValue(f"{text!r}: tmpfs-options is not of --mount: use --tmpfs PATH:OPTIONS")
    else:
        known = sorted([*_KEYS, *_MAPS, *_SAME, "bind-nonrecursive", "bind-recursive"])
        raise BadValue(f"{text!r}: unknown key {key!r}; known are {', '.join(known)}")


def _put(place: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value
