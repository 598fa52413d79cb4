"""Linux system calls that Python lacks, as thin functions that raise OSError with the path they were about.

Everything is resolved when this module is imported, in the spawner: the stages that run inside a container's files
only call.  Standard library only.  Numbers are those of the calls that are the same on every architecture; the others
go through their libc functions.
"""

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Callable, Iterable

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_REC = 0x4000
MNT_DETACH = 2

ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_NOATIME = 0x10
ATTR_STRICTATIME = 0x20

_ATTR_IDMAP = 0x00100000

PROPAGATION = {"unbindable": 1 << 17, "private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20}

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
SECBIT_NO_SETUID_FIXUP = 4
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2

_KEYCTL_JOIN_SESSION_KEYRING = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_OPEN_TREE_CLONE = 1
_AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000
_AT_FDCWD = -100
_MOVE_MOUNT_FROM_EMPTY = 0x4
_MOVE_MOUNT_BOTH_EMPTY = 0x4 | 0x40
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH, _RESOLVE_IN_ROOT = 0x02, 0x08, 0x10
_TRIES = 100  # of what openat2(2) asks to be tried again

_libc = ctypes.CDLL(None, use_errno=True)
_mount, _umount2, _pivot_root = _libc.mount, _libc.umount2, _libc.pivot_root
_unshare, _setns, _prctl, _capset = _libc.unshare, _libc.setns, _libc.prctl, _libc.capset
_setfsuid, _setfsgid = _libc.setfsuid, _libc.setfsgid
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


def _checked(result: int, path: str) -> int:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result


def _declared(number: int, kinds: str) -> Callable[[str, *tuple[int | bytes | None, ...]], int]:
    """A system call that libc has no function for; kinds: i for each number it takes, p for each pointer.

    Declared, as each call of syscall(2) would have to be told what it is given, and a start makes hundreds.
    """
    types = [ctypes.c_long if kind == "i" else ctypes.c_char_p for kind in kinds]
    function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *types, use_errno=True)(("syscall", _libc))

    def call(path: str, *arguments: int | bytes | None) -> int:
        return _checked(function(number, *arguments), path)

    return call


_open_tree, _move_mount = _declared(428, "ipi"), _declared(429, "ipipi")
_fsopen, _fsconfig, _fsmount = _declared(430, "pi"), _declared(431, "iippi"), _declared(432, "iii")
_close_range, _openat2, _mount_setattr = _declared(436, "iii"), _declared(437, "ippi"), _declared(442, "ipipi")
_keyctl = _declared({"aarch64": 219}.get(os.uname().machine, 250), "ip")


def unshare(flags: int) -> None:
    _checked(_unshare(flags), "namespaces")


def setns(fd: int, flags: int, path: str) -> None:
    """Join the namespace that fd is of, or with a pidfd all those of its process named by flags."""
    _checked(_setns(fd, flags), path)


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    _checked(_mount(source.encode(), target.encode(), fstype.encode(), flags, data.encode()), target)


def umount(target: str, flags: int = 0) -> None:
    _checked(_umount2(target.encode(), flags), target)


def pivot_root(new: str, old: str) -> None:
    _checked(_pivot_root(new.encode(), old.encode()), new)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    return _checked(_prctl(option, a, b, c, d), f"prctl {option}")


def set_name(name: str) -> None:
    """Set the command name that `ps` and /proc/<pid>/comm show; the kernel keeps 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def set_title(title: str) -> None:
    """Make `ps` show title for this process: its name, and its arguments where exec left them in memory."""
    set_name(title)
    start, length = _arguments()
    if length > 0:
        ctypes.memset(start, 0, length)
        ctypes.memmove(start, title.encode(), min(len(title.encode()), length - 1))


@functools.cache
def _arguments() -> tuple[int, int]:
    """Where they are and how long; a fork has them in the same place."""
    with open("/proc/self/stat", "rb") as stat:
        start, end = (int(field) for field in stat.read().rpartition(b")")[2].split()[45:47])
    return start, end - start


def set_file_ids(uid: int, gid: int) -> None:
    """Make and reach files as these; capabilities(7) says what that takes away."""
    for function, wanted in ((_setfsgid, gid), (_setfsuid, uid)):
        function(wanted)
        if function(-1) != wanted:  # it answers with the one before, and never with an error
            raise OSError(0, "the id could not be taken", f"id {wanted}")


def clear_ambient() -> None:
    prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def raise_ambient(number: int) -> None:
    prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def has_capability(number: int) -> bool:
    """Whether the bounding set has it; not, when the kernel does not know it."""
    return bool(_prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's capabilities, given as bit masks; capset(2), version 3 of its header."""
    header = struct.pack("=Ii", 0x20080522, 0)
    halves = [(mask & 0xFFFFFFFF, mask >> 32) for mask in (effective, permitted, inheritable)]
    data = struct.pack("=6I", *(half[0] for half in halves), *(half[1] for half in halves))
    _checked(_capset(header, data), "capabilities")


def install_seccomp(program: bytes) -> None:
    """Install a classic BPF program; needs CAP_SYS_ADMIN or no_new_privs."""
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    holder = ctypes.create_string_buffer(fprog, len(fprog))
    prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(holder))


def read_only_copy(path: str) -> int:
    """Return a descriptor of a file on a read-only mount of its own.

    What is executed through it can't be written through /proc/<pid>/exe, whoever may open that: CVE-2019-5736.
    """
    fd = open_tree(os.path.realpath(path), False)
    set_mount_attributes(fd, ATTR_RDONLY, 0, False, path)
    return fd


def leave_keyring() -> None:
    """Take a new, empty session keyring: the daemon's may hold keys of the host; keyctl(2)."""
    try:
        _keyctl("session keyring", _KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):  # a kernel without keys, or one that lets us have none
            raise


def close_from(first: int) -> None:
    _close_range(f"fd {first}", first, 0xFFFFFFFF, 0)


def close_all_but(fds: Iterable[int]) -> None:
    """Close all descriptors but these and the standard streams."""
    last = 2
    for fd in sorted(fds):
        os.closerange(last + 1, fd)
        last = fd
    close_from(last + 1)


def open_beneath(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open path as if root were "/": no symlink and no ".." leads out of it."""
    return _resolved(root, path, flags, mode, _RESOLVE_IN_ROOT)


def open_within(directory: int, path: str, flags: int) -> int:
    """Open path below a directory; EXDEV when a symlink or ".." of it leads out."""
    return _resolved(directory, path, flags, 0, _RESOLVE_BENEATH)


def _resolved(directory: int, path: str, flags: int, mode: int, resolve: int) -> int:
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve | _RESOLVE_NO_MAGICLINKS)
    for _ in range(_TRIES):
        try:
            return _openat2(path, directory, os.fsencode(path), how, len(how))
        except BlockingIOError:
            pass  # anything was renamed or mounted on this host meanwhile, and a ".." can't be told from a way out
    return _openat2(path, directory, os.fsencode(path), how, len(how))


def syncfs(fd: int, path: str) -> None:
    _checked(_libc.syncfs(fd), path)


def open_tree(source: str, recursive: bool) -> int:
    """Return a detached copy of the mount (and, if recursive, of those below it) at source."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _open_tree(source, _AT_FDCWD, source.encode(), flags)


def open_tree_at(place: int, recursive: bool, path: str) -> int:
    """The same for the mount at a place that is open already."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return _open_tree(path, place, b"", flags)


def map_ids(fd: int, user: int, recursive: bool, path: str) -> None:
    """Let the files of a detached mount belong, inside, to whom the user namespace's map says."""
    attr = struct.pack("=QQQQ", _ATTR_IDMAP, 0, 0, user)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    try:
        _mount_setattr(path, fd, b"", flags, attr, len(attr))
    except OSError as error:
        raise OSError(
            error.errno,
            f"its file system can't give it the container's own ids ({error.strerror}): use the host's",
            path,
        ) from None


def set_mount_attributes(fd: int, attributes: int, propagation: int, recursive: bool, path: str) -> None:
    attr = struct.pack("=QQQQ", attributes, 0, propagation, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _mount_setattr(path, fd, b"", flags, attr, len(attr))


def clear_mount_attributes(fd: int, attributes: int, path: str) -> None:
    attr = struct.pack("=QQQQ", 0, attributes, 0, 0)
    _mount_setattr(path, fd, b"", _AT_EMPTY_PATH, attr, len(attr))


def move_mount(mount_fd: int, target_fd: int, path: str) -> None:
    _move_mount(path, mount_fd, b"", target_fd, b"", _MOVE_MOUNT_BOTH_EMPTY)


def move_mount_to(mount_fd: int, directory: int, name: str) -> None:
    """The same to a name in a directory that nobody else can have put anything into."""
    _move_mount(name, mount_fd, b"", directory, name.encode(), _MOVE_MOUNT_FROM_EMPTY)


def new_filesystem(fstype: str, options: list[tuple[str, str]], attributes: int) -> int:
    """Return a detached mount of a new file system; an option without a value is a flag.

    The error carries what the kernel wrote into the context's log, which says more than errno does.
    """
    context = _fsopen(fstype, fstype.encode(), 1)
    try:
        for key, value in options:
            command = _FSCONFIG_SET_STRING if value else _FSCONFIG_SET_FLAG
            _fsconfig(f"{fstype} {key}", context, command, key.encode(), value.encode() if value else None, 0)
        _fsconfig(fstype, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _fsmount(fstype, context, 1, attributes)
    except OSError as error:
        raise OSError(error.errno, _kernel_log(context) or error.strerror, error.filename) from None
    finally:
        os.close(context)


def _kernel_log(context: int) -> str:
    lines: list[str] = []
    try:
        while len(lines) < 8:
            lines.append(os.read(context, 512).decode(errors="replace").strip().removeprefix("e "))
    except OSError:
        pass  # ENODATA: the log has been read
    return "; ".join(lines)
