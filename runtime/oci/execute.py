"""`exec`: one more program in a container that `create` made, with this command's own streams.

This process joins the container's namespaces itself, and forks the program in them; so what it needs of the host, the
pid file and the console socket, it opens before.
"""

import fcntl
import json
import os
import signal
import socket
import termios
from typing import Any, NoReturn

from swarmd.runtime.errors import Conflict, StartError
from swarmd.runtime.oci.state import Directory
from swarmd.runtime.stages import files, namespaces, privileges, syscalls
from swarmd.runtime.stages.privileges import StepError


def execute(directory: Directory, process: dict[str, Any], console: str, pid_file: str, detach: bool) -> int:
    """Return the program's exit code, 0 at once when detached. Raises StartError when it can't be run."""
    state = directory.load()
    if (status := directory.status(state)) != "running":
        raise Conflict(f"container {directory.id} is {status}, so nothing can be run in it")
    linux, annotations = state.config["linux"], state.config["annotations"]
    bpf = annotations.get("swarmd.seccomp.bpf")
    seccomp = (directory.path / bpf).read_bytes() if bpf else b""
    pidfd = os.pidfd_open(state.pid)
    receiver = _connect(console) if process.get("terminal") else None
    pid_fd = os.open(pid_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644) if pid_file else -1
    for path in json.loads(annotations["swarmd.cgroup.procs"]):
        files.put(path, "0")
    privileges.set_limits(process)
    namespaces.join_process(pidfd, linux)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        _become(process, seccomp, receiver, writer)
    os.close(writer)
    if failure := files.read_fd(reader, 65536):  # end of file comes with the exec
        os.waitpid(pid, 0)
        said = json.loads(failure)
        raise StartError(said["error"], said["exit_code"])
    if pid_fd >= 0:
        os.write(pid_fd, str(pid).encode())
    if detach:
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda received, _: os.kill(pid, received))
    _, status_word = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status_word)
    return code if code >= 0 else 128 - code


def _connect(console: str) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        receiver.connect(console)
    except OSError as error:
        raise StartError(f"console socket {console!r}: {error.strerror}") from None
    return receiver


def _become(process: dict[str, Any], seccomp: bytes, receiver: socket.socket | None, writer: int) -> NoReturn:
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    try:
        os.setsid()
        if receiver is not None:
            _open_terminal(receiver)
        os.dup2(writer, 3, inheritable=False)
        syscalls.close_from(4)
        os.umask(process["user"].get("umask", 0o022))
        identity = privileges.identity_of(process["user"], {})
        environment = privileges.environment(process, identity)
        if receiver is not None:
            os.fchown(0, identity.uid, -1)
        privileges.enter_workdir(process.get("cwd") or "/")
        privileges.become(process, identity, seccomp)
        privileges.run(process["args"], environment)
    except StepError as error:
        os.write(3, files.dump_json({"error": str(error), "exit_code": error.exit_code}))
    except Exception as error:
        os.write(3, files.dump_json({"error": f"exec: {error}", "exit_code": 125}))
    os._exit(125)


def _open_terminal(receiver: socket.socket) -> None:
    """A pty of the container's own devpts."""
    master, slave = os.openpty()
    socket.send_fds(receiver, [b"/dev/ptmx"], [master])
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(slave, number)
