"""Writes a container's files into a tar archive, as a process that has gone into them; see `archive.py`.

Each entry is opened by its one name in its directory, following nothing.  What changes meanwhile is in the archive as
it was found, or fails it; it never leads elsewhere.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from swarmd.runtime.stages import files, inside, syscalls

BLOCK = 1 << 20
SCHILY = "SCHILY.xattr."
XATTRS = ("user.", "security.capability")


def get(root: int, request: dict[str, Any], data: int) -> None:
    """Write the line that says what is there and, unless that is all that was asked for, its archive."""
    path, ending = inside.cleaned(request["path"])
    parent, _, name = path.rpartition("/")
    # A link is copied as a link, unless the path says that it is a directory.
    directory = bool(ending) or not name
    holder = inside.open_directory(root, path if directory else parent or "/", request["name"])
    inner, base = ("." if directory else name), ("." if ending == "/." else name)
    files.write_all(data, files.dump_json({"stat": _stat(root, holder, inner, path, base, request["name"])}) + b"\n")
    if request["action"] == "get":
        with os.fdopen(data, "wb", buffering=BLOCK) as out, _writer(out) as tar:
            _Packer(tar, _kernels(root)).add(holder, inner, base)


def export(root: int, request: dict[str, Any], data: int) -> None:
    with os.fdopen(data, "wb", buffering=BLOCK) as out, _writer(out) as tar:
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        _Packer(tar, frozenset()).add_below(top, "")


@contextmanager
def _writer(out: IO[bytes]) -> Iterator[tarfile.TarFile]:
    with tarfile.open(fileobj=out, mode="w|", bufsize=BLOCK, format=tarfile.PAX_FORMAT) as tar:
        tar.copybufsize = BLOCK  # type: ignore[attr-defined]
        yield tar


def forget(tar: tarfile.TarFile) -> None:
    """Drop the entries that are done with: it would keep one for each file."""
    tar.members.clear()  # type: ignore[attr-defined]


def _stat(root: int, holder: int, name: str, path: str, base: str, container: str) -> dict[str, Any]:
    try:
        found = os.stat(name, dir_fd=holder, follow_symlinks=False)
    except FileNotFoundError:
        raise inside.missing(path, container) from None
    return {
        "name": base or "/",
        "size": found.st_size,
        "mode": found.st_mode,
        "mtime": found.st_mtime_ns,
        "linkTarget": inside.resolved(root, path) if stat.S_ISLNK(found.st_mode) else "",
    }


def _kernels(root: int) -> frozenset[int]:
    """The devices of the file systems that only show the kernel's state."""
    found = set()
    for path in ("/proc", "/sys"):
        with suppress(OSError):
            fd = syscalls.open_beneath(root, path, os.O_PATH | os.O_DIRECTORY)
            found.add(os.fstat(fd).st_dev)
            os.close(fd)
    return frozenset(found - {os.fstat(root).st_dev})


class _Packer:
    """skipped: devices of which directories are archived, but not what is in them."""

    def __init__(self, tar: tarfile.TarFile, skipped: frozenset[int]) -> None:
        self._tar, self._skipped = tar, skipped
        self._seen: dict[tuple[int, int], str] = {}  # files with several names, by their inode

    def add(self, holder: int, name: str, base: str) -> None:
        """Add one entry and what is below it; base: its name in the archive."""
        found = os.stat(name, dir_fd=holder, follow_symlinks=False)
        entry = tarfile.TarInfo(base or "/")
        entry.mode, entry.uid, entry.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
        entry.mtime = found.st_mtime_ns / 1e9 if found.st_mtime_ns % 10**9 else found.st_mtime_ns // 10**9
        if stat.S_ISSOCK(found.st_mode):
            return  # a tar archive has no such entry
        if stat.S_ISDIR(found.st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
            entry.type, entry.pax_headers = tarfile.DIRTYPE, _attributes(inner)
            self._put(entry)
            if found.st_dev not in self._skipped:
                self.add_below(inner, f"{base}/")
            os.close(inner)
        elif stat.S_ISREG(found.st_mode):
            self._add_file(holder, name, entry, found)
        elif stat.S_ISLNK(found.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=holder)
            self._put(entry)
        elif stat.S_ISFIFO(found.st_mode):
            entry.type = tarfile.FIFOTYPE
            self._put(entry)
        else:
            entry.type = tarfile.CHRTYPE if stat.S_ISCHR(found.st_mode) else tarfile.BLKTYPE
            entry.devmajor, entry.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
            self._put(entry)

    def add_below(self, directory: int, prefix: str) -> None:
        for child in sorted(os.listdir(directory)):
            try:
                self.add(directory, child, f"{prefix}{child}")
            except FileNotFoundError:
                continue  # removed meanwhile

    def _put(self, entry: tarfile.TarInfo, content: "_Exactly | None" = None) -> None:
        self._tar.addfile(entry, content)  # type: ignore[arg-type]
        forget(self._tar)

    def _add_file(self, holder: int, name: str, entry: tarfile.TarInfo, found: os.stat_result) -> None:
        inode = (found.st_dev, found.st_ino)
        if inode in self._seen:
            entry.type, entry.linkname = tarfile.LNKTYPE, self._seen[inode]
            self._put(entry)
            return
        # Non-blocking: it may have been swapped for a FIFO.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=holder)
        with os.fdopen(fd, "rb", buffering=0) as content:
            now = os.fstat(fd)
            if not stat.S_ISREG(now.st_mode):
                return
            entry.size, entry.pax_headers = now.st_size, _attributes(fd)
            self._put(entry, _Exactly(content, now.st_size))
        if found.st_nlink > 1:
            self._seen[inode] = entry.name


class _Exactly:
    """A file's first bytes, as many as its header says: what grows is cut, what shrinks is filled with zeroes."""

    def __init__(self, content: IO[bytes], size: int) -> None:
        self._content, self._left = content, size

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = self._content.read(wanted)
        while 0 < len(data) < wanted and (more := self._content.read(wanted - len(data))):
            data += more
        self._left -= wanted
        return data + bytes(wanted - len(data))


def _attributes(fd: int) -> dict[str, str]:
    found = {}
    try:
        for name in os.listxattr(fd):
            if name.startswith(XATTRS):
                found[SCHILY + name] = os.getxattr(fd, name).decode("utf-8", "surrogateescape")
    except OSError:
        pass  # a file system without them
    return found
