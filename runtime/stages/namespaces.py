"""Which namespaces a container's process enters, and when: `linux.namespaces` of its OCI config.

    shim   pid, time          `before_fork`: a process that makes or joins these is not moved, its children are
    init   network, ipc, uts, mount, cgroup    `enter`, as root of the host, who then mounts and configures
    init   user               `enter_user`, last: so nothing that was mounted can be taken away from inside, even by a
                              program that is given CAP_SYS_ADMIN

The user namespace is there before; until it is entered, files are made with the ids of its root (`act_as`), which
id-mapped mounts then write to the disk as those of an ordinary container.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Collection
from typing import Any

from swarmd.runtime.stages import files, syscalls

_FLAGS = {
    "pid": syscalls.CLONE_NEWPID,
    "time": syscalls.CLONE_NEWTIME,
    "network": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "mount": syscalls.CLONE_NEWNS,
    "cgroup": syscalls.CLONE_NEWCGROUP,
}
_BEFORE_FORK = ("pid", "time")
OUT_OF_THE_WAY = 64  # standard streams get low numbers later
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_SHARED_MEMORY = "/dev/shm"


def before_fork(linux: dict[str, Any]) -> None:
    """Make or join what a fork then brings about."""
    for kind, path in _wanted(linux).items():
        if kind in _BEFORE_FORK:
            _enter_one(kind, path)
            if kind == "time" and not path:
                _set_clocks(linux.get("timeOffsets", {}))


def after_fork() -> None:
    """The next children are in our own process namespace again: none can be made in the container's once it ends."""
    fd = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(fd, syscalls.CLONE_NEWPID, "process namespace")
    os.close(fd)


def enter(linux: dict[str, Any], made: Collection[str] = ()) -> None:
    """Join what has a path, then make the others at once; the cgroup namespace's root is the cgroup of this moment.

    made: the kinds that this process has made already.
    """
    before = {*_BEFORE_FORK, *made}
    wanted = {kind: path for kind, path in _wanted(linux).items() if kind in _FLAGS and kind not in before}
    for kind, path in wanted.items():
        if path:
            _enter_one(kind, path)
    syscalls.unshare(sum(_FLAGS[kind] for kind, path in wanted.items() if not path))
    if wanted.get("network") == "":
        _bring_loopback_up()


def user_path(linux: dict[str, Any]) -> str:
    """The user namespace to enter, "" for the host's."""
    return _wanted(linux).get("user", "")


def act_as(linux: dict[str, Any]) -> int:
    """Make files as the root of the user namespace from now on; return a descriptor of it, -1 when it is the host's."""
    path = user_path(linux)
    if not path:
        return -1
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fd = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, OUT_OF_THE_WAY)
    os.close(opened)
    # Without this the kernel takes the capabilities over files away with the host root's id.
    syscalls.prctl(syscalls.PR_SET_SECUREBITS, syscalls.SECBIT_NO_SETUID_FIXUP)
    syscalls.set_file_ids(*root_of(linux))
    return fd


def root_of(linux: dict[str, Any]) -> tuple[int, int]:
    """The host's user and group id of the container's root."""
    if not user_path(linux):
        return 0, 0
    maps = (linux["uidMappings"], linux["gidMappings"])
    uid, gid = (next((m["hostID"] for m in found if m["containerID"] == 0), 65534) for found in maps)
    return uid, gid


def enter_user(fd: int) -> None:
    """Become root of the user namespace: of nothing outside it any more."""
    syscalls.setns(fd, syscalls.CLONE_NEWUSER, "user namespace")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def join_process(pidfd: int, linux: dict[str, Any]) -> None:
    """Join all namespaces of a running container's process, the user's last; the pid namespace holds for children."""
    wanted = _wanted(linux)
    syscalls.setns(pidfd, sum(_FLAGS[kind] for kind in {*_FLAGS} - {"time"} | wanted.keys() & {"time"}), "namespaces")
    if wanted.get("user"):
        enter_user(pidfd)


def borrow_shared_memory(linux: dict[str, Any]) -> int:
    """Return a detached copy of the /dev/shm of the container whose IPC namespace is joined, -1 if there is none."""
    path = _wanted(linux).get("ipc", "")
    if not path:
        return -1
    process = path.removesuffix("/ns/ipc")
    ours = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"{process}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root = os.open(f"{process}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.setns(theirs, syscalls.CLONE_NEWNS, path)
    try:
        place = syscalls.open_beneath(root, _SHARED_MEMORY, os.O_PATH | os.O_DIRECTORY)
        return syscalls.open_tree_at(place, False, _SHARED_MEMORY)
    finally:
        syscalls.setns(ours, syscalls.CLONE_NEWNS, "mount namespace")
        for fd in (ours, theirs, root):
            os.close(fd)


def _wanted(linux: dict[str, Any]) -> dict[str, str]:
    return {namespace["type"]: namespace.get("path", "") for namespace in linux["namespaces"]}


def _enter_one(kind: str, path: str) -> None:
    if not path:
        syscalls.unshare(_FLAGS[kind])
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, _FLAGS[kind], path)
    finally:
        os.close(fd)


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inner:
        fcntl.ioctl(inner, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _set_clocks(offsets: dict[str, dict[str, int]]) -> None:
    for clock, offset in offsets.items():
        files.put("/proc/self/timens_offsets", f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}")
