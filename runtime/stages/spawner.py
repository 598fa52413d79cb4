"""The only process that forks: small, single-threaded, standard library only, started before the daemon's threads.

It holds no state.  When it dies, the daemon starts another; when the daemon dies, its sockets close and it ends.  What
it forked goes on: shims and exec helpers answer the daemon themselves, each through a pipe that came with its request.

    daemon                                                   spawner             shim, or exec helper
      |                                                        | -- fork ------> |  waits for whatever comes next
      | -- {"op": "start", "directory", ...} ----------------------------------> |
      |    + the clients' connections, reply                   | <- "." -------- |  has it: the spawner forks another
      | <-- {"pid", "started", ...} or {"error", "exit_code"} ------------------ |
      | -- {"op": "exec", ...} + pidfd, client, control -----------------------> |
      |    see stages/execute.py                               |                 |
      |    end of file on a reply without an answer: the forked process was killed

Starts come through a socket of their own: those who wait for them have done more already, see stages/ahead.py.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from swarmd.runtime.stages import archive, execute, files, shim, snapshot, syscalls, userns
from swarmd.runtime.stages.ahead import Ahead

MOST_CLIENTS = 200  # attached before a start; the kernel passes 253 descriptors at most
MOST_FDS = MOST_CLIENTS + 4
LARGEST_REQUEST = 128 * 1024
MOST_KEEPERS = 2  # that wait for a start
_QUIET = 20  # ms without a request, after which there is time to fork


class _Kind:
    """Of requests: where they come from, how many wait for one at most, and those who do, each by what it tells."""

    def __init__(self, fd: int, most: int, wait: Callable[[socket.socket, int], NoReturn]) -> None:
        self.requests = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
        self.requests.set_inheritable(False)
        self.most, self.wait = most, wait
        self.waiting: set[int] = set()
        self.refused = False


def main() -> None:
    starts, others = map(int, sys.argv[1:3])
    syscalls.close_all_but([starts, others])
    kinds = [_Kind(starts, MOST_KEEPERS, _await_start), _Kind(others, 1, _await_other)]
    os.setsid()
    _fear_as_others()
    syscalls.set_title("swarmd-spawner")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; each forked process answers for itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    while _serve_once(kinds):
        pass


def _fear_as_others() -> None:
    """systemd spares the daemon when memory runs out (deploy/systemd); containers and what runs in them are not it."""
    if int(files.read_bytes("/proc/self/oom_score_adj")) < 0:
        files.put("/proc/self/oom_score_adj", "0")


def _serve_once(kinds: list[_Kind]) -> bool:
    """Fork where nobody waits any more, and wait until something happens; False once the daemon is gone."""
    for kind in kinds:
        if not kind.waiting:
            _lend(kind)
    poll = select.poll()
    for kind in kinds:
        # A request is for those who wait; without any it is refused if none can be forked then either.
        poll.register(kind.requests, select.POLLIN if kind.refused else 0)
        for fd in kind.waiting:
            poll.register(fd, select.POLLIN)
    wanting = [kind for kind in kinds if len(kind.waiting) < kind.most and not kind.refused]
    events = dict(poll.poll(_QUIET if wanting else None))
    if not events:
        _lend(wanting[0])
    for kind in kinds:
        asked = events.get(kind.requests.fileno(), 0)
        if asked & select.POLLHUP:
            return False
        if asked & select.POLLIN:
            _lend(kind, last=True)
        for fd in kind.waiting & events.keys():
            kind.waiting.remove(fd)
            os.close(fd)
    return True


def _lend(kind: _Kind, last: bool = False) -> None:
    """Fork a process which waits for a request of a kind and serves it; last: else the request there is is refused.

    It is there before it is needed: a fork, and the pages that are copied after it, take longer than all else here.
    """
    taken, tell = os.pipe()
    spawner = os.getpid()
    try:
        child = os.fork()
    except OSError as error:
        os.close(taken)
        os.close(tell)
        kind.refused = not last  # nobody needs it yet, and then it may work
        if last:
            _refuse(kind.requests, error)
        return
    if not child:
        os.close(taken)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # it is of no use to a next spawner
        if os.getppid() != spawner:
            os._exit(0)
        kind.wait(kind.requests, tell)
    os.close(tell)
    kind.refused = False
    kind.waiting.add(taken)


def _refuse(requests: socket.socket, problem: OSError) -> None:
    data, fds, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, MOST_FDS)
    if data:
        with contextlib.suppress(BrokenPipeError):
            os.write(fds[-1], files.dump_json({"error": f"spawner: fork: {problem.strerror}", "exit_code": 125}))
    for fd in fds:
        os.close(fd)


def _await_start(requests: socket.socket, tell: int) -> NoReturn:
    _stand_by([requests.fileno(), tell])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ahead = Ahead()
    request, fds = _receive(requests)
    ahead.begin(request["directory"])
    _take(requests, tell)
    shim.run(request, fds, ahead)


def _await_other(requests: socket.socket, tell: int) -> NoReturn:
    _stand_by([requests.fileno(), tell])
    request, fds = _receive(requests)
    _take(requests, tell)
    _serve(request, fds)


def _stand_by(fds: list[int]) -> None:
    """Do beforehand what can be, and what copies the memory shared with the spawner that a request writes to."""
    syscalls.close_all_but(fds)
    # Our own streams are the daemon's; whoever reads those must see them end with it.
    nowhere = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    os.close(nowhere)
    # Nothing here makes cycles, and a collection would write to every page shared with the spawner.
    gc.disable()
    syscalls.set_title("swarmd-spawner")
    files.boot_id()
    files.start_time(os.getpid())


def _receive(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, fds, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, MOST_FDS)
    if not data:
        os._exit(0)
    for fd in fds:
        os.set_inheritable(fd, False)
    return json.loads(data), fds


def _take(requests: socket.socket, tell: int) -> None:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
    os.write(tell, b".")
    os.close(tell)
    requests.close()


def _serve(request: dict[str, Any], fds: list[int]) -> NoReturn:
    if request["op"] == "archive":
        archive.run(request, fds)
    elif request["op"] == "snapshot":
        snapshot.run(request, fds)
    elif request["op"] == "userns":
        userns.run(request, *fds)
    else:
        execute.run(request, *fds)
