"""Performs the mounts of an OCI config below a root directory that is not yet "/".

Each mount is made detached, given its attributes, and only then attached to a target that was opened beneath the root:
a symlink in the image can't send it elsewhere, and nothing is ever visible with looser attributes than asked for.
"""

import os
import stat
from typing import Any

from swarmd.runtime.stages import overlays, syscalls

_ATTRIBUTES = {
    "ro": syscalls.ATTR_RDONLY,
    "nosuid": syscalls.ATTR_NOSUID,
    "nodev": syscalls.ATTR_NODEV,
    "noexec": syscalls.ATTR_NOEXEC,
    "noatime": syscalls.ATTR_NOATIME,
    "strictatime": syscalls.ATTR_STRICTATIME,
}
_CLEARED = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "atime": "noatime"}
_DEFAULTS = {"relatime", "bind", "rbind", "idmap", "ridmap", "rro", "tmpcopyup"}
OPTIONS = {*_ATTRIBUTES, *_CLEARED, *_DEFAULTS, *syscalls.PROPAGATION, *(f"r{name}" for name in syscalls.PROPAGATION)}
_TMPFS = {"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol", "inode32", "inode64", "noswap"}
_NODE = ".device"


# Trees to be shared with the host, by where they go; see take_shared.
_shared: dict[str, int] = {}


def take_shared(entries: list[dict[str, Any]]) -> None:
    """Copy the sources of `shared` binds while their copies are still peers of the host's mounts."""
    for entry in entries:
        options = entry.get("options", [])
        if {"shared", "rshared"} & {*options}:
            _shared[entry["destination"]] = syscalls.open_tree(entry["source"], "rbind" in options)


def perform(root: int, mount: dict[str, Any], user: int = -1, owner: tuple[int, int] = (0, 0)) -> None:
    """Mount one entry of `mounts`, see the OCI runtime specification, config.md.

    user: the user namespace of `idmap`, -1 for the host's; owner: the host's ids of its root.
    """
    target, source = mount["destination"], mount.get("source", "")
    options: list[str] = mount.get("options", [])
    if mount.get("type") == "bind" or "bind" in options or "rbind" in options:
        fd = _bind(target, source, options, user)
    else:
        attributes, _, data = parse_options(options)
        first = dict(zip(("uid", "gid"), owner, strict=True))
        data = [(key, str(int(value) + first[key]) if key in first else value) for key, value in data]
        if subpath := dict(data).get("swarmd.subpath"):
            data.remove(("swarmd.subpath", subpath))
        if mount["type"] == "overlay":
            fd = overlays.of_options(data, attributes, user)
        else:
            fd = syscalls.new_filesystem(mount["type"], [("source", source or mount["type"]), *data], attributes)
        if subpath:
            fd = _below(fd, root, target, subpath)
    try:
        attach(fd, root, target)
    finally:
        os.close(fd)


def _bind(target: str, source: str, options: list[str], user: int) -> int:
    attributes, propagation, _ = parse_options(options)
    recursive = "rbind" in options
    fd = _shared[target] if target in _shared else syscalls.open_tree(source, recursive)
    if user >= 0 and {"idmap", "ridmap"} & {*options}:
        syscalls.map_ids(fd, user, "ridmap" in options, source)
    syscalls.set_mount_attributes(fd, attributes, propagation, False, source)
    if recursive:
        deep = attributes if "rro" in options else attributes & ~syscalls.ATTR_RDONLY
        syscalls.set_mount_attributes(fd, deep, propagation, True, source)
    return fd


def _below(fd: int, root: int, target: str, subpath: str) -> int:
    """A directory of a new file system instead of its root: mounted for a moment, as only what is mounted is copied."""
    attach(fd, root, target)
    os.close(fd)
    place = syscalls.open_beneath(root, target, os.O_PATH)
    inner = syscalls.open_beneath(place, subpath, os.O_PATH | os.O_DIRECTORY)
    copy = syscalls.open_tree_at(inner, False, subpath)
    syscalls.umount(f"/proc/self/fd/{place}", syscalls.MNT_DETACH)
    os.close(place)
    os.close(inner)
    return copy


def onto_itself(path: str) -> int:
    """Make a directory a mount, as pivot_root wants its new root; return it."""
    fd = syscalls.open_tree(path, True)
    place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.move_mount(fd, place, path)
    os.close(place)
    return fd


def cgroups(root: int, mount: dict[str, Any], procs: list[str]) -> None:
    """Show the container its own cgroup as its hierarchy's root: one directory in v2, one per controller in v1."""
    target = mount["destination"]
    attributes, _, _ = parse_options(mount.get("options", []))
    directories = [os.path.dirname(path) for path in procs]
    if len(directories) == 1:
        fd = syscalls.open_tree(directories[0], False)
        syscalls.set_mount_attributes(fd, attributes, syscalls.PROPAGATION["private"], False, directories[0])
        attach(fd, root, target)
        os.close(fd)
        return
    top = syscalls.new_filesystem("tmpfs", [("mode", "755"), ("size", "64k")], attributes & ~syscalls.ATTR_RDONLY)
    attach(top, root, target)
    for directory in directories:
        controllers = os.path.basename(_mount_point(directory))
        os.mkdir(controllers, 0o755, dir_fd=top)
        fd = syscalls.open_tree(directory, False)
        syscalls.move_mount_to(fd, top, controllers)  # nobody else is in there yet
        os.close(fd)
        for alias in controllers.split(",") if "," in controllers else ():
            os.symlink(controllers, alias, dir_fd=top)
    # All at once; nobody but us sees them before.
    syscalls.set_mount_attributes(top, attributes, syscalls.PROPAGATION["private"], True, target)
    os.close(top)


def _mount_point(path: str) -> str:
    """Where the hierarchy of a cgroup is mounted: above it is another file system."""
    device = os.stat(path).st_dev
    while path != "/" and os.stat(above := path.rpartition("/")[0] or "/").st_dev == device:
        path = above
    return path


def device(root: int, wanted: dict[str, Any], owner: tuple[int, int]) -> None:
    """Make a device node, `linux.devices` of the OCI specification; owner: the host's ids of the container's root.

    The file systems around it are nodev, so it is bound in place without: mknod from inside gives no device.
    """
    path, kind = wanted["path"], {"b": stat.S_IFBLK, "p": stat.S_IFIFO}.get(wanted["type"], stat.S_IFCHR)
    number = os.makedev(wanted.get("major", 0), wanted.get("minor", 0))
    dev = syscalls.open_beneath(root, "/dev", os.O_PATH | os.O_DIRECTORY)
    try:
        os.mknod(_NODE, kind | 0o600, number, dir_fd=dev)
        os.chmod(_NODE, wanted.get("fileMode", 0o666) & 0o7777, dir_fd=dev)
        os.chown(_NODE, owner[0] + wanted.get("uid", 0), owner[1] + wanted.get("gid", 0), dir_fd=dev)
        node = os.open(_NODE, os.O_PATH | os.O_CLOEXEC, dir_fd=dev)
        fd = syscalls.open_tree_at(node, False, path)
        syscalls.clear_mount_attributes(fd, syscalls.ATTR_NODEV, path)
        attach(fd, root, path)
        os.close(fd)
        os.close(node)
        os.unlink(_NODE, dir_fd=dev)
    except OSError as error:
        which = f"{wanted.get('major', 0)}:{wanted.get('minor', 0)}"
        raise OSError(error.errno, f"device {which}: {error.strerror}", path) from None
    finally:
        os.close(dev)


def parse_options(options: list[str]) -> tuple[int, int, list[tuple[str, str]]]:
    """Split mount options into attributes of the mount, its propagation, and options of the file system."""
    attributes, propagation = 0, syscalls.PROPAGATION["private"]
    data: list[tuple[str, str]] = []
    for option in options:
        if option in _ATTRIBUTES:
            attributes |= _ATTRIBUTES[option]
        elif option in _CLEARED:
            attributes &= ~_ATTRIBUTES[_CLEARED[option]]
        elif option.removeprefix("r") in syscalls.PROPAGATION:
            propagation = syscalls.PROPAGATION[option.removeprefix("r")]
        elif option not in _DEFAULTS:
            key, _, value = option.partition("=")
            data.append((key, value))
    return attributes, propagation, data


def is_tmpfs_option(option: str) -> bool:
    return option in _ATTRIBUTES or option in _CLEARED or option.partition("=")[0] in _TMPFS


def attach(fd: int, root: int, target: str) -> None:
    directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    place = open_or_make(root, target, directory)
    try:
        if stat.S_ISDIR(os.fstat(place).st_mode) != directory:
            kinds = ("a directory", "a file") if directory else ("a file", "a directory")
            raise OSError(0, f"{kinds[0]} can't take the place of {kinds[1]} of the image", target)
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
    except OSError as error:
        raise OSError(error.errno, f"can't be made there: {error.strerror}", path) from None
    finally:
        os.close(holder)
    return syscalls.open_beneath(root, path, os.O_PATH)


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
        syscalls.set_mount_attributes(fd, 0, syscalls.PROPAGATION["private"], False, path)
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
