"""Runs one more program inside a container: the helper of `exec` and of health checks.

Forked from the spawner.  This process joins the container and forks the program in it, then waits outside; the program
gets the capabilities, seccomp filter and user that the container's own has.

    daemon                                        helper                      program
      | -- request + pidfd, stdout, stderr, reply -> |                           |
      |                                              | -- joins, forks --------> | exec
      | <-- {"exit_code"} or {"error", exit_code} -- | <-- ends ---------------- |
      |    or {"timeout": true} after killing its process group                  |
      | -- closes its end of the reply ------------> | -- kills its process group
"""

import contextlib
import gc
import json
import os
import select
import signal
from typing import Any, NoReturn

from swarmd.runtime.stages import files, namespaces, privileges, syscalls
from swarmd.runtime.stages.privileges import StepError


def run(request: dict[str, Any], pidfd: int, stdout: int, stderr: int, reply: int) -> NoReturn:
    gc.disable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    syscalls.set_title("swarmd-exec")
    try:
        answer = _run(request, pidfd, stdout, stderr, reply)
    except OSError as error:
        answer = {"error": f"exec: {error.filename or 'container'}: {error.strerror}", "exit_code": 125}
    except Exception as error:
        answer = {"error": f"exec: {error}", "exit_code": 125}
    with contextlib.suppress(BrokenPipeError):
        os.write(reply, files.dump_json(answer))
    os._exit(0)


def _run(request: dict[str, Any], pidfd: int, stdout: int, stderr: int, reply: int) -> dict[str, Any]:
    directory = request["directory"]
    config: dict[str, Any] = json.loads(files.read_bytes(f"{directory}/config.json"))
    annotations: dict[str, str] = config["annotations"]
    bpf = annotations.get("swarmd.seccomp.bpf")
    seccomp = files.read_bytes(f"{directory}/{bpf}") if bpf else b""
    stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    for path in json.loads(annotations["swarmd.cgroup.procs"]):
        files.put(path, "0")
    namespaces.join_process(pidfd, config["linux"])
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        _become_program(request, config, seccomp, [stdin, stdout, stderr], writer)
    for fd in (writer, stdout, stderr, pidfd, stdin):
        os.close(fd)
    return _wait(pid, reader, reply, request.get("timeout"))


def _become_program(
    request: dict[str, Any], config: dict[str, Any], seccomp: bytes, stdio: list[int], writer: int
) -> NoReturn:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    annotations, process = config["annotations"], config["process"]
    try:
        os.setsid()
        for number, fd in enumerate(stdio):
            os.dup2(fd, number)
        os.dup2(writer, 3, inheritable=False)
        syscalls.close_from(4)
        os.umask(0o022)
        identity = privileges.find_identity(
            request["user"] or annotations.get("swarmd.user", ""), json.loads(annotations.get("swarmd.groups", "[]"))
        )
        environment = privileges.environment({**process, "env": [*process["env"], *request["env"]]}, identity)
        privileges.set_limits(process)
        privileges.enter_workdir(request["workdir"] or process["cwd"])
        privileges.become(process, identity, seccomp)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        privileges.run(request["command"], environment)
    except StepError as error:
        os.write(3, files.dump_json({"error": str(error), "exit_code": error.exit_code}))
    except Exception as error:
        os.write(3, files.dump_json({"error": f"exec: {error}", "exit_code": 125}))
    os._exit(125)


def _wait(pid: int, reader: int, reply: int, timeout: float | None) -> dict[str, Any]:
    """Wait for the program; kill its process group when time is up or nobody waits for the answer any more."""
    ended = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(reply, 0)  # only POLLERR: the daemon has closed its end
    ready = [fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)]
    if ended not in ready:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if ended not in ready:
        return {"timeout": True}
    if failure := files.read_fd(reader, 65536):
        answer: dict[str, Any] = json.loads(failure)
        return answer
    code = os.waitstatus_to_exitcode(status)
    return {"exit_code": code if code >= 0 else 128 - code}
