"""The only process that forks: small, single-threaded, standard library only, started before the daemon's threads.

It holds no state.  When it dies, the daemon starts another; when the daemon dies, its socket closes and it ends.  What
it forked goes on: shims and exec helpers answer the daemon themselves, each through a pipe that came with its request.

    daemon                                                   spawner             shim, or exec helper
      |                                                        | -- fork ------> |  waits for whatever comes next
      | -- {"op": "start", "directory", "clients"} ----------------------------> |
      |    + the clients' connections, reply                   | <- "." -------- |  has it: the spawner forks another
      | <-- {"pid", "started", ...} or {"error", "exit_code"} ------------------ |
      | -- {"op": "exec", ...} + pidfd, client, control -----------------------> |
      |    see stages/execute.py                               |                 |
      |    end of file on a reply without an answer: the forked process was killed
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from swarmd.runtime.stages import archive, execute, files, shim, snapshot, syscalls, userns
from swarmd.runtime.stages.streams import Client

MOST_CLIENTS = 200  # attached before a start; the kernel passes 253 descriptors at most
MOST_FDS = MOST_CLIENTS + 4
LARGEST_REQUEST = 128 * 1024


def main() -> None:
    fd = int(sys.argv[1])
    os.closerange(3, fd)
    syscalls.close_from(fd + 1)
    requests = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
    requests.set_inheritable(False)
    os.setsid()
    _fear_as_others()
    syscalls.set_title("swarmd-spawner")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; each forked process answers for itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    while _lend(requests):
        pass


def _fear_as_others() -> None:
    """systemd spares the daemon when memory runs out (deploy/systemd); containers and what runs in them are not it."""
    if int(files.read_bytes("/proc/self/oom_score_adj")) < 0:
        files.put("/proc/self/oom_score_adj", "0")


def _lend(requests: socket.socket) -> bool:
    """Fork a process, which waits for the next request and serves it; False once the daemon is gone.

    It is there before it is needed: a fork, and the pages that are copied after it, take longer than all else here.
    """
    taken, tell = os.pipe()
    spawner = os.getpid()
    try:
        child = _fork(requests)
    except OSError as error:
        os.close(taken)
        os.close(tell)
        return _refuse(requests, error)
    if not child:
        os.close(taken)
        _await_request(requests, tell, spawner)
    os.close(tell)
    has_request = os.read(taken, 1)
    os.close(taken)
    return bool(has_request) or not _events(requests, 0, 0)


def _fork(requests: socket.socket) -> int:
    try:
        return os.fork()
    except OSError:
        _events(requests, select.POLLIN, None)  # nobody needs it yet, and then it may work
        return os.fork()


def _refuse(requests: socket.socket, problem: OSError) -> bool:
    data, fds, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, MOST_FDS)
    if data:
        with contextlib.suppress(BrokenPipeError):
            os.write(fds[-1], files.dump_json({"error": f"spawner: fork: {problem.strerror}", "exit_code": 125}))
    for fd in fds:
        os.close(fd)
    return bool(data)


def _events(requests: socket.socket, wanted: int, timeout: int | None) -> bool:
    """Whether there are any, or the daemon has closed its end; timeout: in ms."""
    poll = select.poll()
    poll.register(requests, wanted)
    return bool(poll.poll(timeout))


def _await_request(requests: socket.socket, tell: int, spawner: int) -> NoReturn:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # it is of no use to a next spawner
    if os.getppid() != spawner:
        os._exit(0)
    # Our own streams are the daemon's; whoever reads those must see them end with it.
    nowhere = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    os.close(nowhere)
    shim.warm()
    data, fds, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, MOST_FDS)
    if not data:
        os._exit(0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
    os.write(tell, b".")
    os.close(tell)
    requests.close()
    for fd in fds:
        os.set_inheritable(fd, False)
    _serve(json.loads(data), fds)


def _serve(request: dict[str, Any], fds: list[int]) -> NoReturn:
    if request["op"] == "start":
        clients = [Client(fd, wants) for fd, wants in zip(fds, request["clients"], strict=False)]
        shim.run(request["directory"], clients, fds[-1])
    elif request["op"] == "archive":
        archive.run(request, fds)
    elif request["op"] == "snapshot":
        snapshot.run(request, fds)
    elif request["op"] == "userns":
        userns.run(request, *fds)
    else:
        execute.run(request, *fds)
