"""Packs a directory into a layer: of the same tree always the same bytes.

Of an overlayfs upper directory, whiteouts and opaque directories become those of the OCI image specification,
layer.md; in any other there are none.  Each file is opened by its one name in its directory, following nothing, so
that a container that still runs leads nowhere else; what changes meanwhile is packed as it was found.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from typing import Protocol

import zstandard
from isal import isal_zlib

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.unpacking import jobs
from swarmd.runtime.images.unpacking.ahead import Ahead
from swarmd.runtime.images.unpacking.compression import PIECE
from swarmd.runtime.images.unpacking.headers import Member, header
from swarmd.runtime.images.unpacking.parents import OPAQUE_XATTR
from swarmd.runtime.images.unpacking.tar import BLOCK, Kind, shown
from swarmd.runtime.images.unpacking.writer import KEPT_XATTRS, OPAQUE, WHITEOUT

_GZIP_LEVEL, _ZSTD_LEVEL = 1, 3
_GZIP_WINDOW = 31  # 15 bits, with a gzip header: it has no time and no name in it
_NOBODY = 65534
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOVED = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
}


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def pack(job: jobs.PackJob) -> jobs.Packed:
    content, compressed, size = hashlib.sha256(), hashlib.sha256(), 0
    out = os.open(job.blob, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        for piece in Ahead(_compressed(_hashed(_even(Packer(job).pieces()), content), job.compression)):
            compressed.update(piece)
            size += len(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(out, view) :]
    finally:
        os.close(out)
    return jobs.Packed(digest=f"sha256:{compressed.hexdigest()}", size=size, diff_id=f"sha256:{content.hexdigest()}")


def _even(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same in pieces of one size: what a compressor makes depends on how it is fed."""
    waiting: list[bytes] = []
    have = 0
    for piece in pieces:
        waiting.append(piece)
        have += len(piece)
        if have >= PIECE:
            whole = b"".join(waiting)
            for at in range(0, have - PIECE + 1, PIECE):
                yield whole[at : at + PIECE]
            waiting = [whole[have - have % PIECE :]]
            have %= PIECE
    yield b"".join(waiting)


def _hashed(pieces: Iterator[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _compressed(pieces: Iterator[bytes], compression: jobs.Compression) -> Iterator[bytes]:
    if not compression:
        yield from pieces
        return
    stream: _Compressor
    if compression == "zstd":
        stream = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    else:
        stream = isal_zlib.compressobj(level=_GZIP_LEVEL, wbits=_GZIP_WINDOW)
    for piece in pieces:
        if out := stream.compress(piece):
            yield out
    yield stream.flush()


class Packer:
    def __init__(self, job: jobs.PackJob) -> None:
        self._job = job
        self._seen: dict[tuple[int, int], bytes] = {}  # files with several names, by their inode
        listed = None if job.paths is None else {path.strip(b"/") for path in job.paths}
        self._listed, self._on_the_way = listed, _above(listed or ())

    def pieces(self) -> Iterator[bytes]:
        """The tar.  A stack of our own: trees may be deeper than Python's."""
        top = os.open(self._job.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Of each level its descriptor, its path, the names to come, and whether all of them are wanted.
        levels = [(top, b"", _names(top), self._listed is None)]
        missing = set(self._listed or ())
        try:
            if _attributes(top, self._job.directory)[1]:
                yield header(_marker(OPAQUE.encode()))
            while levels:
                place, path, names, whole = levels[-1]
                if (name := next(names, None)) is None:
                    os.close(place)
                    levels.pop()
                    continue
                full = path + name
                missing.discard(full)
                wanted = whole or full in (self._listed or ())
                if wanted or full in self._on_the_way:
                    inner = yield from self._entry(place, name, full)
                    if inner >= 0:
                        levels.append((inner, full + b"/", _names(inner), wanted))
        finally:
            for place, *_ in levels:
                os.close(place)
        if missing:
            raise Invalid(f"{shown(os.fsdecode(min(missing)))} is to be packed, and is not there")
        yield bytes(2 * BLOCK)

    def _entry(self, place: int, name: bytes, full: bytes) -> Generator[bytes, None, int]:
        """Yield one entry; return the descriptor of a directory, to go on with what is in it, or -1."""
        try:
            found = os.stat(name, dir_fd=place, follow_symlinks=False)
            kind = _KINDS.get(stat.S_IFMT(found.st_mode))
            if kind is Kind.FILE or kind is Kind.DIRECTORY:
                fd = os.open(name, _OPEN, dir_fd=place)
                found = os.fstat(fd)
                kind = _KINDS.get(stat.S_IFMT(found.st_mode))
            else:
                target = os.readlink(name, dir_fd=place) if kind is Kind.SYMLINK else b""
        except (FileNotFoundError, OSError) as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.ENXIO):
                return -1  # removed meanwhile, or replaced
            raise
        if kind is Kind.DIRECTORY:
            xattrs, opaque = _attributes(fd, full)
            yield header(self._member(full + b"/", kind, found, xattrs=xattrs))
            if opaque:
                yield header(_marker(full + b"/" + OPAQUE.encode()))
            return fd
        if kind is Kind.FILE:
            try:
                yield from self._file(fd, full, found)
            finally:
                os.close(fd)
        elif kind is Kind.CHARACTER and not found.st_rdev:
            yield header(_marker(full[: -len(name)] + WHITEOUT.encode() + name))
        elif kind is not None:  # a tar archive has no sockets
            yield header(self._member(full, kind, found, target=target))
        return -1

    def _file(self, fd: int, full: bytes, found: os.stat_result) -> Iterator[bytes]:
        inode = (found.st_dev, found.st_ino)
        if first := self._seen.get(inode):
            yield header(self._member(full, Kind.LINK, found, target=first))
            return
        if found.st_nlink > 1:
            self._seen[inode] = full
        xattrs, _ = _attributes(fd, full)
        yield header(self._member(full, Kind.FILE, found, size=found.st_size, xattrs=xattrs))
        left = found.st_size
        while left:
            # What has grown meanwhile is cut, what has shrunk is filled up: the header has been written.
            data = os.read(fd, min(left, PIECE)) or bytes(min(left, PIECE))
            left -= len(data)
            yield data
        yield bytes(-found.st_size % BLOCK)

    def _member(
        self,
        name: bytes,
        kind: Kind,
        found: os.stat_result,
        *,
        size: int = 0,
        target: bytes = b"",
        xattrs: dict[str, bytes] | None = None,
    ) -> Member:
        clamp, offset = self._job.clamp, self._job.owner_offset
        time = found.st_mtime_ns
        device = found.st_rdev if kind in (Kind.CHARACTER, Kind.BLOCK) else 0
        return Member(
            name=name,
            kind=kind,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid - offset if found.st_uid >= offset else _NOBODY,
            gid=found.st_gid - offset if found.st_gid >= offset else _NOBODY,
            size=size,
            mtime=time if clamp is None else min(time, clamp * 10**9),
            target=target,
            device=(os.major(device), os.minor(device)),
            xattrs=xattrs or {},
        )


def _marker(name: bytes) -> Member:
    """What hides something: nobody's, and of no time, so that it is the same whenever it was removed."""
    return Member(name=name, kind=Kind.FILE, mode=0, uid=0, gid=0, size=0, mtime=0)


def _above(paths: Iterable[bytes]) -> set[bytes]:
    """The directories that lead to these."""
    found = set()
    for path in paths:
        while path := path.rpartition(b"/")[0]:
            found.add(path)
    return found


def _names(place: int) -> Iterator[bytes]:
    return iter(sorted(os.fsencode(name) for name in os.listdir(place)))


def _attributes(fd: int, path: bytes) -> tuple[dict[str, bytes], bool]:
    """Extended attributes that a layer keeps, and whether overlayfs takes the directory for an opaque one."""
    kept: dict[str, bytes] = {}
    opaque = False
    try:
        for name in sorted(os.listxattr(fd)):
            if name in _MOVED:
                raise Invalid(f"{shown(os.fsdecode(path))} refers to the layers below: mount without redirect_dir")
            if name == OPAQUE_XATTR:
                opaque = os.getxattr(fd, name) == b"y"
            elif name.startswith(KEPT_XATTRS):
                kept[name] = os.getxattr(fd, name)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA):
            raise
    return kept, opaque
