"""Runs a container by another OCI runtime, such as runc or crun, in place of our own init.

The shim mounts the root file system in a mount namespace of its own, since no OCI config can say what layers are; looks
up the user by name in it, as only a number goes into a config; and calls `create` and `start`.  What the other runtime
starts becomes the shim's child: it is a subreaper.

    <directory>/bundle/config.json     what the other runtime reads
    <directory>/oci/                   its state; oci.log, what it says when it fails
"""

import json
import os
import resource
import socket
from typing import Any

from swarmd.runtime.stages import files, overlays, privileges, syscalls
from swarmd.runtime.stages.privileges import StepError

_CONSOLE = "console.sock"


class Foreign:
    def __init__(self, program: str, directory: str, config: dict[str, Any]) -> None:
        self._program, self._directory, self._config = program, directory, config
        self._id = directory.rpartition("/")[2]
        self._name = program.rpartition("/")[2]

    def start(self, stdio: list[int]) -> tuple[int, int]:
        """Return the program's pid, and its terminal's master or -1. Raises StepError with what the runtime said."""
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.PROPAGATION["slave"])
        annotations = self._config["annotations"]
        root = self._config["root"]["path"]
        attributes = 0 if annotations.get("swarmd.nodes") else syscalls.ATTR_NODEV
        lower = json.loads(annotations["swarmd.overlay.lower"])
        os.close(overlays.writable(lower, self._directory, root, attributes, -1))
        os.chdir(self._directory)  # paths of sockets are short
        self._write_bundle(self._find_user(root))
        listener = self._listen() if self._config["process"]["terminal"] else None
        console = ["--console-socket", f"../{_CONSOLE}"] if listener else []  # it changes into the bundle
        self._call(
            "create", "--bundle", "bundle", "--pid-file", f"{self._directory}/oci.pid", *console, self._id, stdio=stdio
        )
        master = self._receive(listener) if listener else -1
        pid = int(files.read_bytes("oci.pid"))
        self._call("start", self._id)
        os.chdir("/")
        return pid, master

    def delete(self) -> None:
        """Let it forget the container that has ended."""
        os.chdir(self._directory)
        try:
            self._call("delete", "--force", self._id)
        except StepError:
            return  # the cgroup and the directory go in any case

    def _write_bundle(self, user: dict[str, Any]) -> None:
        process = self._config["process"]
        limits = [_allowed(limit) for limit in process["rlimits"]]
        kept = {key: text for key, text in self._config["annotations"].items() if not key.startswith("swarmd.")}
        config = {**self._config, "annotations": kept, "process": {**process, "user": user, "rlimits": limits}}
        config["mounts"] = [_with_nodes(mount) for mount in self._config["mounts"]]
        os.makedirs("bundle", mode=0o700, exist_ok=True)
        files.replace("bundle/config.json", files.dump_json(config), durable=False)

    def _find_user(self, root: str) -> dict[str, Any]:
        """In a process that has nothing but the image's files, links in them included."""
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.chroot(root)
                os.chdir("/")
                found = privileges.identity_of(self._config["process"]["user"], self._config["annotations"])
                answer: dict[str, Any] = {"uid": found.uid, "gid": found.gid, "additionalGids": found.groups}
            except StepError as error:
                answer = {"error": str(error), "exit_code": error.exit_code}
            os.write(writer, files.dump_json(answer))
            os._exit(0)
        os.close(writer)
        answer = json.loads(files.read_fd(reader, 65536))
        os.close(reader)
        os.waitpid(pid, 0)
        if "error" in answer:
            raise StepError(answer["error"], answer["exit_code"])
        return answer

    def _call(self, *words: str, stdio: list[int] | None = None) -> None:
        # crun looks for all it is told of in the bundle, runc where it was called.
        here = self._directory
        command = [self._program, "--root", f"{here}/oci", "--log", f"{here}/oci.log", "--log-format", "json", *words]
        pid = os.fork()
        if not pid:
            nowhere = os.open("/dev/null", os.O_RDWR)
            for number, fd in enumerate(stdio or [nowhere] * 3):
                os.dup2(fd, number)
            syscalls.close_from(3)
            try:
                os.execve(self._program, command, {"PATH": privileges.DEFAULT_PATH})
            finally:
                os._exit(127)
        _, status = os.waitpid(pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            raise StepError(f"{self._name} {words[0]}: {self._said() or f'ended with {code}'}")

    def _said(self) -> str:
        """The last thing in its log."""
        try:
            lines = files.read_bytes("oci.log").splitlines()
            return str(json.loads(lines[-1])["msg"]) if lines else ""
        except (OSError, ValueError, KeyError):
            return ""

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(_CONSOLE):
            os.unlink(_CONSOLE)
        listener.bind(_CONSOLE)
        listener.listen(1)
        return listener

    def _receive(self, listener: socket.socket) -> int:
        connection, _ = listener.accept()
        _, fds, _, _ = socket.recv_fds(connection, 64, 1)
        connection.close()
        listener.close()
        os.unlink(_CONSOLE)
        if not fds:
            raise StepError(f"{self._name} create: it gave no terminal")
        return fds[0]


def _with_nodes(mount: dict[str, Any]) -> dict[str, Any]:
    """Others make the device nodes in /dev itself, where ours binds each on its own."""
    if mount["destination"] != "/dev":
        return mount
    return {**mount, "options": [option for option in mount["options"] if option != "nodev"]}


def _allowed(limit: dict[str, Any]) -> dict[str, Any]:
    """As much of it as this process may give: other runtimes fail where ours keeps what can be kept."""
    most = resource.getrlimit(getattr(resource, limit["type"]))[1]
    if most == resource.RLIM_INFINITY:
        return limit
    return {**limit, "soft": min(limit["soft"] % (1 << 64), most), "hard": min(limit["hard"] % (1 << 64), most)}
