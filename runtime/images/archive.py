"""Unpacks a layer's tar below one directory, whatever the tar says.

Every entry is made relative to a descriptor of its parent directory, which the kernel looked up as if the layer were
the root (openat2, RESOLVE_IN_ROOT), and the last component is never followed.  So a symlink in an archive can lead
around inside the layer and never out of it.  Whiteouts become those of overlayfs: see the OCI image specification,
layer.md, and the kernel's filesystems/overlayfs.rst.
"""

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from swarmd.runtime.errors import Invalid
from swarmd.runtime.stages import syscalls

_CHUNK = 1 << 20
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_COMPRESSIONS: tuple[tuple[bytes, Any], ...] = ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\x00", lzma))
_ZSTD = b"\x28\xb5\x2f\xfd"


@contextmanager
def decompressed(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that may be compressed with gzip, bzip2 or xz; Invalid for others or if it is cut off."""
    with path.open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        if magic.startswith(_ZSTD):
            raise Invalid("archives compressed with zstd can't be read: compress with gzip, or not at all")
        compression = next((module for start, module in _COMPRESSIONS if magic.startswith(start)), None)
        try:
            if compression is None:
                yield file
            else:
                with compression.open(file) as stream:
                    yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
            raise Invalid(f"the archive is damaged or cut off: {error}") from None
        except OSError as error:
            if error.errno is None:  # bzip2's way to say so
                raise Invalid(f"the archive is damaged or cut off: {error}") from None
            raise


class Digested:
    """A stream that hashes what is read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    def finish(self) -> str:
        """Read the rest, which tar does not look at, and return the digest of it all."""
        while self.read(_CHUNK):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def digest(path: Path) -> tuple[str, int]:
    """The digest and size of what a possibly compressed archive holds."""
    with decompressed(path) as stream:
        content = Digested(stream)
        return content.finish(), content.size


def unpack(path: Path, directory: Path) -> tuple[str, int]:
    """Unpack a layer into an empty directory; return the digest of the uncompressed tar, and its size."""
    with decompressed(path) as stream:
        content = Digested(stream)
        root = os.open(directory, _DIRECTORY)
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", content), mode="r|", errors="surrogateescape") as tar:
                Unpacker(tar, root).run()
        except tarfile.TarError as error:
            raise Invalid(f"this is not a complete tar archive: {error}") from None
        finally:
            os.close(root)
        return content.finish(), content.size


def flush(directory: Path) -> None:
    """Bring what was written to this file system to the disk: cheaper than a flush per file."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd, str(directory))
    finally:
        os.close(fd)


class Unpacker:
    def __init__(self, tar: tarfile.TarFile, root: int) -> None:
        self._tar = tar
        self._root = root
        self._parent = ("", os.dup(root))  # the last parent looked up: neighbours in a tar are neighbours in the tree
        self._times: dict[str, float] = {}  # of directories, set when nothing more is made in them

    def run(self) -> None:
        try:
            for entry in self._tar:
                self._make(entry)
                self._tar.members.clear()  # type: ignore[attr-defined]  # else all entries stay in memory
            self._set_directory_times()
        finally:
            os.close(self._parent[1])

    def _make(self, entry: tarfile.TarInfo) -> None:
        path = _inside(entry.name, entry)
        parent_path, _, name = path.rpartition("/")
        if not name:
            if not entry.isdir():
                raise Invalid(f"archive entry {entry.name!r} would replace the root")
            self._describe(entry, ".", self._root)
            return
        parent = self._open_parent(parent_path)
        if name == _OPAQUE:
            os.setxattr(f"/proc/self/fd/{parent}", "trusted.overlay.opaque", b"y")
        elif name.startswith(_WHITEOUT):
            _clear(parent, name.removeprefix(_WHITEOUT))
            os.mknod(name.removeprefix(_WHITEOUT), stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        elif entry.isdir():
            self._make_directory(entry, name, parent)
            self._times[path] = entry.mtime
        else:
            _clear(parent, name)
            self._make_other(entry, name, parent)

    def _make_directory(self, entry: tarfile.TarInfo, name: str, parent: int) -> None:
        try:
            os.mkdir(name, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                _clear(parent, name)
                os.mkdir(name, dir_fd=parent)
        self._describe(entry, name, parent)

    def _make_other(self, entry: tarfile.TarInfo, name: str, parent: int) -> None:
        if entry.isreg():
            self._write(entry, name, parent)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.islnk():
            self._link(entry, name, parent)
            return  # it has its target's attributes
        elif entry.isfifo():
            os.mkfifo(name, dir_fd=parent)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            os.mknod(name, kind, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
        else:
            raise Invalid(f"archive entry {entry.name!r} is of the unknown type {entry.type!r}")
        self._describe(entry, name, parent)
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _write(self, entry: tarfile.TarInfo, name: str, parent: int) -> None:
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        with os.fdopen(fd, "wb", buffering=0) as file, cast("IO[bytes]", self._tar.extractfile(entry)) as content:
            shutil.copyfileobj(content, file, _CHUNK)

    def _link(self, entry: tarfile.TarInfo, name: str, parent: int) -> None:
        target_parent, _, target = _inside(entry.linkname, entry).rpartition("/")
        try:
            holder = syscalls.open_beneath(self._root, target_parent or ".", _DIRECTORY)
        except OSError as error:
            raise Invalid(f"archive entry {entry.name!r} links to {entry.linkname!r}: {error.strerror}") from None
        try:
            os.link(target, name, src_dir_fd=holder, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            raise Invalid(f"archive entry {entry.name!r} links to {entry.linkname!r}: {error.strerror}") from None
        finally:
            os.close(holder)

    def _describe(self, entry: tarfile.TarInfo, name: str, parent: int) -> None:
        """Owner first: changing it clears set-user-id bits and file capabilities."""
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if not entry.issym():
            Path(f"/proc/self/fd/{parent}/{name}").chmod(entry.mode & 0o7777)
        for key, value in entry.pax_headers.items():
            attribute = key.removeprefix(_XATTR)
            if key.startswith(_XATTR) and attribute.startswith(("user.", "security.capability")):
                data = value.encode("utf-8", "surrogateescape")
                os.setxattr(f"/proc/self/fd/{parent}/{name}", attribute, data, follow_symlinks=False)

    def _open_parent(self, path: str) -> int:
        if self._parent[0] != path or not path:
            fresh = self._open_or_make(path)
            os.close(self._parent[1])
            self._parent = (path, fresh)
        return self._parent[1]

    def _open_or_make(self, path: str) -> int:
        """Open a directory, making it and those above it if the archive has not."""
        try:
            return syscalls.open_beneath(self._root, path or ".", _DIRECTORY)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Invalid(f"archive entries are below {path!r}, which is no directory: {error.strerror}") from None
        above, _, name = path.rpartition("/")
        holder = self._open_or_make(above)
        try:
            os.mkdir(name, 0o755, dir_fd=holder)
        except FileExistsError:
            raise Invalid(f"archive entries are below {path!r}, a symlink that leads nowhere") from None
        finally:
            os.close(holder)
        return syscalls.open_beneath(self._root, path, _DIRECTORY)

    def _set_directory_times(self) -> None:
        for path, mtime in self._times.items():
            with contextlib.suppress(OSError):  # replaced by something else since
                fd = syscalls.open_beneath(self._root, path, _DIRECTORY | os.O_NOFOLLOW)
                try:
                    os.utime(f"/proc/self/fd/{fd}", (mtime, mtime))
                finally:
                    os.close(fd)


def _inside(name: str, entry: tarfile.TarInfo) -> str:
    """The path relative to the layer's root; a leading slash is that root."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Invalid(f"archive entry {entry.name!r} leads out of the archive")
    return "/".join(parts)


def _clear(parent: int, name: str) -> None:
    """A later entry replaces an earlier one of its name."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=parent)
