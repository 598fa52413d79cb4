"""Writes a container's output as Docker's json-file log: one {"log", "stream", "time"} object per line.

A line longer than `_LONGEST` is written in parts, of which only the last ends in a newline.  Bytes that are not UTF-8
are kept as lone surrogates, so a reader gets back exactly what was written.  A slow disk slows the program down; lines
are lost only while the disk refuses them, and then a line says how many.

A rotated file is compressed by a process of its own, one at a time: path.1 becomes path.1.gz.  The name in its header
is the inode number of the file it was made from, and it keeps that one's time: so a reader knows what it has read.
"""

import contextlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from types import MappingProxyType
from typing import Protocol

from swarmd.runtime.stages import files, syscalls

_LONGEST = 16384


class Sink(Protocol):
    """Takes whole lines, or one part of a line; at: ns since the epoch."""

    def append(self, stream: str, lines: bytes, at: int) -> None: ...
    def close(self) -> None: ...


class Lines(ABC):
    """Cuts what a program writes into whole lines."""

    def __init__(self) -> None:
        self._rest: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    def write(self, stream: str, data: bytes) -> None:
        """Take the whole lines of data; what follows the last newline waits for more."""
        data = self._rest[stream] + data
        now, start = time.time_ns(), 0
        while end := _end(data, start):
            self.append(stream, data[start:end], now)
            start = end
        self._rest[stream] = data[start:]

    def flush(self, stream: str) -> None:
        """Take what is left of a stream that has ended without a newline."""
        rest, self._rest[stream] = self._rest[stream], b""
        if rest:
            self.append(stream, rest, time.time_ns())

    @abstractmethod
    def append(self, stream: str, lines: bytes, at: int) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class Log(Lines):
    """`max_size` in bytes, 0 for none, bounds each of `max_file` files: path, path.1 (older), path.2, ...

    attributes: what each entry is to say besides.
    """

    def __init__(
        self,
        path: str,
        max_size: int,
        max_file: int,
        compress: bool = False,
        attributes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self._path, self._max_size, self._max_file, self._compress = path, max_size, max_file, compress
        self._attributes = f',"attrs":{json.dumps(dict(attributes), separators=(",", ":"))}' if attributes else ""
        self._compressor = 0  # its pid
        self._lost = 0
        self._open()

    def append(self, stream: str, lines: bytes, at: int) -> None:
        now = timestamp(at)
        try:
            if self._lost:
                said = f"swarmd: {self._lost} lines lost: the disk refused them\n"
                self._put(_entries(said.encode(), self._ending("stderr", now)))
                self._lost = 0
            self._put(_entries(lines, self._ending(stream, now)))
        except OSError:
            self._lost += lines.count(b"\n") or 1

    def close(self) -> None:
        with contextlib.suppress(OSError):  # there is nobody left to tell
            os.fsync(self._fd)
        os.close(self._fd)
        self._await_compressor()

    def _ending(self, stream: str, now: str) -> str:
        """What follows the line itself."""
        return f'","stream":"{stream}"{self._attributes},"time":"{now}"}}\n'

    def _put(self, entries: bytes) -> None:
        """Write entries, as many at once as a file has room for: none grows past its size by more than one."""
        while entries:
            if self._max_size and self._size >= self._max_size:
                self._rotate()
            room = self._max_size - self._size
            whole = not self._max_size or len(entries) <= room
            fitting = len(entries) if whole else entries.index(b"\n", room - 1) + 1
            self._write(entries[:fitting])
            entries = entries[fitting:]

    def _write(self, data: bytes) -> None:
        try:
            files.write_all(self._fd, data)
        except OSError:
            os.ftruncate(self._fd, self._size)  # no half line
            raise
        self._size += len(data)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":  # a crash has cut the last line off
            self._write(b"\n")

    def _rotate(self) -> None:
        if self._max_file == 1:
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        self._await_compressor()
        names = [self._path, *(f"{self._path}.{n}" for n in range(1, self._max_file))]
        for kind in ("", ".gz"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(names[-1] + kind)
        for newer, older in zip(reversed(names[:-1]), reversed(names[1:]), strict=True):
            for kind in ("", ".gz"):
                if os.path.exists(newer + kind):
                    os.rename(newer + kind, older + kind)
        os.close(self._fd)
        self._open()
        if self._compress:
            self._start_compressor(names[1])

    def _start_compressor(self, path: str) -> None:
        try:
            self._compressor = os.fork()
        except OSError:
            return  # too many processes: it stays as it is
        if not self._compressor:
            try:
                syscalls.close_from(3)  # clients that are attached must see their connection end with ours
                compress(path)
            finally:
                os._exit(0)

    def _await_compressor(self) -> None:
        if self._compressor:
            os.waitpid(self._compressor, 0)
            self._compressor = 0


def compress(path: str) -> None:
    """Replace a file by path.gz; a reader finds it at every moment."""
    import gzip  # only a process that needs it pays for it

    temporary = f"{path}.gz.new"
    with open(path, "rb") as source, open(temporary, "wb") as target:
        stat = os.fstat(source.fileno())
        with gzip.GzipFile(str(stat.st_ino), "wb", 1, target, 0) as packed:
            while data := source.read(1 << 18):
                packed.write(data)
        target.flush()
        os.fchmod(target.fileno(), 0o640)
        os.utime(target.fileno(), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.rename(temporary, f"{path}.gz")
    os.unlink(path)


class NoLog(Lines):
    """Keeps nothing."""

    def write(self, stream: str, data: bytes) -> None: ...

    def append(self, stream: str, lines: bytes, at: int) -> None: ...

    def close(self) -> None: ...


def timestamp(at: int) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    seconds, nanoseconds = divmod(at, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def _end(data: bytes, start: int) -> int:
    """The end of the whole lines, or else of the longest part, that begin at start; 0 when more has to come first."""
    end = data.rfind(b"\n", start, start + _LONGEST) + 1
    return end or (start + _LONGEST if len(data) - start > _LONGEST else 0)


def _entries(lines: bytes, ending: str) -> bytes:
    *whole, part = lines.decode("utf-8", "surrogateescape").split("\n")
    begin = '{"log":"'  # this and the ending have the quotes
    text = "".join([f"{begin}{encode_basestring_ascii(line)[1:-1]}\\n{ending}" for line in whole])
    return (f"{text}{begin}{encode_basestring_ascii(part)[1:-1]}{ending}" if part else text).encode()
