"""The container's first process, from the fork by its shim to the exec of the program: a list of steps.

Each step is a function whose name is the first word of what the user reads when it fails.  Up to `enter_root` this
process sees the host's files; after it everything reached by name is the container's, so nothing is imported from there
on.  It is not dumpable until exec: a root program inside can't reach the host through its /proc entry.

    shim                                          init (pid 1, or one more in a pid namespace that is shared)
      | -- fork ------------------------------------> |
      |                                               | STEPS, top to bottom
      | <-- {"hooks": true}, then -- {} ------------> |  only with hooks that are to be run outside
      | <-- {"console": true} + pty master ---------- |  only with a terminal
      | <-- {"created": true} ----------------------- |  only with a gate: it now waits for a byte through it
      | <-- {"error": "step: object: why", code} ---- |  a step failed; init ends
      | <-- end of file (close-on-exec) ------------- |  the program runs
"""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import termios
from typing import Any, NoReturn

from swarmd.runtime.stages import files, hooks, mounts, namespaces, overlays, privileges, syscalls, trees
from swarmd.runtime.stages.privileges import Identity, StepError


class Made:
    """What is there before the start: kinds of namespaces, and trees of mounts. See stages/ahead.py."""

    def __init__(self, namespaces: set[str], found: list[trees.Tree]) -> None:
        self.namespaces, self.trees = namespaces, found


class Init:
    """What the steps hand on to one another; `config` is the OCI config."""

    def __init__(
        self, directory: str, config: dict[str, Any], stdio: list[int], channel: socket.socket, made: Made | None
    ) -> None:
        self.directory, self.config, self.stdio, self.channel, self.made = directory, config, stdio, channel, made
        self.process: dict[str, Any] = config["process"]
        self.linux: dict[str, Any] = config["linux"]
        self.annotations: dict[str, str] = config.get("annotations", {})
        self.cgroup: list[str] = json.loads(self.annotations.get("swarmd.cgroup.procs", "[]"))
        self.root = -1
        self.attached: list[trees.Tree] = []
        self.user_namespace = -1
        self.shared_memory = -1
        self.gate = -1  # a FIFO: the program is to wait for its start
        self.seccomp = b""
        self.identity = Identity(0, 0, [], "/")
        self.environment: dict[str, str] = {}

    def state(self) -> dict[str, Any]:
        """What hooks are told, the OCI specification's State; the pid is that of this process's own namespace."""
        id = self.annotations.get("swarmd.id", "")
        known = {"ociVersion": self.config["ociVersion"], "id": id, "status": "creating", "pid": os.getpid()}
        return known | {"bundle": self.directory, "annotations": self.annotations}


def join_cgroup(init: Init) -> None:
    for path in init.cgroup:
        files.put(path, "0")


def oom_score(init: Init) -> None:
    adjustment = init.process.get("oomScoreAdj", 0)
    if adjustment:
        files.put("/proc/self/oom_score_adj", str(adjustment))


def ulimits(init: Init) -> None:
    """Not before the mounts, which take more descriptors and memory than a program may be given."""
    privileges.set_limits(init.process)


def seccomp_profile(init: Init) -> None:
    if name := init.annotations.get("swarmd.seccomp.bpf"):
        init.seccomp = files.read_bytes(f"{init.directory}/{name}")


def join_namespaces(init: Init) -> None:
    namespaces.enter(init.linux, init.made.namespaces if init.made else ())
    init.shared_memory = namespaces.borrow_shared_memory(init.linux)


def keyring(init: Init) -> None:
    syscalls.leave_keyring()


def hostname(init: Init) -> None:
    if name := init.config.get("hostname"):
        socket.sethostname(name)
    if domain := init.config.get("domainname"):
        files.put("/proc/sys/kernel/domainname", domain)


def root_filesystem(init: Init) -> None:
    # What is to be shared with the host must be taken while this namespace's mounts are still the host's peers.
    mounts.take_shared(init.config.get("mounts", []))
    # Slave, not private: what the host unmounts later must not be kept busy by a copy in here.
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.PROPAGATION["slave"])
    init.user_namespace = namespaces.act_as(init.linux)
    path = init.config["root"]["path"]
    place = path if path.startswith("/") else f"{init.directory}/{path}"
    if lower := init.annotations.get("swarmd.overlay.lower"):
        attributes = 0 if init.annotations.get("swarmd.nodes") else syscalls.ATTR_NODEV
        init.root = overlays.writable(json.loads(lower), init.directory, place, attributes, init.user_namespace)
    else:
        init.root = mounts.onto_itself(place)


def usual_trees(init: Init) -> None:
    """Made as the host's root: what belongs to the root of a user namespace is made by the steps below."""
    if init.made and init.user_namespace < 0:
        init.attached = [tree for tree in init.made.trees if tree.fits(init.config)]
        for tree in init.attached:
            tree.attach(init.root)


def _is_there(init: Init, path: str) -> bool:
    return any(tree.holds(path) for tree in init.attached)


def mount(init: Init) -> None:
    for entry in init.config.get("mounts", []):
        if _is_there(init, entry["destination"]):
            continue
        if entry.get("type") == "cgroup":
            mounts.cgroups(init.root, entry, init.cgroup)
        elif entry["destination"] == "/dev/shm" and init.shared_memory >= 0:
            mounts.attach(init.shared_memory, init.root, "/dev/shm")
        else:
            mounts.perform(init.root, entry, init.user_namespace, namespaces.root_of(init.linux))


def devices(init: Init) -> None:
    if not _is_there(init, "/dev"):
        dev = mounts.open_or_make(init.root, "/dev", directory=True)
        trees.add_devices(dev)
        os.close(dev)
    for device in init.linux.get("devices", []):
        if device["path"].removeprefix("/dev/") not in trees.DEVICES:
            mounts.device(init.root, device, namespaces.root_of(init.linux))


def sysctls(init: Init) -> None:
    # By the host's /proc: whose settings these are is a question of our namespaces, and there they can be written.
    settings = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name, value in init.linux.get("sysctl", {}).items():
        fd = syscalls.open_within(settings, name.replace(".", "/"), os.O_WRONLY)
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{name}={value}") from None
        finally:
            os.close(fd)
    os.close(settings)


def cover_paths(init: Init) -> None:
    for path in init.linux.get("readonlyPaths", []):
        if not _is_there(init, path):
            mounts.make_read_only(init.root, path)
    for path in init.linux.get("maskedPaths", []):
        if not _is_there(init, path):
            mounts.mask(init.root, path)


def keeper(init: Init) -> None:
    """One that was there before the start has begun before its keeper had looked whether it is to be."""
    if init.made and not init.channel.recv(64):
        os._exit(125)


def terminal(init: Init) -> None:
    """Open the pty in the container's own devpts, so that its name means something there; the shim gets the master."""
    if not init.process.get("terminal"):
        return
    master = syscalls.open_beneath(init.root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, 0x40045431, b"\0\0\0\0")  # TIOCSPTLCK: unlock
    number = int.from_bytes(fcntl.ioctl(master, 0x80045430, b"\0\0\0\0"), "little")  # TIOCGPTN
    slave = syscalls.open_beneath(init.root, f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY)
    if size := init.process.get("consoleSize"):
        termios.tcsetwinsize(master, (size["height"], size["width"]))
    console = syscalls.open_tree(f"/proc/self/fd/{slave}", False)
    mounts.attach(console, init.root, "/dev/console")
    os.close(console)
    socket.send_fds(init.channel, [b'{"console":true}'], [master])
    os.close(master)
    init.stdio = [slave, slave, slave]


def outer_hooks(init: Init) -> None:
    """Those of the runtime's namespaces are run by who started this; createContainer's are the host's files in ours."""
    if not init.config.get("hooks"):
        return
    init.channel.send(b'{"hooks":true}')
    if not init.channel.recv(64):
        os._exit(125)
    hooks.run(init.config, ("createContainer",), init.state())


def gate(init: Init) -> None:
    """Read and write, as a FIFO opened so waits for nobody."""
    if path := init.annotations.get("swarmd.gate"):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        init.gate = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, namespaces.OUT_OF_THE_WAY)


def enter_root(init: Init) -> None:
    """From here on "/" is the container's: nothing of the host is reachable by name."""
    if init.config["root"].get("readonly"):
        syscalls.set_mount_attributes(init.root, syscalls.ATTR_RDONLY, 0, False, "/")
    os.fchdir(init.root)
    syscalls.pivot_root(".", ".")
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")
    os.umask(0o022)


def standard_streams(init: Init) -> None:
    os.setsid()
    for number, fd in enumerate(init.stdio):
        os.dup2(fd, number)
    if init.process.get("terminal"):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    keep = os.dup2(init.channel.fileno(), 3, inheritable=False) if init.channel.fileno() != 3 else 3
    if keep != init.channel.fileno():
        init.channel.detach()
        init.channel = _channel(keep)
    # What is still needed; both were put out of the way of the low numbers.
    if init.user_namespace >= 0:
        init.user_namespace = os.dup2(init.user_namespace, 4, inheritable=False)
    if init.gate >= 0:
        init.gate = os.dup2(init.gate, 5, inheritable=False)
    for fd, number in ((init.user_namespace, 4), (init.gate, 5)):
        if fd != number:
            os.closerange(number, number + 1)
    syscalls.close_from(6)


def _channel(fd: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)


def user_namespace(init: Init) -> None:
    if init.user_namespace >= 0:
        namespaces.enter_user(init.user_namespace)


def user(init: Init) -> None:
    init.identity = privileges.identity_of(init.process["user"], init.annotations)
    init.environment = privileges.environment(init.process, init.identity)
    if init.process.get("terminal"):
        os.fchown(0, init.identity.uid, -1)


def working_directory(init: Init) -> None:
    privileges.enter_workdir(init.process["cwd"])


def start(init: Init) -> None:
    if init.gate >= 0:
        privileges.find_program(init.process["args"], init.environment)
        init.channel.send(b'{"created":true}')
        os.read(init.gate, 1)
    hooks.run(init.config, ("startContainer",), init.state())


def privileges_dropped(init: Init) -> None:
    if profile := init.process.get("apparmorProfile"):
        files.put("/proc/self/attr/apparmor/exec", f"exec {profile}")
    privileges.become(init.process, init.identity, init.seccomp)
    # Last, as a change of user clears it: nobody reads the program's output or its exit status once the shim is gone.
    if init.gate < 0:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def program(init: Init) -> None:
    if init.annotations.get("swarmd.init"):
        _reap_for_program(init)
    privileges.run(init.process["args"], init.environment)


STEPS = (
    join_cgroup,
    oom_score,
    seccomp_profile,
    join_namespaces,
    keyring,
    hostname,
    root_filesystem,
    usual_trees,
    mount,
    devices,
    sysctls,
    cover_paths,
    keeper,
    outer_hooks,
    terminal,
    gate,
    enter_root,
    standard_streams,
    ulimits,
    user_namespace,
    user,
    working_directory,
    start,
    privileges_dropped,
    program,
)


def run(
    directory: str, config: dict[str, Any], stdio: list[int], channel: socket.socket, made: Made | None = None
) -> NoReturn:
    """Become the container's program; ends the process either way."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    init = Init(directory, config, stdio, channel, made)
    if "swarmd.gate" not in init.annotations:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    step = STEPS[0]
    try:
        for step in STEPS:
            step(init)
        raise AssertionError("the last step execs")
    except StepError as error:
        reason, code = str(error), error.exit_code
    except Exception as error:
        reason, code = f"{step.__name__.replace('_', ' ')}: {_reason(error)}", 125
    init.channel.send(files.dump_json({"error": reason, "exit_code": code}))
    os._exit(code)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
        # A client takes "no such file" for the program's not being there.
        why = "is not there" if error.errno == errno.ENOENT else (error.strerror or "failed").lower()
        return f"{name}: {why}"
    return f"{type(error).__name__}: {error}"


def _reap_for_program(init: Init) -> None:
    """Stay as pid 1, which forwards signals and reaps, and return in a child that is to be the program."""
    everything = signal.valid_signals()
    syscalls.set_title("swarmd-init")
    signal.pthread_sigmask(signal.SIG_SETMASK, everything)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)  # where the pid namespace is shared
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        if os.isatty(0):
            os.tcsetpgrp(0, os.getpgrp())  # allowed from the background, as SIGTTOU is blocked here
        return
    syscalls.close_from(0)
    while True:
        number = signal.sigwait(everything)
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        _reap(child)


def _reap(child: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
        if not pid:
            return
