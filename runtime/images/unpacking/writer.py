"""Writes the entries of a layer below one directory, whatever they say.

Every entry is made relative to a descriptor of its parent directory, which the kernel looked up as if the layer were
the root (openat2, RESOLVE_IN_ROOT), and the last component is never followed.  So a symlink in an archive can lead
around inside the layer and never out of it.  Whiteouts become those of overlayfs: see the OCI image specification,
layer.md, and the kernel's filesystems/overlayfs.rst.

A file costs four system calls: open, write, utimensat, close.  That needs a process without a umask (see worker.py).
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from swarmd.runtime.errors import Exhausted, Invalid, RuntimeFault
from swarmd.runtime.images.unpacking.parents import OPAQUE_XATTR, Parents
from swarmd.runtime.images.unpacking.removal import remove_tree
from swarmd.runtime.images.unpacking.tar import Entry, Kind, Reader, shown
from swarmd.runtime.stages import files, syscalls

WHITEOUT = ".wh."
_META = ".wh..wh."  # what AUFS kept beside the files
OPAQUE = ".wh..wh..opq"
KEPT_XATTRS = ("user.", "security.capability")
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOBODY = 2**32 - 1  # what chown(2) takes for "leave it"
_ITS_FAULT = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EINVAL,
        errno.EFBIG,
        errno.EOVERFLOW,
    }
)

T = TypeVar("T")


def unpack(entries: Reader, directory: str) -> int:
    """Write all entries into an empty directory; return the bytes of all files.

    Raises Invalid for what no layer may say, Exhausted when the disk is full; what was made until then stays.
    """
    parents = Parents(directory)
    try:
        writer = Writer(entries, parents)
        for entry in entries:
            writer.put(entry)
        writer.set_directory_times()
        return writer.size
    finally:
        parents.close()


class Writer:
    """size: bytes of the files that are there now."""

    def __init__(self, entries: Reader, parents: Parents) -> None:
        self._entries, self._parents = entries, parents
        self._times: dict[str, int] = {}  # ns, of directories: set when nothing more is made in them
        self.size = 0

    def put(self, entry: Entry) -> None:
        try:
            self._put(entry)
        except OSError as error:
            raise _explained(entry, error) from None
        except (OverflowError, ValueError) as error:
            raise Invalid(f"archive entry {shown(entry.name)} can't be made: {error}") from None

    def set_directory_times(self) -> None:
        for path, time in self._times.items():
            above, _, name = path.rpartition("/")
            with suppress(OSError, Invalid):  # replaced by something else since
                place, _ = self._parents.open(above, make=False)
                if stat.S_ISDIR(os.stat(name or ".", dir_fd=place, follow_symlinks=False).st_mode):
                    os.utime(name or ".", ns=(time, time), dir_fd=place, follow_symlinks=False)

    def _put(self, entry: Entry) -> None:
        if not (0 <= entry.uid < _NOBODY and 0 <= entry.gid < _NOBODY):
            raise Invalid(f"archive entry {shown(entry.name)} belongs to {entry.uid}:{entry.gid}, whom no system has")
        path = _inside(entry.name, entry)
        above, _, name = path.rpartition("/")
        if name.startswith(WHITEOUT):
            self._hide(entry, above, name)
            return
        if not name and entry.kind is not Kind.DIRECTORY:
            raise Invalid(f"archive entry {shown(entry.name)} would replace the root of the layer")
        place, gives_group = self._parents.open(above)
        owned = gives_group or bool(entry.uid or entry.gid)
        match entry.kind:
            case Kind.FILE:
                self._file(entry, path, name, place, owned)
            case Kind.DIRECTORY:
                self._directory(entry, path, name or ".", place, owned)
            case Kind.SYMLINK:
                self._fresh(lambda: os.symlink(entry.target, name, dir_fd=place), place, name, path)
                if owned:
                    os.chown(name, entry.uid, entry.gid, dir_fd=place, follow_symlinks=False)
                _set_time(entry, name, place)
            case Kind.LINK:
                self._link(entry, path, name, place)
            case _:
                self._node(entry, path, name, place, owned)

    def _file(self, entry: Entry, path: str, name: str, place: int, owned: bool) -> None:
        mode = entry.mode
        fd = self._fresh(lambda: os.open(name, _NEW_FILE, mode & 0o777, dir_fd=place), place, name, path)
        try:
            if entry.segments is None:
                for data in self._entries.content():
                    _write(fd, data)
            else:
                for offset, size in entry.segments:
                    os.lseek(fd, offset, os.SEEK_SET)
                    for data in self._entries.content(size):
                        _write(fd, data)
                os.ftruncate(fd, entry.size)
            self.size += entry.size
            # Owner first: changing it clears set-user-id bits and file capabilities, as does writing.
            if owned:
                os.fchown(fd, entry.uid, entry.gid)
            if owned or mode & 0o7000:
                os.fchmod(fd, mode)
            if entry.xattrs:
                _set_xattrs(entry, fd)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _directory(self, entry: Entry, path: str, name: str, place: int, owned: bool) -> None:
        self._times[path] = entry.mtime
        there = hidden = False
        try:
            if path:
                os.mkdir(name, entry.mode & 0o777, dir_fd=place)
            else:
                there = True
        except FileExistsError:
            there = stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode)
            if not there:
                hidden = self._clear(place, name, path)
                os.mkdir(name, entry.mode & 0o777, dir_fd=place)
                self._times[path] = entry.mtime
        if owned or there:
            os.chown(name, entry.uid, entry.gid, dir_fd=place, follow_symlinks=False)
        if owned or there or entry.mode & 0o7000:
            os.chmod(name, entry.mode, dir_fd=place)
        if there:
            self._parents.changed()  # whether it gives its group to what is made in it may have changed
        if hidden:
            os.setxattr(_reach(place, name), OPAQUE_XATTR, b"y")
        if entry.xattrs:
            _set_xattrs(entry, _reach(place, name))

    def _node(self, entry: Entry, path: str, name: str, place: int, owned: bool) -> None:
        mode = entry.mode & 0o777
        if entry.kind is Kind.FIFO:
            mode, device = mode | stat.S_IFIFO, 0
        else:
            mode |= stat.S_IFCHR if entry.kind is Kind.CHARACTER else stat.S_IFBLK
            device = os.makedev(*entry.device)
            if not device and entry.kind is Kind.CHARACTER:
                raise Invalid(f"archive entry {shown(entry.name)} is device 0:0, by which layers hide files")
        self._fresh(lambda: os.mknod(name, mode, device, dir_fd=place), place, name, path)
        if owned:
            os.chown(name, entry.uid, entry.gid, dir_fd=place, follow_symlinks=False)
        if owned or entry.mode & 0o7000:
            os.chmod(name, entry.mode, dir_fd=place)
        _set_time(entry, name, place)

    def _link(self, entry: Entry, path: str, name: str, place: int) -> None:
        """It has its target's attributes."""
        above, _, target = _inside(entry.target, entry).rpartition("/")
        said = f"archive entry {shown(entry.name)} is a hard link to {shown(entry.target)}"
        try:
            holder = syscalls.open_beneath(self._parents.root, above or ".", os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise Invalid(f"{said}, which is not in this layer: {error.strerror}") from None
        try:
            found = os.stat(target, dir_fd=holder, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise Invalid(f"{said}, which is a directory")

            def link() -> None:
                os.link(target, name, src_dir_fd=holder, dst_dir_fd=place, follow_symlinks=False)

            with suppress(FileNotFoundError):
                there = os.stat(name, dir_fd=place, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
                    return  # it is that file
            self._fresh(link, place, name, path)
        except FileNotFoundError:
            raise Invalid(f"{said}, which is not in this layer") from None
        finally:
            os.close(holder)

    def _hide(self, entry: Entry, above: str, name: str) -> None:
        """A whiteout is about the layers below: what this layer has by that name stays, alone."""
        hidden = name.removeprefix(WHITEOUT)
        if name.startswith(_META) and name != OPAQUE:
            return
        if hidden in ("", ".", ".."):
            raise Invalid(f"archive entry {shown(entry.name)} is the whiteout of no name")
        place, _ = self._parents.open(above)
        if name == OPAQUE:
            os.setxattr(place, OPAQUE_XATTR, b"y")
            return
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=place)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(hidden, dir_fd=place, follow_symlinks=False).st_mode):
                os.setxattr(_reach(place, hidden), OPAQUE_XATTR, b"y")

    def _fresh(self, make: Callable[[], T], place: int, name: str, path: str) -> T:
        """Make what must be new; a later entry replaces an earlier one of its name."""
        try:
            return make()
        except FileExistsError:
            self._clear(place, name, path)
            return make()

    def _clear(self, place: int, name: str, path: str) -> bool:
        """Remove what an earlier entry made; return whether that hid something of the layers below."""
        self._times.pop(path, None)
        found = os.stat(name, dir_fd=place, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            self.size -= remove_tree(place, name)
        else:
            self.size -= found.st_size if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else 0
            os.unlink(name, dir_fd=place)
        self._parents.changed()
        return stat.S_ISCHR(found.st_mode) and not found.st_rdev


def _inside(name: str, entry: Entry) -> str:
    """The path relative to the layer's root; a leading slash is that root."""
    parts = [part for part in name.split("/") if part and part != "."]
    if ".." in parts:
        raise Invalid(f"archive entry {shown(entry.name)} leads out of the layer by {shown(name)}")
    return "/".join(parts)


def _write(fd: int, data: memoryview) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def _reach(place: int, name: str) -> str:
    return f"/proc/self/fd/{place}/{name}"


def _set_time(entry: Entry, name: str, place: int) -> None:
    os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=place, follow_symlinks=False)


def _set_xattrs(entry: Entry, where: int | str) -> None:
    for name, value in entry.xattrs.items():
        if not name.startswith(KEPT_XATTRS):
            continue  # of the host's own: labels, access lists
        try:
            os.setxattr(where, name, value)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a file system without them
                raise


def _explained(entry: Entry, error: OSError) -> RuntimeFault:
    what = f"archive entry {shown(entry.name)} can't be made: {error.strerror}"
    if error.errno in files.FULL:
        return Exhausted(f"{what}: free space on the disk of the images, or remove some with `image prune`")
    return Invalid(what) if error.errno in _ITS_FAULT else RuntimeFault(what)
