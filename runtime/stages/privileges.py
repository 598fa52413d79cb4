"""What the program may do: user, groups, capabilities, no_new_privs, seccomp; and the moment of exec.

Used after pivot_root and by exec alike, so nothing here imports, and the passwd and group files it reads are the
container's: hostile, perhaps huge, perhaps a FIFO.
"""

import json
import os
import resource
import signal
import stat
from typing import Any

from swarmd.runtime.stages import files, syscalls

# In the order of the kernel's numbers, linux/capability.h.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
# Those that there are to give: this host's swarmd may lack some, and an older kernel does not know them all.
_HELD = tuple(number for number in range(len(CAPABILITIES)) if syscalls.has_capability(number))
_FILE_LIMIT = 1 << 20
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class StepError(Exception):
    """A step failed for a reason that no system call names; exit_code as a shell would report it."""

    def __init__(self, message: str, exit_code: int = 125) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Identity:
    """Who the program runs as."""

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


def identity_of(user: dict[str, Any], annotations: dict[str, str]) -> Identity:
    """The OCI config's user; or the one named in the annotations, whom only the container's files can tell."""
    if "swarmd.user" in annotations or "swarmd.groups" in annotations:
        groups = [*json.loads(annotations.get("swarmd.groups", "[]")), *map(str, user.get("additionalGids", []))]
        return find_identity(annotations.get("swarmd.user", ""), groups)
    uid, gid = user["uid"], user["gid"]
    entry = next((e for e in _entries("/etc/passwd", 7) if e[2] == str(uid)), None)
    return Identity(uid, gid, sorted({gid, *user.get("additionalGids", [])}), entry[5] if entry else "/")


def find_identity(user: str, additional: list[str]) -> Identity:
    """Look up "[user|uid][:group|gid]" in the container's own files; a number needs no entry there.

    A user named without a group gets the memberships that /etc/group gives it, as login would.
    """
    name, _, group = user.partition(":")
    passwd, groups = _entries("/etc/passwd", 7), _entries("/etc/group", 4)
    entry = next((e for e in passwd if e[0] == name), None) or next((e for e in passwd if e[2] == (name or "0")), None)
    if entry is None and name and not _is_id(name):
        raise StepError(f"user: {name}: no such user in the image's /etc/passwd", 126)
    uid = int(entry[2]) if entry else int(name or 0)
    gid = int(entry[3]) if entry else 0
    memberships: list[int] = []
    if group:
        gid = _group_id(group, groups)
    elif entry:
        memberships = [int(g[2]) for g in groups if entry[0] in g[3].split(",")]
    memberships += [_group_id(extra, groups) for extra in additional]
    return Identity(uid, gid, sorted({gid, *memberships}), entry[5] if entry else "/")


def _group_id(name: str, groups: list[list[str]]) -> int:
    found = next((int(g[2]) for g in groups if g[0] == name), None)
    if found is None and not _is_id(name):
        raise StepError(f"user: group {name}: no such group in the image's /etc/group", 126)
    return int(name) if found is None else found


def _entries(path: str, fields: int) -> list[list[str]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return []
    try:
        data = files.read_fd(fd, _FILE_LIMIT) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    rows = [line.split(":") for line in data.decode("utf-8", "replace").splitlines()]
    return [row for row in rows if len(row) >= fields and _is_id(row[2]) and (fields != 7 or _is_id(row[3]))]


def _is_id(text: str) -> bool:
    """Of a user or group: the last 32-bit number says "none" to the kernel."""
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**32 - 1


def capability_mask(names: list[str]) -> int:
    return sum(1 << CAPABILITIES.index(name) for name in names)


def become(process: dict[str, Any], identity: Identity, seccomp: bytes) -> None:
    """Give up everything that the program is not to have; what remains of this process is the program's equal.

    Without no_new_privs a filter needs CAP_SYS_ADMIN, so it goes in before the capabilities go; with it, as the last.
    """
    sets = process.get("capabilities") or {}
    bounding, effective, permitted, inheritable, ambient = (
        capability_mask(sets.get(name) or [])
        for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    )
    held = sum(1 << number for number in _HELD)
    for number in _HELD:
        if not bounding >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    syscalls.clear_ambient()
    no_new_privileges = process.get("noNewPrivileges", False)
    if seccomp and not no_new_privileges:
        syscalls.install_seccomp(seccomp)
    if ambient and identity.uid:
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    if identity.uid == 0 or ambient:
        syscalls.capset(effective & held, permitted & held, inheritable & held)
        for number in (n for n in range(len(CAPABILITIES)) if (ambient & held & inheritable) >> n & 1):
            syscalls.raise_ambient(number)
    if no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if seccomp:
            syscalls.install_seccomp(seccomp)


def set_limits(process: dict[str, Any]) -> None:
    """Set what is asked, as far as this process may: without CAP_SYS_RESOURCE a hard limit can't be raised.

    What that makes of a limit, `runtime/ulimits.py` tells the user beforehand.
    """
    for limit in process.get("rlimits", []):
        name, soft, hard = limit["type"], _limit(limit["soft"]), _limit(limit["hard"])
        number = getattr(resource, name)
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError):
            most = resource.getrlimit(number)[1]
            try:
                resource.setrlimit(number, (_lower(soft, most), _lower(hard, most)))
            except (OSError, ValueError) as error:
                said = f"ulimits: {name.removeprefix('RLIMIT_').lower()} {limit['soft']}:{limit['hard']}"
                raise StepError(f"{said}: {error}") from None


def _lower(a: int, b: int) -> int:
    if resource.RLIM_INFINITY in (a, b):
        return a if b == resource.RLIM_INFINITY else b
    return min(a, b)


def _limit(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 else value


def environment(process: dict[str, Any], identity: Identity) -> dict[str, str]:
    values = dict(entry.partition("=")[::2] for entry in process["env"])
    values.setdefault("PATH", DEFAULT_PATH)
    values.setdefault("HOME", identity.home)
    return values


def enter_workdir(path: str, make: bool = True) -> None:
    try:
        if make:
            os.makedirs(path, 0o755, exist_ok=True)
        os.chdir(path)
    except OSError as error:
        raise StepError(f"working directory: {path}: {error.strerror}", 126) from None


def find_program(arguments: list[str], env: dict[str, str]) -> None:
    """Raise what `run` would raise for a program that isn't there, while somebody still waits for the answer."""
    places = _places(arguments[0], env)
    if any(os.access(place, os.X_OK) and not os.path.isdir(place) for place in places):
        return
    denied = [place for place in places if os.path.exists(place)]
    raise StepError(f"program: {denied[0]}: permission denied", 126) if denied else _missing(arguments[0], env)


def _places(program: str, env: dict[str, str]) -> list[str]:
    return [program] if "/" in program else [f"{d or '.'}/{program}" for d in env["PATH"].split(":")]


def _missing(program: str, env: dict[str, str]) -> StepError:
    in_path = f"executable file not found in $PATH ({env['PATH']})"
    where = "no such file or directory in the image" if "/" in program else in_path
    return StepError(f"program: {program}: {where}", 127)


def run(arguments: list[str], env: dict[str, str]) -> None:
    """Exec the program, looked up in the container's PATH; returns never."""
    # Python ignores these for itself; the program must start with the defaults.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    program, denied = arguments[0], ""
    for place in _places(program, env):
        try:
            os.execve(place, arguments, env)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isfile(place):
                raise StepError(f"program: {place}: its interpreter is not in the image", 127) from None
        except OSError as error:
            denied = denied or f"program: {place}: {(error.strerror or 'cannot be run').lower()}"
    if denied:
        raise StepError(denied, 126)
    raise _missing(program, env)
