"""What nearly every start does alike, done before it is asked for: a first process with namespaces and usual mounts.

A keeper that waits for its start (spawner.py) has forked its init already, which is in process, IPC and host name
namespaces of its own and has made the trees of /proc and /dev (trees.py).  Its mount namespace is made at the start, of
the mounts that the host has then.  A config that wants other namespaces gets an init forked for it, and a tree that it
wants otherwise is made by the steps: nobody notices but by a clock.

    keeper                                    init
      | -- {"directory"} ----------------------> | reads config.json; the steps up to `keeper`
      |    end of file: it ends                  |
      | <-- {"other": true} -------------------- | the config wants other namespaces; it ends
      | -- {} ---------------------------------> | run.json is written, and the daemon still there
      |    from here on as stages/init.py says   |
"""

import contextlib
import json
import os
import signal
import socket
from typing import Any, NoReturn

from swarmd.runtime.stages import files, init, namespaces, syscalls, trees

_MADE = {"ipc": syscalls.CLONE_NEWIPC, "uts": syscalls.CLONE_NEWUTS}


class Stdio:
    """The program's standard streams, of which a container with a terminal uses none, and most no stdin."""

    def __init__(self) -> None:
        self._nowhere = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._stdin, self._stdout, self._stderr = os.pipe(), os.pipe(), os.pipe()

    def theirs(self, terminal: bool, stdin: bool) -> list[int]:
        return [] if terminal else [self._stdin[0] if stdin else self._nowhere, self._stdout[1], self._stderr[1]]

    def ours(self, terminal: bool, stdin: bool) -> tuple[int, dict[int, str]]:
        """What stdin is written to, -1 for none, and what is read from."""
        if terminal:
            return -1, {}
        return self._stdin[1] if stdin else -1, {self._stdout[0]: "stdout", self._stderr[0]: "stderr"}

    def all(self) -> set[int]:
        return {self._nowhere, *self._stdin, *self._stdout, *self._stderr}

    def close(self, kept: set[int]) -> None:
        for fd in self.all() - kept:
            os.close(fd)


class Ahead:
    """The keeper's side of it; pid is 0 where there is no such process."""

    def __init__(self) -> None:
        self.stdio = Stdio()
        self.pid = 0
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A kernel that refuses does so again at the start, where somebody is told.
        with contextlib.suppress(OSError):
            syscalls.unshare(syscalls.CLONE_NEWPID)
            self.pid = os.fork()
            if not self.pid:
                syscalls.close_all_but([theirs.fileno(), *self.stdio.all()])
                _wait(theirs, self.stdio)
            namespaces.after_fork()
        theirs.close()

    def begin(self, directory: str) -> None:
        """Let it begin, with the first steps of the start of what is in a container's directory."""
        try:
            self.channel.send(files.dump_json({"directory": directory}))
        except OSError:  # it has been killed meanwhile
            self.pid = 0

    def proceed(self) -> None:
        with contextlib.suppress(OSError):  # it has ended, and said why
            self.channel.send(b"{}")

    def reap(self) -> None:
        """Take leave of one that ends as it is not wanted."""
        if self.pid:
            os.waitpid(self.pid, 0)
        self.channel.close()


def _wait(channel: socket.socket, stdio: Stdio) -> NoReturn:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    try:
        syscalls.unshare(sum(_MADE.values()))
        made = init.Made({*_MADE}, trees.usual())
        json.loads(files.dump_json({"mounts": [trees.TERMINALS] * 20}))  # the memory this takes is ours from here on
        if not (data := channel.recv(65536)):
            os._exit(0)
        directory: str = json.loads(data)["directory"]
        config: dict[str, Any] = json.loads(files.read_bytes(f"{directory}/config.json"))
        if _fits(config):
            theirs = stdio.theirs(config["process"]["terminal"], "swarmd.stdin" in config["annotations"])
            init.run(directory, config, theirs, channel, made)
    except Exception:
        pass  # the one forked instead meets the same, and says so
    channel.send(b'{"other":true}')
    os._exit(0)


def _fits(config: dict[str, Any]) -> bool:
    wanted = {namespace["type"]: namespace.get("path", "") for namespace in config["linux"]["namespaces"]}
    own = all(wanted.get(kind) == "" for kind in ("pid", *_MADE))
    return own and "time" not in wanted and "swarmd.runtime" not in config["annotations"]
