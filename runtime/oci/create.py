"""`create`: everything up to the program's exec, in a process that waits at the gate for `start`.

this command                            init
  | -- fork, in its pid namespace ------> | the steps of stages/init.py, up to `start`
  | <-- {"hooks": true} ----------------- |  prestart and createRuntime are run here
  | <-- console's master ---------------- |  handed on to --console-socket
  | <-- {"created": true} or an error --- |
  | writes the pid file, ends             | waits at the gate; its new parent reaps it
"""

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

from swarmd.runtime import cgroups
from swarmd.runtime.errors import StartError
from swarmd.runtime.oci import config as bundles
from swarmd.runtime.oci.state import Directory, State, shown
from swarmd.runtime.seccomp import compile_profile
from swarmd.runtime.stages import files, hooks, init, namespaces, syscalls
from swarmd.runtime.stages.privileges import CAPABILITIES, StepError


def create(directory: Directory, bundle: Path, console: str, pid_file: str) -> None:
    """Raises a RuntimeFault; nothing is left of a container that could not be made."""
    config = bundles.load(bundle)
    state = State(directory.id, str(bundle.resolve()), annotations=dict(config["annotations"]), config=config)
    directory.make(state)
    try:
        _create(directory, state, console)
    except BaseException:
        discard(directory, state)
        raise
    if pid_file:
        files.replace(pid_file, str(state.pid).encode(), durable=False)


def _create(directory: Directory, state: State, console: str) -> None:
    config, linux = state.config, state.config["linux"]
    path = (linux.get("cgroupsPath") or f"/swarmd-oci/{directory.id}").strip("/")
    state.cgroup_parent, _, state.cgroup_id = path.rpartition("/")
    directory.save(state)
    resources = linux.get("resources") or {}
    hierarchy = cgroups.detect(state.cgroup_parent)
    cgroup = hierarchy.create(state.cgroup_id, bundles.limits(resources), bundles.device_rules(resources))
    _write_filter(directory, config)
    config["annotations"] |= {
        "swarmd.cgroup.procs": json.dumps(list(cgroup.procs_files())),
        "swarmd.gate": str(directory.gate),
        "swarmd.seccomp.bpf": "seccomp.bpf" if linux.get("seccomp") else "",
        "swarmd.id": directory.id,
    }
    holder = _make_user_namespace(linux)
    try:
        ours, pid = _fork_init(directory, config)
        state.pid, state.pid_start = pid, files.start_time(pid)
        directory.save(state)
        _follow(ours, directory, state, console)
    finally:
        if holder:
            os.kill(holder, signal.SIGKILL)
            os.waitpid(holder, 0)


def _write_filter(directory: Directory, config: dict[str, Any]) -> None:
    if not (profile := config["linux"].get("seccomp")):
        return
    known = {key: profile[key] for key in ("defaultAction", "defaultErrnoRet", "syscalls") if key in profile}
    (directory.path / "seccomp.bpf").write_bytes(compile_profile(json.dumps(known), frozenset(CAPABILITIES)))


def _make_user_namespace(linux: dict[str, Any]) -> int:
    """Return the process that holds a new user namespace until init has entered it, 0 when none is to be made."""
    wanted = next((n for n in linux["namespaces"] if n["type"] == "user" and not n.get("path")), None)
    if wanted is None:
        return 0
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os._exit(0)
    os.close(ready[1])
    if not os.read(ready[0], 1):
        raise StartError("user namespace: this kernel refused to make one; is user.max_user_namespaces 0?")
    for kind in ("uid", "gid"):
        lines = (f"{m['containerID']} {m['hostID']} {m['size']}" for m in linux.get(f"{kind}Mappings") or ())
        files.put(f"/proc/{pid}/{kind}_map", "\n".join(lines))
    wanted["path"] = f"/proc/{pid}/ns/user"
    return pid


def _fork_init(directory: Directory, config: dict[str, Any]) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    namespaces.before_fork(config["linux"])
    pid = os.fork()
    if not pid:
        ours.close()
        init.run(str(directory.path), config, [0, 1, 2], theirs)
    theirs.close()
    return ours, pid


def _follow(channel: socket.socket, directory: Directory, state: State, console: str) -> None:
    while True:
        data, fds, _, _ = socket.recv_fds(channel, 65536, 1)
        if not data:
            raise StartError("init ended without a word")
        message: dict[str, Any] = json.loads(data)
        if "error" in message:
            raise StartError(message["error"], message["exit_code"])
        if "created" in message:
            return
        if "hooks" in message:
            told = shown(directory, state) | {"status": "creating"}
            try:
                hooks.run(state.config, ("prestart", "createRuntime"), told)
            except StepError as error:
                raise StartError(str(error), error.exit_code) from None
            channel.send(b"{}")
        elif fds:
            hand_on(console, fds[0])


def hand_on(console: str, master: int) -> None:
    """Give the terminal's master to who listens at the console socket, and close it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as receiver:
        try:
            receiver.connect(console)
        except OSError as error:
            raise StartError(f"console socket {console!r}: {error.strerror}") from None
        socket.send_fds(receiver, [b"/dev/ptmx"], [master])
    os.close(master)


def discard(directory: Directory, state: State) -> None:
    """Kill what is left and give back what it held."""
    if state.cgroup_id:
        hierarchy = cgroups.detect(state.cgroup_parent)
        cgroup = hierarchy.load(state.cgroup_id)
        cgroup.kill()
        cgroup.remove()
    directory.remove()
