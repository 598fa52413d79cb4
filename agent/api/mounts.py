"""Mounts as Docker's clients write them, in three ways (Binds, Tmpfs, Mounts), and as they are shown."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from swarmd.agent.api.fields import Fields
from swarmd.proto.errors import Invalid
from swarmd.runtime.errors import NotFound
from swarmd.runtime.model import BindMount, ContainerState, ImageMount, Mount, TmpfsMount

_PROPAGATION = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
# Labels of SELinux, which this runtime does not set, and words of other platforms that Docker ignores on Linux too.
_WITHOUT_EFFECT = {"rw", "z", "Z", "cached", "delegated", "consistent"}


def binds(texts: Sequence[str]) -> list[Mount]:
    """source:target[:options]."""
    found: list[Mount] = []
    for text in texts:
        source, target, options = (*text.split(":", 2), "", "")[:3]
        if not (source.startswith("/") and target.startswith("/")):
            raise Invalid(f"bind {text}: write it as /host/path:/container/path[:ro] (named volumes are not supported)")
        words = set(filter(None, options.split(",")))
        propagation = words & _PROPAGATION
        for unknown in words - propagation - _WITHOUT_EFFECT - {"ro"}:
            raise Invalid(f"bind {text}: unsupported option {unknown}")
        found.append(
            BindMount(
                source=source,
                target=target,
                read_only="ro" in words,
                propagation=next(iter(propagation), "rprivate"),
                create_source=True,
            )
        )
    return found


def tmpfs(given: Mapping[str, str]) -> list[Mount]:
    """{target: "size=64m,mode=1777"}."""
    return [_tmpfs(target, [word for word in text.split(",") if word]) for target, text in given.items()]


def _tmpfs(target: str, words: Sequence[str], bytes_: int = 0, mode: int = 0o1777, read_only: bool = False) -> Mount:
    others: list[str] = []
    for word in words:
        name, _, value = word.partition("=")
        if name == "size":
            bytes_ = size(value)
        elif name == "mode":
            mode = _mode(target, value)
        elif word in ("ro", "rw"):
            read_only = word == "ro"
        else:
            others.append(word)
    return TmpfsMount(target=target, size=bytes_, mode=mode, read_only=read_only, options=tuple(others))


def _mode(target: str, text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise Invalid(f"tmpfs {target}: mode {text!r} is no octal number such as 1777") from None


def size(text: str) -> int:
    """Bytes of "64m"."""
    match = re.fullmatch(r"(\d{1,18})([kmgt]?)b?", text.lower(), re.ASCII)
    if not match:
        raise Invalid(f"size {text!r} is no size: write it as 64m")
    return int(match[1]) << 10 * " kmgt".index(match[2] or " ")


def mounts(host: Fields) -> list[Mount]:
    found: list[Mount] = []
    for fields in host.parts("Mounts", ("VolumeOptions", "Consistency", "ClusterOptions")):
        with fields:
            fields.ignore("Consistency", "default", "cached", "delegated", "consistent")
            found.append(_mount(fields))
    return found


def _mount(fields: Fields) -> Mount:
    kind, target, read_only = fields.text("Type"), fields.text("Target"), fields.flag("ReadOnly")
    source = fields.text("Source")
    with (
        fields.part("BindOptions") as bind,
        fields.part("TmpfsOptions") as options,
        fields.part("ImageOptions") as image,
    ):
        if kind == "bind":
            flat = bind.flag("ReadOnlyNonRecursive")
            bind.flag("ReadOnlyForceRecursive")  # it is, or the start fails
            return BindMount(
                source=source,
                target=target,
                read_only=read_only,
                read_only_recursive=not flat,
                propagation=bind.text("Propagation") or "rprivate",
                recursive=not bind.flag("NonRecursive"),
                create_source=bind.flag("CreateMountpoint"),
            )
        if kind == "tmpfs":
            words = ["=".join(pair) for pair in options.lists("Options")]
            return _tmpfs(target, words, options.number("SizeBytes"), options.number("Mode") or 0o1777, read_only)
        if kind == "image":
            return ImageMount(image=source, target=target, subpath=image.text("Subpath"))
    why = "there are no volumes yet" if kind == "volume" else f"{kind!r} is unknown"
    raise Invalid(f"mount {target}: its type is bind, tmpfs or image: {why}")


def borrowed(text: str, inspect: Callable[[str], ContainerState]) -> list[Mount]:
    """Another container's: name[:ro|rw]."""
    name, _, access = text.partition(":")
    if access not in ("", "ro", "rw"):
        raise Invalid(f"mounts from {text}: the access is ro or rw")
    try:
        found = inspect(name).config.mounts
    except NotFound as problem:  # not the image's absence, for which a client would pull it
        raise Invalid(f"mounts from {text}: {problem}") from None
    return [msgspec.structs.replace(mount, read_only=True) if access == "ro" else mount for mount in found]


# Shown


def is_bind(mount: Mount) -> bool:
    return isinstance(mount, BindMount) and mount.create_source


def bind_text(mount: Mount) -> str:
    assert isinstance(mount, BindMount)
    words = ["ro"] if mount.read_only else []
    words += [mount.propagation] if mount.propagation != "rprivate" else []
    return ":".join([mount.source, mount.target, *([",".join(words)] if words else [])])


def specified(mount: Mount) -> dict[str, Any]:
    """An entry of HostConfig.Mounts."""
    base: dict[str, Any] = {"Target": mount.target, "ReadOnly": mount.read_only}
    if isinstance(mount, BindMount):
        options = {"Propagation": mount.propagation, "NonRecursive": not mount.recursive}
        options["ReadOnlyNonRecursive"] = not mount.read_only_recursive
        return base | {"Type": "bind", "Source": mount.source, "BindOptions": options}
    if isinstance(mount, ImageMount):
        return base | {"Type": "image", "Source": mount.image, "ImageOptions": {"Subpath": mount.subpath}}
    words = [option.split("=", 1) for option in mount.options]
    return base | {"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": mount.size, "Mode": mount.mode, "Options": words}}


def point(mount: Mount) -> dict[str, Any]:
    """An entry of a container's Mounts."""
    kinds = {BindMount: "bind", TmpfsMount: "tmpfs", ImageMount: "image"}
    source = mount.source if isinstance(mount, BindMount) else mount.image if isinstance(mount, ImageMount) else ""
    return {
        "Type": kinds[type(mount)],
        "Source": source,
        "Destination": mount.target,
        "Mode": "ro" if mount.read_only else "",
        "RW": not mount.read_only,
        "Propagation": mount.propagation if isinstance(mount, BindMount) else "",
    }
