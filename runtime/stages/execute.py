"""Runs one more program inside a container: the helper of `exec` and of health checks.

Forked from the spawner.  This process joins the container and forks the program in it, then waits outside and carries
the program's streams to the client whose connection came with the request, if one did; the program gets the
capabilities, seccomp filter and user that the container's own has.

    daemon                                        helper                      program
      | -- request + pidfd, client, control -------> |                           |
      |                                              | -- joins, forks --------> | exec
      | <-- {"pid"} or {"error", "exit_code"} ------ |                           |
      | -- {"resize": [height, width]} ------------> |                           |
      | <-- {"exit_code"} -------------------------- | <-- ends ---------------- |
      |    or {"timeout": true} after killing its process group                  |
      | -- closes its end of control --------------> | -- kills its process group, if the request is "bound"
"""

import contextlib
import fcntl
import gc
import json
import os
import signal
import socket
import termios
from typing import Any, NoReturn

from swarmd.runtime.stages import files, namespaces, privileges, streams, syscalls
from swarmd.runtime.stages.privileges import StepError

_PIPE_SIZE = 1 << 20
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441


def run(request: dict[str, Any], pidfd: int, *fds: int) -> NoReturn:
    """fds: the client's connection, unless nobody attaches, and the control socket."""
    gc.disable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    syscalls.set_title("swarmd-exec")
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fds[-1])
    client = streams.Client(fds[0], request) if len(fds) > 1 else None
    helper = _Helper(request, control, client)
    try:
        answer = helper.run(pidfd)
    except StepError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
    except OSError as error:
        answer = {"error": f"exec: {error.filename or 'container'}: {error.strerror}", "exit_code": 125}
    except Exception as error:
        answer = {"error": f"exec: {error}", "exit_code": 125}
    helper.end(answer)
    os._exit(0)


class _Helper:
    def __init__(self, request: dict[str, Any], control: socket.socket, client: streams.Client | None) -> None:
        self._request, self._control, self._client = request, control, client
        self._terminal: bool = request["tty"]
        self._pump = streams.Pump({}, -1, self._terminal, True)

    def run(self, pidfd: int) -> dict[str, Any]:
        directory = self._request["directory"]
        config: dict[str, Any] = json.loads(files.read_bytes(f"{directory}/config.json"))
        annotations: dict[str, str] = config["annotations"]
        bpf = "" if self._request["privileged"] else annotations.get("swarmd.seccomp.bpf", "")
        seccomp = files.read_bytes(f"{directory}/{bpf}") if bpf else b""
        nowhere = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        for path in json.loads(annotations["swarmd.cgroup.procs"]):
            files.put(path, "0")
        namespaces.join_process(pidfd, config["linux"])
        theirs = self._open_terminal() if self._terminal else self._open_pipes(nowhere)
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            _become_program(self._request, config, seccomp, theirs, writer)
        for fd in {writer, pidfd, nowhere, *theirs}:
            os.close(fd)
        if self._client:
            self._pump.add(self._client)
        if failure := files.read_fd(reader, 65536):
            os.waitpid(pid, 0)
            answer: dict[str, Any] = json.loads(failure)
            return answer
        self._tell({"pid": pid})
        return self._wait(pid)

    def end(self, answer: dict[str, Any]) -> None:
        """Say how it ended to the daemon first, whom the client will ask as soon as it has seen the end."""
        if self._client and "error" in answer:
            self._pump.add(self._client)
            self._pump.say("stdout" if self._request["stdout"] else "stderr", f"{answer['error']}\r\n".encode())
        self._tell(answer)
        self._pump.flush()

    def _tell(self, answer: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the daemon is gone
            self._control.send(files.dump_json(answer))

    def _open_pipes(self, nowhere: int) -> list[int]:
        if self._client is None:
            return [nowhere, nowhere, nowhere]
        theirs, stdin, outputs = [nowhere], -1, {}
        if self._request["stdin"]:
            theirs[0], stdin = os.pipe()
        for stream in ("stdout", "stderr"):
            if not self._request[stream]:
                theirs.append(nowhere)
                continue
            reader, writer = os.pipe()
            outputs[reader] = stream
            theirs.append(writer)
        for fd in (*outputs, *((stdin,) if stdin >= 0 else ())):
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._pump = streams.Pump(outputs, stdin, False, True)
        return theirs

    def _open_terminal(self) -> list[int]:
        """Make one in the container's own devpts; its other end comes from the kernel, not from a name in there."""
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            master = syscalls.open_beneath(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            fcntl.ioctl(master, _TIOCSPTLCK, b"\0\0\0\0")
            slave: int = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise StepError(f"terminal: /dev/pts/ptmx: {error.strerror}", 126) from None
        finally:
            os.close(root)
        if any(self._request["size"]):
            streams.set_size(master, *self._request["size"])
        self._pump = streams.Pump({master: "stdout"}, master if self._request["stdin"] else -1, True, False)
        return [slave, slave, slave]

    def _wait(self, pid: int) -> dict[str, Any]:
        """Wait for the program; kill its process group when time is up or it is bound to a caller who is gone."""
        ended = os.pidfd_open(pid)
        abandoned: list[bool] = []

        def order() -> None:
            try:
                data = self._control.recv(4096)
            except OSError:
                data = b""
            if data:
                self._pump.resize(*json.loads(data)["resize"])
                return
            self._pump.unwatch(self._control.fileno())
            if self._request["bound"]:
                abandoned.append(True)
                _kill(pid)

        self._pump.watch(self._control.fileno(), order)
        in_time = self._pump.run(ended, self._request["timeout"])
        if not in_time:
            _kill(pid)
        _, status = os.waitpid(pid, 0)
        if not in_time or abandoned:
            return {"timeout": True}
        code = os.waitstatus_to_exitcode(status)
        return {"exit_code": code if code >= 0 else 128 - code}


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _become_program(
    request: dict[str, Any], config: dict[str, Any], seccomp: bytes, stdio: list[int], writer: int
) -> NoReturn:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    annotations, process = config["annotations"], config["process"]
    if request["privileged"]:
        sets = {name: list(privileges.CAPABILITIES) for name in ("bounding", "effective", "permitted")}
        process = {**process, "capabilities": sets, "noNewPrivileges": False}
    try:
        os.setsid()
        # Out of the way of the numbers they are given, which some of them may have.
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, namespaces.OUT_OF_THE_WAY) for fd in (*stdio, writer)]
        for number, fd in enumerate(moved):
            os.dup2(fd, number, inheritable=number < 3)
        syscalls.close_from(4)
        os.umask(0o022)
        identity = privileges.find_identity(
            request["user"] or annotations.get("swarmd.user", ""), json.loads(annotations.get("swarmd.groups", "[]"))
        )
        if request["tty"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            os.fchown(0, identity.uid, -1)
        terminal = ["TERM=xterm"] if request["tty"] else []
        environment = privileges.environment(
            {**process, "env": [*terminal, *process["env"], *request["env"]]}, identity
        )
        privileges.set_limits(process)
        privileges.enter_workdir(request["workdir"] or process["cwd"], make=not request["workdir"])
        privileges.become(process, identity, seccomp)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        privileges.run(request["command"], environment)
    except StepError as error:
        os.write(3, files.dump_json({"error": str(error), "exit_code": error.exit_code}))
    except Exception as error:
        os.write(3, files.dump_json({"error": f"exec: {error}", "exit_code": 125}))
    os._exit(125)
