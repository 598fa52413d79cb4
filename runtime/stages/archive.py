"""Reads and writes a container's files for the daemon, as tar archives, from a process that has gone into them.

Forked from the spawner.  It loads all it needs and then enters the running container's mount namespace (and its ids),
or mounts the stopped container's file system for itself; from then on every path is opened by openat2(2) as if the
container's root were "/", so that no link leads out, however it is swapped meanwhile, and nothing of the container's
is ever loaded or run (CVE-2018-15664, CVE-2019-14271).

    get     out: a line {"stat"}, then the archive of a path          put     in: an archive, unpacked into a directory
    stat    out: the line alone                                       export  out: the archive of the whole root
    the answer, through reply: {} or {"error", "kind"}; an archive is complete only if the answer says so

The next steps are `pack.py` and `unpack.py`.
"""

import errno
import gc
import os
import resource
import signal
import sys
from typing import Any, NoReturn

from swarmd.runtime.stages import files, mounts, namespaces, overlays, syscalls
from swarmd.runtime.stages.inside import Refused
from swarmd.runtime.stages.privileges import StepError

_MEMORY = 512 << 20  # what a header may claim to be is up to whoever made the archive
_KINDS = {
    errno.ENOENT: "missing",
    errno.ELOOP: "missing",
    errno.EROFS: "read-only",
    errno.ENOTDIR: "invalid",
    errno.EISDIR: "invalid",
    errno.ENAMETOOLONG: "invalid",
    errno.EFBIG: "invalid",
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
}


def run(request: dict[str, Any], fds: list[int]) -> NoReturn:
    """fds: the running container's pidfd if there is one, the pipe of the archive, reply."""
    # Before anything of the container is in sight; not in the spawner, whose memory every shim shares.
    from swarmd.runtime.stages import pack, unpack

    for places in (sys.path, sys.meta_path, sys.path_hooks):
        places.clear()  # from here nothing can be loaded, whoever asks for it
    gc.disable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    syscalls.set_title("swarmd-archive")
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    *pidfd, data, reply = fds
    answer: dict[str, Any] = {}
    try:
        root = _enter(request, pidfd)
        work = {"get": pack.get, "stat": pack.get, "export": pack.export, "put": unpack.put}[request["action"]]
        work(root, request, data)
    except BrokenPipeError:
        answer = {}  # nobody reads any more
    except Exception as problem:
        what, kind = said(problem)
        answer = {"error": what, "kind": kind, "exit_code": 125}
    try:
        os.write(reply, files.dump_json(answer))
    finally:
        os._exit(0)


def said(problem: Exception) -> tuple[str, str]:
    match problem:
        case Refused():
            return str(problem), problem.kind
        case StepError():
            return str(problem), "invalid"
        case OSError():
            what = os.fsdecode(problem.filename) if isinstance(problem.filename, str | bytes) else "the archive"
            return f"{what}: {(problem.strerror or str(problem)).lower()}", _KINDS.get(problem.errno or 0, "failed")
        case MemoryError():
            return "the archive has a header that is larger than any that is needed", "invalid"
        case _:
            return f"{type(problem).__name__}: {problem}", "failed"


def _enter(request: dict[str, Any], pidfd: list[int]) -> int:
    """Return a descriptor of the container's root."""
    if pidfd and request["action"] != "export":
        linux: dict[str, Any] = request["linux"]
        try:
            syscalls.setns(pidfd[0], syscalls.CLONE_NEWNS, "mount namespace")
        except ProcessLookupError:
            raise Refused(f"container {request['name']} has just ended: ask again", "ended") from None
        if namespaces.user_path(linux):
            namespaces.enter_user(pidfd[0])
        return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.PROPAGATION["slave"])
    directory: str = request["directory"]
    lower: list[str] = request["lower"]
    if request["action"] == "export":
        # Read-only, of its layers and what it has written: a running container's own mount stays its own.
        fd = overlays.read_only([f"{directory}/upper", *lower, f"{directory}/rootfs"], syscalls.ATTR_RDONLY)
    else:
        fd = overlays.writable(lower, directory, f"{directory}/rootfs", syscalls.ATTR_NODEV, -1)
        for entry in request["binds"]:
            mounts.perform(fd, entry)
        if request["read_only"]:
            syscalls.set_mount_attributes(fd, syscalls.ATTR_RDONLY, 0, False, "/")
    return fd
