"""Mounts layers as one file system, see the kernel's filesystems/overlayfs.rst; directories are the topmost first.

Whoever calls this is in a mount namespace of its own: some of what is mounted stays there, over the layers themselves.
"""

import errno
import os

from swarmd.runtime.stages import syscalls

MOST = 500  # lower directories of one overlay, OVL_MAX_STACK of the kernel
_ABOVE = 400  # of those that stay by themselves when there are more than that
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_mapped: set[str] = set()


def writable(lower: list[str], directory: str, rootfs: str, attributes: int, user: int) -> int:
    """Mount layers on rootfs, with the upper and work of a directory, and return its root.

    With a user namespace all of them are seen with its ids mapped, each mounted over itself in this mount namespace,
    where they vanish with the host's root.
    """
    if user >= 0:
        _map_in_place([*lower, directory], user)
    # The kernel wants one at least; what is mounted on an empty directory may have it below.
    lower = _stacked(_distinct(lower) or [rootfs])
    upper, work = f"{directory}/upper", f"{directory}/work"
    fd = _new(lower, [("upperdir", upper), ("workdir", work)], attributes)
    if fd < 0:
        _mount_by_options(lower, f",upperdir={_escaped(upper)},workdir={_escaped(work)}", rootfs)
        fd = os.open(rootfs, _DIRECTORY)
        syscalls.set_mount_attributes(fd, attributes, 0, False, rootfs)
        return fd
    root = os.open(rootfs, _DIRECTORY)
    syscalls.move_mount(fd, root, rootfs)
    os.close(root)
    return fd


def read_only(lower: list[str], attributes: int, user: int = -1) -> int:
    """Return the root of layers, mounted nowhere. The kernel wants two at least; the last may be an empty directory."""
    if user >= 0:
        _map_in_place(lower, user)
    return _detached(_stacked(_distinct(lower)), attributes)


def of_options(data: list[tuple[str, str]], attributes: int, user: int = -1) -> int:
    """One that a mount's options describe, lowerdir=A:B and perhaps an upperdir and a workdir; mounted nowhere."""
    lower = _distinct([path for key, value in data if key == "lowerdir" for path in value.split(":")])
    others = [(key, value) for key, value in data if key != "lowerdir"]
    if not others:
        return read_only(lower, attributes, user)
    return syscalls.new_filesystem("overlay", [*(("lowerdir+", path) for path in lower), *others], attributes)


def _distinct(lower: list[str]) -> list[str]:
    """Each once, as the kernel wants it: of a layer that an image has twice the upper one hides all of the other."""
    return [*dict.fromkeys(lower)]


def _detached(lower: list[str], attributes: int) -> int:
    fd = _new(lower, [], attributes)
    if fd < 0:  # by mount(2), for a moment on the last of them
        _mount_by_options(lower, "", lower[-1])
        fd = syscalls.open_tree(lower[-1], False)
        syscalls.umount(lower[-1], syscalls.MNT_DETACH)
        syscalls.set_mount_attributes(fd, attributes, 0, False, lower[-1])
    return fd


def _new(lower: list[str], more: list[tuple[str, str]], attributes: int) -> int:
    """An option for each directory: together they may be longer than an option can be. -1 before Linux 6.5."""
    options = [("source", "overlay"), *(("lowerdir+", path) for path in lower), *more]
    try:
        return syscalls.new_filesystem("overlay", options, attributes)
    except OSError as error:
        # An older kernel refuses the option, or takes any and then refuses to make the file system.
        if error.errno != errno.EINVAL or error.filename not in ("overlay lowerdir+", "overlay"):
            raise
        return -1


def _mount_by_options(lower: list[str], more: str, target: str) -> None:
    """All options have one page of memory together, so the directories are named by their descriptors."""
    fds = [os.open(path, _DIRECTORY) for path in lower]
    os.chdir("/proc/self/fd")
    try:
        syscalls.mount("overlay", target, "overlay", 0, f"lowerdir={':'.join(map(str, fds))}{more}")
    finally:
        os.chdir("/")
        for fd in fds:
            os.close(fd)


def _stacked(lower: list[str]) -> list[str]:
    """With the lowest together as one overlay, mounted over the last of them, if there are too many for the kernel."""
    if len(lower) <= _ABOVE:
        return lower
    above, below = lower[:_ABOVE], lower[_ABOVE:]
    if len(below) > MOST:
        raise OSError(errno.E2BIG, f"an image can have {_ABOVE + MOST} layers at most, and this has {len(lower)}", "")
    if len(below) > 1:
        fd = _detached(below, syscalls.ATTR_RDONLY)
        place = os.open(below[-1], _DIRECTORY)
        syscalls.move_mount(fd, place, below[-1])
        os.close(place)
        os.close(fd)
    return [*above, below[-1]]


def _map_in_place(paths: list[str], user: int) -> None:
    """Mount directories over themselves with ids mapped; those that are so already stay."""
    for path in paths:
        if any(path == done or path.startswith(f"{done}/") for done in _mapped):
            continue
        fd = syscalls.open_tree(path, False)
        syscalls.map_ids(fd, user, False, path)
        place = os.open(path, _DIRECTORY)
        syscalls.move_mount(fd, place, path)
        os.close(fd)
        os.close(place)
        _mapped.add(path)


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
