"""One container's keeper: starts its init, writes its log, and records how it ended.

Forked from the spawner and alone from then on; it outlives the spawner and the daemon.  Invariant: run.json names this
process before anything of the container exists, and exit.json is on the disk before this process ends.  So a daemon
that finds no shim and no exit.json knows that the shim was killed.

    run.json    {"boot", "shim", "shim_start", "pid", "pid_start", "started"}; the last three once the program runs
    exit.json   {"code", "at", "oom_killed", "error"}
"""

import contextlib
import functools
import json
import os
import select
import socket
import time
from typing import Any, NoReturn

from swarmd.runtime.stages import files, hooks, init, namespaces, syscalls
from swarmd.runtime.stages.ahead import Ahead
from swarmd.runtime.stages.foreign import Foreign
from swarmd.runtime.stages.jsonlog import Lines, Log, NoLog
from swarmd.runtime.stages.privileges import StepError
from swarmd.runtime.stages.streams import Client, Door, Pump


def run(request: dict[str, Any], fds: list[int], ahead: Ahead) -> NoReturn:
    """Keep one container until it has ended; the answer to the start goes to the last of the descriptors.

    The others are clients', attached before the program's first byte; ahead: what is there already, and has begun.
    """
    clients = [Client(fd, wants) for fd, wants in zip(fds, request["clients"], strict=False)]
    reply = fds[-1]
    try:
        _Shim(request, clients, reply, ahead).run()
    except Exception as error:
        _answer(reply, {"error": f"shim: {error}", "exit_code": 125})
    os._exit(0)


def _answer(reply: int, value: dict[str, Any]) -> None:
    try:
        os.write(reply, files.dump_json(value))
    except BrokenPipeError:
        return  # the daemon is gone; its next life reads run.json and exit.json


class _Shim:
    def __init__(self, request: dict[str, Any], clients: list[Client], reply: int, ahead: Ahead) -> None:
        self._directory: str = request["directory"]
        self._clients, self._reply, self._ahead = clients, reply, ahead
        self._terminal: bool = request["terminal"]
        self._annotations: dict[str, str] = request["annotations"]  # those that every keeper reads
        self._record: dict[str, Any] = {
            "boot": files.boot_id(),
            "shim": os.getpid(),
            "shim_start": files.start_time(os.getpid()),
        }
        stdin = bool(self._annotations.get("swarmd.stdin"))
        self._theirs = ahead.stdio.theirs(self._terminal, stdin)
        self._stdin, self._readers = ahead.stdio.ours(self._terminal, stdin)

    @functools.cached_property
    def _config(self) -> dict[str, Any]:
        """All of it, which few starts need here."""
        config: dict[str, Any] = json.loads(files.read_bytes(f"{self._directory}/config.json"))
        return config

    def run(self) -> None:
        os.setsid()
        syscalls.set_title(f"swarmd-shim {self._directory.rpartition('/')[2][:12]}")
        self._save_record()
        if self._abandoned():
            return
        program = self._annotations.get("swarmd.runtime")
        foreign = Foreign(program, self._directory, self._config) if program else None
        self._ahead.proceed()
        log = self._log()  # while init does its steps
        if foreign:
            self._ahead.reap()
            pid, failure = self._start_foreign(foreign)
        else:
            begun = (self._ahead.channel, self._ahead.pid) if self._ahead.pid else self._fork_init()
            pid, failure = self._follow_init(*begun)
        self._ahead.stdio.close({self._stdin, *self._readers})
        pump = self._pump(log)
        if failure is None:
            self._record |= {"pid": pid, "pid_start": files.start_time(pid), "started": time.time_ns()}
            self._save_record()
            Door(self._directory, pump, log.flush)  # there before anybody can know that the program runs
            _answer(self._reply, self._record)
            # Left open on failure: the answer comes after exit.json, so that it is never taken back.
            os.close(self._reply)
        code = 125
        if pid:
            pump.run(os.pidfd_open(pid))
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if foreign:
            foreign.delete()
        log.close()
        self._save_exit(code, failure)
        if failure is not None:
            _answer(self._reply, failure)
        # The end of this process is the end of the container: a client that is slow to read must not put that off.
        if not pump.busy or not os.fork():
            pump.flush()

    def _abandoned(self) -> bool:
        """Whether the daemon ended before this began: its next life may have looked already, so nothing is started."""
        poll = select.poll()
        poll.register(self._reply, 0)
        return bool(poll.poll(0))

    def _save_record(self) -> None:
        # Not synced: after a crash of the host its pids mean nothing.
        files.replace(f"{self._directory}/run.json", files.dump_json(self._record), durable=False)

    def _fork_init(self) -> tuple[socket.socket, int]:
        """Return the socket to follow our own init by, and its pid."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        namespaces.before_fork(self._config["linux"])
        pid = os.fork()
        if not pid:
            ours.close()
            init.run(self._directory, self._config, self._theirs, theirs)
        namespaces.after_fork()
        theirs.close()
        return ours, pid

    def _start_foreign(self, foreign: Foreign) -> tuple[int, dict[str, Any] | None]:
        try:
            pid, terminal = foreign.start(self._theirs)
        except StepError as error:
            return 0, {"error": str(error), "exit_code": error.exit_code}
        if terminal >= 0:
            self._readers[terminal] = "stdout"
        return pid, None

    def _follow_init(self, channel: socket.socket, pid: int) -> tuple[int, dict[str, Any] | None]:
        """Return the pid of the one that becomes the program, and None once it has, else what stopped it."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(channel, 65536, 1)
            except ConnectionResetError:  # it ended without hearing that it may proceed; what it said comes now
                continue
            if not data:
                channel.close()
                return pid, None
            message: dict[str, Any] = json.loads(data)
            if "error" in message:
                return pid, message
            if "other" in message:
                self._ahead.reap()
                return self._follow_init(*self._fork_init())
            if "hooks" in message:
                if failure := self._run_hooks(pid):
                    return pid, failure
                channel.send(b"{}")
                continue
            self._readers[fds[0]] = "stdout"

    def _run_hooks(self, pid: int) -> dict[str, Any] | None:
        """Those that are run outside, before the container's root is entered."""
        state = {"ociVersion": self._config["ociVersion"], "id": self._directory.rpartition("/")[2], "pid": pid}
        state |= {"status": "creating", "bundle": self._directory, "annotations": self._config["annotations"]}
        try:
            hooks.run(self._config, ("prestart", "createRuntime"), state)
        except StepError as error:
            return {"error": str(error), "exit_code": error.exit_code}
        return None

    def _log(self) -> Lines:
        if "swarmd.log" not in self._annotations:
            return NoLog()
        wanted = json.loads(self._annotations["swarmd.log"])
        limits = wanted["path"], wanted["max_size"], wanted["max_file"], wanted["compress"]
        log = Log(*limits, wanted["attributes"]) if wanted["path"] else NoLog()
        # Only a container that needs these pays for them.
        if wanted["target"]:
            from swarmd.runtime.stages import shipping

            return shipping.Both(log, shipping.sink(wanted["target"], wanted["room"]))
        if wanted["room"]:
            from swarmd.runtime.stages.buffered import Buffered

            return Buffered(log, wanted["room"])
        return log

    def _pump(self, log: Lines) -> Pump:
        terminal, wanted = self._terminal, self._annotations.get("swarmd.stdin", "")
        if terminal and wanted:
            self._stdin = next(iter(self._readers), -1)
        pump = Pump(self._readers, self._stdin, terminal, wanted == "once", log.write, log.flush)
        for client in self._clients:
            pump.add(client)
        return pump

    def _save_exit(self, code: int, failure: dict[str, Any] | None) -> None:
        record = {
            "code": code if code >= 0 else 128 - code,
            "at": time.time_ns(),
            "oom_killed": self._oom_kills() > 0,
            "error": failure["error"] if failure else "",
        }
        path = f"{self._directory}/exit.json"
        try:
            files.replace(path, files.dump_json(record))
        except OSError as error:
            if error.errno not in files.FULL:
                raise
            # The disk is full, perhaps of what this very program wrote: give up what the run needs no more.
            for name in ("config.json", "seccomp.bpf"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._directory}/{name}")
            files.replace(path, files.dump_json(record))

    def _oom_kills(self) -> int:
        """The kernel's own count: memory.oom_control in cgroup v1, memory.events in v2."""
        for procs in json.loads(self._annotations["swarmd.cgroup.procs"]):
            for name in ("memory.oom_control", "memory.events"):
                try:
                    text = files.read_bytes(f"{procs.rpartition('/')[0]}/{name}", 4096)
                except OSError:
                    continue
                for line in text.splitlines():
                    if line.startswith(b"oom_kill "):
                        return int(line.split()[1])
        return 0
