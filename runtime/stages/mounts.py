"""Performs the mounts of an OCI config below a root directory that is not yet "/".

Each mount is made detached, given its attributes, and only then attached to a target that was opened beneath the root:
a symlink in the image can't send it elsewhere, and nothing is ever visible with looser attributes than asked for.
"""

import os
import stat
from typing import Any

from swarmd.runtime.stages import syscalls

_ATTRIBUTES = {
    "ro": syscalls.ATTR_RDONLY,
    "nosuid": syscalls.ATTR_NOSUID,
    "nodev": syscalls.ATTR_NODEV,
    "noexec": syscalls.ATTR_NOEXEC,
    "noatime": syscalls.ATTR_NOATIME,
    "strictatime": syscalls.ATTR_STRICTATIME,
}
_DEFAULTS = {"rw", "suid", "dev", "exec", "relatime", "bind", "rbind"}
_PAGE = 4096


def perform(root: int, mount: dict[str, Any]) -> None:
    """Mount one entry of `mounts`, see the OCI runtime specification, config.md."""
    target, source = mount["destination"], mount.get("source", "")
    options: list[str] = mount.get("options", [])
    attributes, propagation, data = parse_options(options)
    if mount.get("type") == "bind" or "bind" in options or "rbind" in options:
        recursive = "rbind" in options
        fd = syscalls.open_tree(source, recursive)
        syscalls.set_mount_attributes(fd, attributes, propagation, recursive, source)
    else:
        fd = syscalls.new_filesystem(mount["type"], [("source", source or mount["type"]), *data], attributes)
    try:
        attach(fd, root, target)
    finally:
        os.close(fd)


def parse_options(options: list[str]) -> tuple[int, int, list[tuple[str, str]]]:
    """Split mount options into attributes of the mount, its propagation, and options of the file system."""
    attributes, propagation = 0, syscalls.PROPAGATION["private"]
    data: list[tuple[str, str]] = []
    for option in options:
        if option in _ATTRIBUTES:
            attributes |= _ATTRIBUTES[option]
        elif option.removeprefix("r") in syscalls.PROPAGATION:
            propagation = syscalls.PROPAGATION[option.removeprefix("r")]
        elif option not in _DEFAULTS:
            key, _, value = option.partition("=")
            data.append((key, value))
    return attributes, propagation, data


def attach(fd: int, root: int, target: str) -> None:
    directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    place = open_or_make(root, target, directory)
    try:
        if stat.S_ISDIR(os.fstat(place).st_mode) != directory:
            kinds = ("a directory", "a file") if directory else ("a file", "a directory")
            raise OSError(0, f"the source is {kinds[0]}, but the image has {kinds[1]} there", target)
        syscalls.move_mount(fd, place, target)
    finally:
        os.close(place)


def open_or_make(root: int, path: str, directory: bool) -> int:
    """Open path beneath root, making what is missing: directories, and at the end a directory or an empty file."""
    try:
        return syscalls.open_beneath(root, path, os.O_PATH)
    except FileNotFoundError:
        pass
    parent, _, name = path.rstrip("/").rpartition("/")
    holder = open_or_make(root, parent, directory=True) if parent else os.dup(root)
    try:
        if directory:
            os.mkdir(name, 0o755, dir_fd=holder)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=holder))
    except FileExistsError:
        raise OSError(0, "is a symlink that leads nowhere in the image", path) from None
    finally:
        os.close(holder)
    return syscalls.open_beneath(root, path, os.O_PATH)


def overlay(lower: list[str], upper: str, work: str, rootfs: str, attributes: int) -> int:
    """Mount an overlay on rootfs and return its root; lower holds the image's layers, the topmost first."""
    try:
        layers = [("lowerdir+", layer) for layer in lower]
        options = [("source", "overlay"), *layers, ("upperdir", upper), ("workdir", work)]
        fd = syscalls.new_filesystem("overlay", options, attributes)
    except OSError as error:
        if error.filename != "overlay lowerdir+":
            raise
        return _overlay_by_options(lower, upper, work, rootfs, attributes)
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.move_mount(fd, root, rootfs)
    os.close(root)
    return fd


def _overlay_by_options(lower: list[str], upper: str, work: str, rootfs: str, attributes: int) -> int:
    """For kernels before 6.5: all options in one page, with layer names relative to their common directory."""
    common = os.path.commonpath([os.path.dirname(layer) for layer in lower])
    names = [_escaped(os.path.relpath(layer, common)) for layer in lower]
    data = f"lowerdir={':'.join(names)},upperdir={_escaped(upper)},workdir={_escaped(work)}"
    if len(data.encode()) >= _PAGE:
        raise OSError(0, f"{len(lower)} layers do not fit into the mount options; Linux 6.5 or newer can", rootfs)
    os.chdir(common)
    syscalls.mount("overlay", rootfs, "overlay", 0, data)
    fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.set_mount_attributes(fd, attributes, 0, False, rootfs)
    return fd


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def mask(root: int, path: str) -> None:
    """Cover a file with /dev/null, a directory with an empty read-only one; nothing to do when it is not there."""
    try:
        place = syscalls.open_beneath(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(os.fstat(place).st_mode):
        fd = syscalls.new_filesystem("tmpfs", [("size", "0")], syscalls.ATTR_RDONLY)
    else:
        fd = syscalls.open_tree("/dev/null", False)
    syscalls.move_mount(fd, place, path)
    os.close(fd)
    os.close(place)


def make_read_only(root: int, path: str) -> None:
    try:
        place = syscalls.open_beneath(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    # Beneath the root a path is looked up there, so the copy is taken through the descriptor just opened.
    fd = syscalls.open_tree(f"/proc/self/fd/{place}", True)
    syscalls.set_mount_attributes(fd, syscalls.ATTR_RDONLY, 0, True, path)
    syscalls.move_mount(fd, place, path)
    os.close(fd)
    os.close(place)
