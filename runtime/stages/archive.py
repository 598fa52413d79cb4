"""Reads and writes a container's files for the daemon, as tar archives, from a process that has gone into them.

Forked from the spawner.  It loads all it needs and then enters the running container's mount namespace (and its ids),
or mounts the stopped container's file system for itself; from then on every path is opened by openat2(2) as if the
container's root were "/", so that no link leads out, however it is swapped meanwhile, and nothing of the container's
is ever loaded or run (CVE-2018-15664, CVE-2019-14271).

    get     out: a line {"stat"}, then the archive of a path          put     in: an archive, unpacked into a directory
    stat    out: the line alone                                       export  out: the archive of the whole root
    the answer, through reply: {} or {"error", "kind"}; an archive is complete only if the answer says so
"""

import contextlib
import errno
import gc
import os
import signal
import stat
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, NoReturn

from swarmd.runtime.stages import files, mounts, namespaces, privileges, syscalls

if TYPE_CHECKING:
    import tarfile

_BLOCK = 1 << 20
_SCHILY = "SCHILY.xattr."
_KINDS = {errno.ENOENT: "missing", errno.ENOTDIR: "missing", errno.EROFS: "read-only", errno.ELOOP: "missing"}


class Refused(Exception):
    """kind: missing, read-only or invalid."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def run(request: dict[str, Any], fds: list[int]) -> NoReturn:
    """fds: the running container's pidfd if there is one, the pipe of the archive, reply."""
    import tarfile  # before anything of the container is in sight; not in the spawner, whose memory every shim shares

    gc.disable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    syscalls.set_title("swarmd-archive")
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    *pidfd, data, reply = fds
    answer: dict[str, Any] = {}
    try:
        root = _enter(request, pidfd)
        _ACTIONS[request["action"]](root, request, data, tarfile)
    except Refused as refusal:
        answer = {"error": str(refusal), "kind": refusal.kind, "exit_code": 125}
    except BrokenPipeError:
        answer = {}  # nobody reads any more
    except tarfile.TarError as problem:
        answer = {"error": f"the archive is broken: {problem}", "kind": "invalid", "exit_code": 125}
    except OSError as problem:
        what = problem.filename.decode(errors="replace") if isinstance(problem.filename, bytes) else problem.filename
        said = f"{what}: {(problem.strerror or 'failed').lower()}" if what else str(problem.strerror)
        answer = {"error": said, "kind": _KINDS.get(problem.errno or 0, "failed"), "exit_code": 125}
    except Exception as problem:
        answer = {"error": f"{type(problem).__name__}: {problem}", "kind": "failed", "exit_code": 125}
    try:
        os.write(reply, files.dump_json(answer))
    finally:
        os._exit(0)


def _enter(request: dict[str, Any], pidfd: list[int]) -> int:
    """Return a descriptor of the container's root."""
    if pidfd and request["action"] != "export":
        linux: dict[str, Any] = request["linux"]
        syscalls.setns(pidfd[0], syscalls.CLONE_NEWNS, "mount namespace")
        if namespaces.user_path(linux):
            namespaces.enter_user(pidfd[0])
        return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.PROPAGATION["slave"])
    directory: str = request["directory"]
    lower: list[str] = request["lower"]
    if request["action"] == "export":
        # Read-only, of its layers and what it has written: a running container's own mount stays its own.
        layers = [("lowerdir+", path) for path in (f"{directory}/upper", *lower, f"{directory}/rootfs")]
        fd = mounts.new("overlay", [("source", "overlay"), *layers], syscalls.ATTR_RDONLY)
    else:
        fd = mounts.overlay(lower, directory, f"{directory}/rootfs", syscalls.ATTR_NODEV, -1)
        for entry in request["binds"]:
            mounts.perform(fd, entry)
    return fd


# Reading


def _get(root: int, request: dict[str, Any], data: int, tarfile: Any) -> None:
    path: str = request["path"]
    parent, name = _split(path)
    # The last part is taken as it is: a link is copied as a link.
    holder = _open(root, parent, os.O_PATH | os.O_DIRECTORY)
    found = _stat_line(holder, name, path, root)
    files.write_all(data, files.dump_json({"stat": found}) + b"\n")
    if request["action"] == "stat":
        return
    base = "." if path.rstrip("/").endswith("/.") or path == "/" else name
    with os.fdopen(data, "wb", buffering=_BLOCK) as out, _writer(tarfile, out) as tar:
        _add(tar, holder, name, base, {}, tarfile)


def _writer(module: Any, out: IO[bytes]) -> "tarfile.TarFile":
    made: tarfile.TarFile = module.open(fileobj=out, mode="w|", bufsize=_BLOCK, format=module.PAX_FORMAT)
    return made


def _split(path: str) -> tuple[str, str]:
    """The directory and the name in it; "." in "/" for the root."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/" + "/".join(parts[:-1]), parts[-1] if parts else "."


def _open(root: int, path: str, flags: int) -> int:
    return syscalls.open_beneath(root, path or "/", flags)


def _stat_line(holder: int, name: str, path: str, root: int) -> dict[str, Any]:
    try:
        found = os.stat(name, dir_fd=holder, follow_symlinks=False)
    except FileNotFoundError:
        raise Refused(f"{path}: no such file or directory", "missing") from None
    if path.endswith("/") and path.strip("/") and not stat.S_ISDIR(found.st_mode):
        try:  # "link/" is what the link leads to
            found = os.fstat(_open(root, path, os.O_PATH | os.O_DIRECTORY))
        except NotADirectoryError:
            raise Refused(f"{path}: not a directory", "invalid") from None
    link = os.readlink(name, dir_fd=holder) if stat.S_ISLNK(found.st_mode) else ""
    return {"name": name if name != "." else "/", "size": found.st_size, "mode": found.st_mode,
            "mtime": found.st_mtime_ns, "linkTarget": link}  # fmt: skip


def _add(tar: "tarfile.TarFile", holder: int, name: str, base: str, seen: dict[Any, str], tarfile: Any) -> None:
    """Add one entry and what is below it; seen: files with several names, by their inode."""
    found = os.stat(name, dir_fd=holder, follow_symlinks=False)
    if stat.S_ISSOCK(found.st_mode):
        return
    entry = tarfile.TarInfo(base)
    entry.mode, entry.uid, entry.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    entry.mtime = found.st_mtime_ns / 1e9 if found.st_mtime_ns % 10**9 else found.st_mtime_ns // 10**9
    if stat.S_ISLNK(found.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=holder)
    elif stat.S_ISFIFO(found.st_mode):
        entry.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        entry.type = tarfile.CHRTYPE if stat.S_ISCHR(found.st_mode) else tarfile.BLKTYPE
        entry.devmajor, entry.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    elif stat.S_ISREG(found.st_mode):
        _add_file(tar, holder, name, entry, found, seen, tarfile)
        return
    else:
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
        entry.type = tarfile.DIRTYPE
        entry.pax_headers = _attributes(inner)
        tar.addfile(entry)
        for child in sorted(os.listdir(inner)):
            try:
                _add(tar, inner, child, f"{base}/{child}", seen, tarfile)
            except FileNotFoundError:
                continue  # removed meanwhile
        os.close(inner)
        return
    tar.addfile(entry)


def _add_file(
    tar: "tarfile.TarFile",
    holder: int,
    name: str,
    entry: "tarfile.TarInfo",
    found: os.stat_result,
    seen: dict[Any, str],
    tarfile: Any,
) -> None:
    inode = (found.st_dev, found.st_ino)
    if found.st_nlink > 1 and inode in seen:
        entry.type, entry.linkname = tarfile.LNKTYPE, seen[inode]
        tar.addfile(entry)
        return
    # Non-blocking: it may have been swapped for a FIFO.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=holder)
    with os.fdopen(fd, "rb", buffering=0) as content:
        now = os.fstat(fd)
        if not stat.S_ISREG(now.st_mode):
            return
        entry.size, entry.pax_headers = now.st_size, _attributes(fd)
        tar.addfile(entry, _Exactly(content, now.st_size))  # type: ignore[arg-type]
    seen[inode] = entry.name


class _Exactly:
    """A file's first bytes, as many as its header says: what grows is cut, what shrinks is filled with zeroes."""

    def __init__(self, content: IO[bytes], size: int) -> None:
        self._content, self._left = content, size

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = self._content.read(wanted)
        data += bytes(wanted - len(data)) if not data else b""
        self._left -= len(data)
        return data


def _attributes(fd: int) -> dict[str, str]:
    found = {}
    try:
        for name in os.listxattr(fd):
            if name.startswith(("user.", "security.capability")):
                found[_SCHILY + name] = os.getxattr(fd, name).decode("utf-8", "surrogateescape")
    except OSError:
        pass  # a file system without them
    return found


def _export(root: int, request: dict[str, Any], data: int, tarfile: Any) -> None:
    with os.fdopen(data, "wb", buffering=_BLOCK) as out, _writer(tarfile, out) as tar:
        seen: dict[Any, str] = {}
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        for child in sorted(os.listdir(top)):
            _add(tar, top, child, child, seen, tarfile)


# Writing


def _put(root: int, request: dict[str, Any], data: int, tarfile: Any) -> None:
    try:
        place = _open(root, request["path"], os.O_PATH | os.O_DIRECTORY)
    except NotADirectoryError:
        raise Refused(f"{request['path']}: not a directory", "invalid") from None
    os.close(place)
    owner = _user_of(request, root) if request["own"] else None
    with os.fdopen(data, "rb", buffering=_BLOCK) as content, tarfile.open(fileobj=content, mode="r|*") as tar:
        late: list[tuple[str, float]] = []
        for entry in tar:
            _unpack(root, request["path"], entry, tar, owner, request["keep_kinds"], late)
        for path, when in reversed(late):  # a directory's time changes with what is put into it
            _set_time(root, path, when)
        while content.read(_BLOCK):
            pass  # what follows the archive's end


def _user_of(request: dict[str, Any], root: int) -> tuple[int, int]:
    """The container's user, looked up in its own files."""
    os.fchdir(root)
    os.chroot(".")
    found = privileges.find_identity(request["user"], [])
    return found.uid, found.gid


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Refused(f"entry {name!r} of the archive leads out of the directory", "invalid")
    return parts


def _unpack(
    root: int,
    top: str,
    entry: "tarfile.TarInfo",
    tar: "tarfile.TarFile",
    owner: tuple[int, int] | None,
    keep_kinds: bool,
    late: list[tuple[str, float]],
) -> None:
    parts = _parts(entry.name)
    if not parts:
        return  # the directory itself
    if entry.isdev() and not entry.isfifo():
        raise Refused(f"entry {entry.name!r} of the archive is a device node: it can't be copied in", "invalid")
    holder = _make_directories(root, top, parts[:-1])
    name, path = parts[-1], "/".join((top, *parts))
    try:
        _make_room(holder, name, path, entry.isdir(), keep_kinds)
        uid, gid = owner or (entry.uid, entry.gid)
        if entry.isdir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=holder)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
            late.append((path, entry.mtime))
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=holder)
            os.chown(name, uid, gid, dir_fd=holder, follow_symlinks=False)
            os.utime(name, (entry.mtime, entry.mtime), dir_fd=holder, follow_symlinks=False)
            return
        elif entry.islnk():
            source = _parts(entry.linkname)
            other = _open(root, "/".join((top, *source[:-1])), os.O_PATH | os.O_DIRECTORY)
            os.link(source[-1], name, src_dir_fd=other, dst_dir_fd=holder, follow_symlinks=False)
            os.close(other)
            return
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=holder)
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=holder)
            _copy(tar, entry, fd)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, entry.mode & 0o7777)
        for key, value in entry.pax_headers.items():
            if key.startswith(_SCHILY):
                os.setxattr(fd, key.removeprefix(_SCHILY), value.encode("utf-8", "surrogateescape"))
        os.utime(fd, (entry.mtime, entry.mtime))
        os.close(fd)
    finally:
        os.close(holder)


def _make_directories(root: int, top: str, parts: list[str]) -> int:
    """Open a directory below top, making what is missing; links in it lead where they lead inside the container."""
    place = _open(root, top, os.O_PATH | os.O_DIRECTORY)
    for number in range(len(parts)):
        path = "/".join((top, *parts[: number + 1]))
        try:
            inner = _open(root, path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            try:
                os.mkdir(parts[number], 0o755, dir_fd=place)
            except FileExistsError:
                raise Refused(f"{path} is a link that leads nowhere in the container", "invalid") from None
            inner = os.open(parts[number], os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
        os.close(place)
        place = inner
    return place


def _make_room(holder: int, name: str, path: str, directory: bool, keep_kinds: bool) -> None:
    try:
        found = os.stat(name, dir_fd=holder, follow_symlinks=False)
    except FileNotFoundError:
        return
    there = stat.S_ISDIR(found.st_mode)
    if there and directory:
        return
    if there != directory and keep_kinds:
        kinds = ("a directory", "no directory") if there else ("no directory", "a directory")
        raise Refused(f"{path} is {kinds[0]}, and would be replaced by {kinds[1]}", "invalid")
    if there:
        for child in _below(holder, name):
            os.close(child)
        os.rmdir(name, dir_fd=holder)
    else:
        os.unlink(name, dir_fd=holder)


def _below(holder: int, name: str) -> Iterator[int]:
    """Empty a directory without following anything; yields descriptors that are done with."""
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
    for child in os.listdir(inner):
        if stat.S_ISDIR(os.stat(child, dir_fd=inner, follow_symlinks=False).st_mode):
            yield from _below(inner, child)
            os.rmdir(child, dir_fd=inner)
        else:
            os.unlink(child, dir_fd=inner)
    yield inner


def _copy(tar: "tarfile.TarFile", entry: "tarfile.TarInfo", fd: int) -> None:
    content = tar.extractfile(entry)
    while content and (chunk := content.read(_BLOCK)):
        files.write_all(fd, chunk)


def _set_time(root: int, path: str, when: float) -> None:
    fd = _open(root, path, os.O_RDONLY | os.O_DIRECTORY)
    os.utime(fd, (when, when))
    os.close(fd)


_ACTIONS = {"get": _get, "stat": _get, "put": _put, "export": _export}
