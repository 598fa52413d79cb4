"""Makes a user namespace and a network namespace that belongs to it, and pins both to files.

The daemon can't: it has threads.  Forked from the spawner, this process forks one that makes the two, writes its map
from outside as user_namespaces(7) wants it, mounts both on the files that were asked for, and lets it end.
"""

import contextlib
import gc
import os
import signal
from typing import Any, NoReturn

from swarmd.runtime.stages import files, syscalls

_MS_BIND = 4096


def run(request: dict[str, Any], reply: int) -> NoReturn:
    """request: user and network, files to mount on; first and size, the host's range of ids."""
    gc.disable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    syscalls.set_title("swarmd-userns")
    try:
        _make(request)
        answer: dict[str, Any] = {}
    except OSError as error:
        answer = {"error": f"user namespace: {error.filename or 'unshare'}: {error.strerror}", "exit_code": 125}
    with contextlib.suppress(BrokenPipeError):
        os.write(reply, files.dump_json(answer))
    os._exit(0)


def _make(request: dict[str, Any]) -> None:
    to_child, to_parent = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        _be_made(to_child, to_parent)
    os.close(to_child[0])
    os.close(to_parent[1])
    try:
        _await(to_parent[0])
        for kind in ("uid", "gid"):
            files.put(f"/proc/{pid}/{kind}_map", f"0 {request['first']} {request['size']}")
        os.write(to_child[1], b".")
        _await(to_parent[0])
        for kind, name in (("user", "user"), ("net", "network")):
            syscalls.mount(f"/proc/{pid}/ns/{kind}", request[name], "", _MS_BIND)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _be_made(to_child: tuple[int, int], to_parent: tuple[int, int]) -> NoReturn:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):  # the parent sees the pipe closed
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.write(to_parent[1], b".")
        os.read(to_child[0], 1)
        syscalls.unshare(syscalls.CLONE_NEWNET)
        os.write(to_parent[1], b".")
        signal.pause()
    os._exit(1)


def _await(fd: int) -> None:
    if not os.read(fd, 1):
        raise OSError(0, "this kernel refused to make one; is user.max_user_namespaces 0?", "unshare")
