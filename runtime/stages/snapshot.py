"""Looks at and writes the files of images that are being built, for the daemon, as a process of its own.

Forked from the spawner, in a mount namespace where it sees the layers as their container would.  Paths of an image are
opened by openat2(2) as if its root were "/".  Lists are files of JSON lines in the build's own directory:

    list    what is below some paths of an image or a directory      -> list
    apply   makes what a list says in an image's upper directory

A line of a list is [path, kind, mode, uid, gid, size, mtime in ns, digest, link, offset]: kind is f, d, l, p, c or b as
in find(1); digest is of a file's content; link is where a symlink leads, or a device's numbers; offset is where in a
context's tar a file's content begins (images/unpacking/indexing.py lists those), or of a file with several names in an
image its inode, so that those that are copied together stay one.  In names, a character stands for a byte.  The answer,
through reply: {} or {"error", "kind"}.
"""

import contextlib
import errno
import gc
import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from swarmd.runtime.stages import archive, files, overlays, privileges, syscalls
from swarmd.runtime.stages.inside import Refused

BLOCK = 1 << 20
_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
}
_OF_KIND = {kind: number for number, kind in _KINDS.items()}
_XATTRS = ("user.", "security.capability")
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
Entry = list[Any]


def run(request: dict[str, Any], fds: list[int]) -> NoReturn:
    """fds: reply alone."""
    import hashlib  # noqa: F401 (for _digest)

    for places in (sys.path, sys.meta_path, sys.path_hooks):
        places.clear()  # from here nothing can be loaded, whoever asks for it
    gc.disable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    syscalls.set_title("swarmd-build")
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    os.umask(0)
    answer: dict[str, Any] = {}
    try:
        _private_mounts()
        match request["action"]:
            case "list":
                root = _open(request)
                _write(request["list"], _listed(root, request["paths"], request["follow"]))
            case _:
                _apply(request)
    except Exception as problem:
        said, kind = archive.said(problem)
        answer = {"error": said, "kind": kind, "exit_code": 125}
    try:
        os.write(fds[-1], files.dump_json(answer))
    finally:
        os._exit(0)


def _private_mounts() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.PROPAGATION["slave"])


def _open(source: dict[str, Any]) -> int:
    """The root of a directory, or of layers seen as one."""
    layers: list[str] = source["layers"]
    if len(layers) == 1:
        return os.open(layers[0], _DIRECTORY)
    return overlays.read_only([*layers, source["empty"]], syscalls.ATTR_RDONLY)


def _write(path: str, entries: Iterator[Entry]) -> None:
    with open(path, "w", encoding="utf-8") as out:
        for entry in entries:
            entry[0], entry[8] = _by_bytes(entry[0]), _by_bytes(entry[8])
            out.write(json.dumps(entry, separators=(",", ":")))
            out.write("\n")


def _by_bytes(name: str) -> str:
    return name if name.isascii() else os.fsencode(name).decode("latin-1")


def _of_bytes(name: str) -> str:
    return name if name.isascii() else os.fsdecode(name.encode("latin-1"))


# ---------------------------------------------------------------- list


def _digest(fd: int, size: int) -> str:
    import hashlib  # loaded by run, before this is inside

    content = hashlib.sha256()
    while size > 0:
        data = os.read(fd, min(size, BLOCK))
        if not data:
            raise Refused("a file became shorter while it was read", "failed")
        content.update(data)
        size -= len(data)
    return content.hexdigest()


def _listed(root: int, paths: list[str], follow: bool) -> Iterator[Entry]:
    """Links on the way to a path are followed inside the image; below it they are what they are.

    follow: so is one at its end, and what it leads to has the link's name.
    """
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            above, _, name = path.rpartition("/")
            holder = syscalls.open_beneath(root, above or ".", _DIRECTORY)
            try:
                if not name:
                    yield from _below(holder, ".", "")
                elif follow and (target := _target(root, path)) is not None:
                    yield from _led_to(target, path)
                else:
                    yield from _entry(holder, name, path)
            finally:
                os.close(holder)


def _target(root: int, path: str) -> int | None:
    """The file or the directory that a path leads to in the end."""
    with contextlib.suppress(OSError):
        found = syscalls.open_beneath(root, path, os.O_PATH | os.O_CLOEXEC)
        if stat.S_IFMT(os.fstat(found).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
            return found
        os.close(found)
    return None


def _led_to(target: int, path: str) -> Iterator[Entry]:
    try:
        found = os.fstat(target)
        if stat.S_ISDIR(found.st_mode):
            yield _line(path, "d", found)
            yield from _below(target, ".", path)
            return
        fd = os.open(f"/proc/self/fd/{target}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield _line(path, "f", found, _digest(fd, found.st_size))
        finally:
            os.close(fd)
    finally:
        os.close(target)


def _below(holder: int, name: str, path: str) -> Iterator[Entry]:
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
    try:
        for child in sorted(os.listdir(inner)):
            yield from _entry(inner, child, f"{path}/{child}" if path else child)
    finally:
        os.close(inner)


def _entry(holder: int, name: str, path: str) -> Iterator[Entry]:
    found = os.stat(name, dir_fd=holder, follow_symlinks=False)
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "")
    digest, link = "", ""
    if kind == "f":
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
        try:
            digest = _digest(fd, found.st_size)
        finally:
            os.close(fd)
    elif kind == "l":
        link = os.readlink(name, dir_fd=holder)
    elif kind in ("c", "b"):
        link = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    elif not kind:
        return  # a socket
    yield _line(path, kind, found, digest, link)
    if kind == "d":
        yield from _below(holder, name, path)


def _line(path: str, kind: str, found: os.stat_result, digest: str = "", link: str = "") -> Entry:
    size = found.st_size if kind == "f" else 0
    about = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
    inode = found.st_ino if kind == "f" and found.st_nlink > 1 else 0
    return [path, kind, *about, size, found.st_mtime_ns, digest, link, inode]


# ---------------------------------------------------------------- apply


def _apply(request: dict[str, Any]) -> None:
    """Each line of the list says where as well: [place, into, *entry]; see Maker.make."""
    layers: list[str] = request["layers"] or [request["empty"]]
    root = overlays.writable(layers, request["directory"], f"{request['directory']}/rootfs", 0, -1)
    source = _source(request["source"])
    try:
        owner = _owner(request["owner"], root)
        with open(request["list"], encoding="utf-8") as lines:
            maker = Maker(root, source, owner)
            try:
                for line in lines:
                    place, into, *entry = json.loads(line)
                    entry[0], entry[8] = _of_bytes(entry[0]), _of_bytes(entry[8])
                    maker.make(_of_bytes(place), into, entry)
                maker.finish()
            finally:
                maker.close()
    finally:
        os.close(root)
        syscalls.umount(f"{request['directory']}/rootfs", syscalls.MNT_DETACH)


def _source(source: dict[str, Any]) -> tuple[int, bool]:
    """What contents are read from, and whether it is one file."""
    if "tar" in source:
        return os.open(source["tar"], os.O_RDONLY | os.O_CLOEXEC), True
    return (_open(source), False) if source else (-1, False)


def _owner(user: str, root: int) -> tuple[int, int] | None:
    """Whom all is to belong to, looked up in the image's own files; None: whom the list says."""
    if not user:
        return None
    if user.replace(":", "", 1).isdigit():
        uid, _, gid = user.partition(":")
        return int(uid), int(gid or uid)
    host = os.open("/", _DIRECTORY)
    os.fchdir(root)
    os.chroot(".")
    try:
        name, _, group = user.partition(":")
        found = privileges.find_identity(user, [])
        return found.uid, found.gid if group or not name.isdigit() else found.uid
    finally:
        os.fchdir(host)
        os.chroot(".")
        os.close(host)


class Maker:
    def __init__(self, root: int, source: tuple[int, bool], owner: tuple[int, int] | None) -> None:
        self._root, (self._source, self._packed), self._owner = root, source, owner
        self._parent, self._holder = "", os.dup(root)
        self._times: list[tuple[str, int]] = []
        self._firsts: dict[int, str] = {}  # where files are by now, by their offsets

    def close(self) -> None:
        os.close(self._holder)

    def make(self, place: str, into: bool, entry: Entry) -> None:
        """into: if there is a directory at the place, what is made goes into it, under its own name."""
        path, kind, mode, uid, gid, size, mtime, _, link, offset = entry
        above, _, name = place.rpartition("/")
        try:
            if kind == "d":
                self._directory(place, mode, uid, gid, mtime)
                return
            self._go(above)
            if into and self._is_directory(name):
                self._go(place)
                name = os.path.basename(path)
                place = f"{place}/{name}"
            self._make_room(name, place)
            if kind == "f":
                if offset in self._firsts:
                    self._link(self._firsts[offset], name)
                    return
                self._file(name, path, size, offset, self._owner or (uid, gid))
                if offset:
                    self._firsts[offset] = place
            elif kind == "l":
                os.symlink(link, name, dir_fd=self._holder)
            else:
                numbers = os.makedev(*map(int, link.split(":"))) if link else 0
                os.mknod(name, _OF_KIND[kind] | 0o600, numbers, dir_fd=self._holder)
            self._describe(name, kind, mode, uid, gid, mtime)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"/{place}") from None

    def finish(self) -> None:
        """Times of directories change with what is put into them."""
        for place, mtime in reversed(self._times):
            fd = syscalls.open_beneath(self._root, place or ".", os.O_RDONLY | os.O_DIRECTORY)
            os.utime(fd, ns=(mtime, mtime))
            os.close(fd)

    def _describe(self, name: str, kind: str, mode: int, uid: int, gid: int, mtime: int) -> None:
        """Owner first: changing it clears set-user-id bits and capabilities."""
        if kind != "f":  # whose owner came before its capabilities
            os.chown(name, *(self._owner or (uid, gid)), dir_fd=self._holder, follow_symlinks=False)
        if kind != "l":
            os.chmod(f"/proc/self/fd/{self._holder}/{name}", mode)
        os.utime(name, ns=(mtime, mtime), dir_fd=self._holder, follow_symlinks=False)

    def _directory(self, place: str, mode: int, uid: int, gid: int, mtime: int) -> None:
        """One that is there stays as it is, and a link to one is followed."""
        try:
            os.close(syscalls.open_beneath(self._root, place or ".", _DIRECTORY))
            return
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            raise Refused(
                f"/{place} in the image is not a directory: a directory can't be copied over it", "invalid"
            ) from None
        above, _, name = place.rpartition("/")
        self._go(above)
        os.mkdir(name, 0o700, dir_fd=self._holder)
        self._describe(name, "d", mode, uid, gid, mtime)
        self._times.append((place, mtime))

    def _is_directory(self, name: str) -> bool:
        try:
            os.close(syscalls.open_beneath(self._root, f"{self._parent}/{name}", _DIRECTORY))
        except OSError:
            return False
        return True

    def _go(self, above: str) -> None:
        """Make the directory that what follows is put into; those that are missing belong to the owner."""
        if above == self._parent:
            return
        fresh = self._made(above)
        os.close(self._holder)
        self._parent, self._holder = above, fresh

    def _made(self, path: str) -> int:
        try:
            return syscalls.open_beneath(self._root, path or ".", _DIRECTORY)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            raise Refused(f"/{path} in the image is not a directory", "invalid") from None
        above, _, name = path.rpartition("/")
        holder = self._made(above)
        try:
            os.mkdir(name, 0o755, dir_fd=holder)
            os.chown(name, *(self._owner or (0, 0)), dir_fd=holder, follow_symlinks=False)
        except FileExistsError:
            raise Refused(f"/{path} in the image is a link that leads nowhere", "invalid") from None
        finally:
            os.close(holder)
        return syscalls.open_beneath(self._root, path, _DIRECTORY)

    def _make_room(self, name: str, place: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=self._holder)
            except IsADirectoryError:
                raise Refused(
                    f"/{place} in the image is a directory: no file can be copied over it", "invalid"
                ) from None

    def _link(self, first: str, name: str) -> None:
        """Another name for a file that is here."""
        fd = syscalls.open_beneath(self._root, first, os.O_PATH | os.O_NOFOLLOW)
        try:
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=self._holder)
        finally:
            os.close(fd)

    def _file(self, name: str, path: str, size: int, offset: int, owner: tuple[int, int]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        out = os.open(name, flags, 0o600, dir_fd=self._holder)
        content = self._source
        try:
            os.fchown(out, *owner)
            if not self._packed:
                content = syscalls.open_beneath(self._source, path, os.O_RDONLY)
            _copy(content, offset if self._packed else 0, size, out, path)
            if not self._packed:
                _copy_attributes(content, out)
        finally:
            os.close(out)
            if content != self._source:
                os.close(content)


def _copy(source: int, offset: int, size: int, out: int, path: str) -> None:
    while size > 0:
        try:
            done = os.copy_file_range(source, out, min(size, 1 << 30), offset)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            data = os.pread(source, min(size, BLOCK), offset)
            files.write_all(out, data)
            done = len(data)
        if not done:
            raise Refused(f"{path} became shorter while it was copied", "failed")
        offset, size = offset + done, size - done


def _copy_attributes(source: int, out: int) -> None:
    for name in os.listxattr(source):
        if name.startswith(_XATTRS):
            with contextlib.suppress(OSError):  # a file system without them
                os.setxattr(out, name, os.getxattr(source, name))
