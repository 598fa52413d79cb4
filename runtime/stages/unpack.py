"""Unpacks a tar archive into a directory of a container, as a process that has gone into its files; see `archive.py`.

Nothing of an archive leaves the directory by itself: ".." is refused, and so is a link of the archive's own that leads
out of it.  Links that were there before lead where they lead inside the container, as in Docker.  What is replaced is
removed first, so no entry is ever written through a link to a file or into a device.
"""

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from swarmd.runtime.stages import files, inside, privileges, syscalls
from swarmd.runtime.stages.inside import Refused
from swarmd.runtime.stages.pack import BLOCK, SCHILY, XATTRS, forget

_ZEROES = bytes(BLOCK)


def put(root: int, request: dict[str, Any], data: int) -> None:
    path, _ = inside.cleaned(request["path"])
    top = inside.open_directory(root, path, request["name"])
    if os.fstatvfs(top).f_flag & os.ST_RDONLY:
        raise Refused(f"{path} in container {request['name']} is read-only: copy to a volume", "read-only")
    owner = _user_of(request["user"], root) if request["user"] else None
    with os.fdopen(data, "rb", buffering=BLOCK) as content:
        unpack(Target(root, top, path), content, owner, request["keep_kinds"])


def _user_of(user: str, root: int) -> tuple[int, int]:
    """The container's user, looked up in its own files."""
    os.fchdir(root)
    os.chroot(".")
    found = privileges.find_identity(user, [])
    return found.uid, found.gid


class Target:
    """The directory that is unpacked into, by its descriptor and the container's root; path is its name in there."""

    def __init__(self, root: int, top: int, path: str) -> None:
        self._root, self._top, self.path = root, top, path
        self.links: set[tuple[str, ...]] = set()  # that the archive has made

    def name(self, parts: list[str]) -> str:
        return "/".join((self.path.rstrip("/"), *parts)) or "/"

    def directory(self, parts: list[str], flags: int = os.O_PATH) -> int:
        """Open a directory in it. Raises FileNotFoundError; Refused when there is none on the way or it leads out."""
        try:
            return self._open(parts, flags | os.O_DIRECTORY)
        except NotADirectoryError:
            raise Refused(f"{self.name(parts)} is not a directory", "invalid") from None
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ELOOP):
                raise
            raise Refused(f"{self.name(parts)} leads out of {self.path} by a link", "invalid") from None

    def _open(self, parts: list[str], flags: int) -> int:
        if self.path != "/" and any(tuple(parts[: end + 1]) in self.links for end in range(len(parts))):
            return syscalls.open_within(self._top, "/".join(parts), flags)
        return syscalls.open_beneath(self._root, self.name(parts), flags)

    def made(self, parts: list[str]) -> int:
        """The same, making what is missing."""
        place = self.directory([])
        for number, part in enumerate(parts):
            so_far = parts[: number + 1]
            try:
                inner = self.directory(so_far)
            except FileNotFoundError:
                try:
                    os.mkdir(part, 0o755, dir_fd=place)
                except FileExistsError:
                    raise Refused(f"{self.name(so_far)} is a link that leads nowhere", "invalid") from None
                inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            finally:
                os.close(place)
            place = inner
        return place


def unpack(place: Target, content: IO[bytes], owner: tuple[int, int] | None, keep_kinds: bool) -> None:
    """owner: of everything, None for what the archive says; keep_kinds: no directory is replaced by what is none."""
    times: list[tuple[list[str], float]] = []
    try:
        with tarfile.open(fileobj=content, mode="r|*", bufsize=BLOCK) as tar:
            for entry in tar:
                _unpack(place, entry, tar, owner, keep_kinds, times)
                forget(tar)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as problem:
        raise Refused(f"the archive is broken: {problem}", "invalid") from None
    for parts, when in reversed(times):  # a directory's time changes with what is put into it
        with contextlib.suppress(OSError, Refused):  # replaced by a later entry
            fd = place.directory(parts, os.O_RDONLY)
            os.utime(fd, (when, when))
            os.close(fd)
    while content.read(BLOCK):
        pass  # what follows the archive's end


def _parts(entry: tarfile.TarInfo, name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Refused(f"entry {entry.name!r} of the archive leads out of the directory", "invalid")
    if "\0" in name:
        raise ValueError("a name with a zero byte")  # which a system call would cut there
    return parts


def _unpack(
    place: Target,
    entry: tarfile.TarInfo,
    tar: tarfile.TarFile,
    owner: tuple[int, int] | None,
    keep_kinds: bool,
    times: list[tuple[list[str], float]],
) -> None:
    parts = _parts(entry, entry.name)
    if not parts:
        return  # the directory itself
    if entry.isdev() and not entry.isfifo():
        raise Refused(f"entry {entry.name!r} of the archive is a device node: it can't be copied in", "invalid")
    holder = place.made(parts[:-1])
    try:
        _make_room(holder, parts[-1], place.name(parts), entry.isdir(), keep_kinds)
        if entry.issym():
            place.links.add(tuple(parts))
        else:
            place.links.discard(tuple(parts))
        _make(place, holder, parts[-1], entry, tar, owner or (entry.uid, entry.gid))
        if entry.isdir():
            times.append((parts, entry.mtime))
    except OSError as error:
        raise OSError(error.errno, error.strerror, place.name(parts)) from None
    finally:
        os.close(holder)


def _make(
    place: Target, holder: int, name: str, entry: tarfile.TarInfo, tar: tarfile.TarFile, owner: tuple[int, int]
) -> None:
    safe = os.O_NOFOLLOW | os.O_CLOEXEC
    if entry.islnk():
        _link(place, holder, name, entry)
        return
    if entry.issym():
        os.symlink(entry.linkname, name, dir_fd=holder)
        with _ids_that_are_there(entry, owner):
            os.chown(name, *owner, dir_fd=holder, follow_symlinks=False)
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=holder, follow_symlinks=False)
        return
    if entry.isdir():
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=holder)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | safe, dir_fd=holder)
    elif entry.isfifo():
        os.mkfifo(name, 0o600, dir_fd=holder)
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | safe, dir_fd=holder)
    else:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | safe, 0o600, dir_fd=holder)
    try:
        if entry.isfile():
            _copy(tar, entry, fd)
        with _ids_that_are_there(entry, owner):
            os.fchown(fd, *owner)
        # After the owner, whose change takes setuid and capabilities away.
        os.fchmod(fd, entry.mode & 0o7777)
        _set_attributes(fd, entry)
        os.utime(fd, (entry.mtime, entry.mtime))
    finally:
        os.close(fd)


def _link(place: Target, holder: int, name: str, entry: tarfile.TarInfo) -> None:
    source = _parts(entry, entry.linkname)
    try:
        if not source:
            raise FileNotFoundError
        other = place.directory(source[:-1])
        try:
            os.link(source[-1], name, src_dir_fd=other, dst_dir_fd=holder, follow_symlinks=False)
        finally:
            os.close(other)
    except FileNotFoundError:
        said = f"entry {entry.name!r} of the archive is a hard link to {entry.linkname!r}, which is not there"
        raise Refused(said, "invalid") from None


@contextlib.contextmanager
def _ids_that_are_there(entry: tarfile.TarInfo, owner: tuple[int, int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        said = f"entry {entry.name!r} of the archive belongs to {owner[0]}:{owner[1]}, whom the container does not have"
        raise Refused(said, "invalid") from None


def _set_attributes(fd: int, entry: tarfile.TarInfo) -> None:
    for key, value in entry.pax_headers.items():
        name = key.removeprefix(SCHILY)
        if name == key or not name.startswith(XATTRS):
            continue  # not an attribute, or one of the host's own
        try:
            os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):  # a file system without them, a kind of file without
                raise


def _copy(tar: tarfile.TarFile, entry: tarfile.TarInfo, fd: int) -> None:
    """Holes are not read: those of a small archive may be larger than any disk."""
    stream: Any = tar.fileobj
    stream.seek(entry.offset_data)
    for offset, size in entry.sparse or [(0, entry.size)]:  # type: ignore[misc]
        os.lseek(fd, offset, os.SEEK_SET)
        left: int = size
        while left > 0:
            chunk = stream.read(min(left, BLOCK))
            if not chunk:
                raise tarfile.ReadError(f"it ends in the middle of {entry.name!r}")
            if chunk == _ZEROES:
                os.lseek(fd, len(chunk), os.SEEK_CUR)
            else:
                files.write_all(fd, chunk)
            left -= len(chunk)
    os.ftruncate(fd, entry.size)


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
    _remove(holder, name, there)


def _remove(holder: int, name: str, directory: bool) -> None:
    """Follows nothing, whatever it is swapped for meanwhile."""
    if not directory:
        os.unlink(name, dir_fd=holder)
        return
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
    try:
        for child in os.listdir(inner):
            _remove(inner, child, stat.S_ISDIR(os.stat(child, dir_fd=inner, follow_symlinks=False).st_mode))
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=holder)
