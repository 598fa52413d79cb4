"""The only process that forks: small, single-threaded, standard library only, started before the daemon's threads.

It holds no state.  When it dies, the daemon starts another; when the daemon dies, its socket closes and it ends.  What
it forked goes on: shims and exec helpers answer the daemon themselves, each through a pipe that came with its request.

    daemon                                                   spawner             shim, or exec helper
      | -- {"op": "start", "directory", "clients"} ------------> | -- fork ------> |
      |    + the clients' connections, reply                     |                 |
      | <-- {"pid", "started", ...} or {"error", "exit_code"} -------------------- |
      | -- {"op": "exec", ...} + pidfd, client, control -------> | -- fork ------> |
      |    see stages/execute.py                                 |                 |
      |    end of file on a reply without an answer: the forked process was killed
"""

import gc
import json
import os
import signal
import socket
import sys

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
    while True:
        data, fds, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, MOST_FDS)
        if not data:
            return
        _fork(requests, data, fds)
        for fd in fds:
            os.close(fd)


def _fear_as_others() -> None:
    """systemd spares the daemon when memory runs out (deploy/systemd); containers and what runs in them are not it."""
    if int(files.read_bytes("/proc/self/oom_score_adj")) < 0:
        files.put("/proc/self/oom_score_adj", "0")


def _fork(requests: socket.socket, data: bytes, fds: list[int]) -> None:
    try:
        if os.fork():
            return
    except OSError as error:
        answer = {"error": f"spawner: fork: {error.strerror}", "exit_code": 125}
        os.write(fds[-1], json.dumps(answer).encode())
        return
    requests.close()
    # Our own streams are the daemon's; whoever reads those must see them end with it.
    nowhere = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    os.close(nowhere)
    for fd in fds:
        os.set_inheritable(fd, False)
    request = json.loads(data)
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
