"""Reads a container's json-file log across its rotated files, and follows it while the container runs.

A reader holds the file it reads open: after a rotation it reads that file to its end, then goes on with the next newer.
"""

import asyncio
import calendar
import contextlib
import gzip
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from swarmd.runtime.model import LogEntry

_POLL = 0.1
_BATCH = 1 << 20
_GZIP_HEADER = 64


class _Line(msgspec.Struct):
    log: str
    stream: str
    time: str


@dataclass(frozen=True, slots=True)
class Selection:
    """since and until in ns since the epoch, 0 for no bound; tail None for all."""

    since: int = 0
    until: int = 0
    tail: int | None = None
    stdout: bool = True
    stderr: bool = True

    def wants(self, entry: LogEntry) -> bool:
        return entry.at >= self.since and (self.stdout if entry.stream == "stdout" else self.stderr)

    def ended_by(self, entry: LogEntry) -> bool:
        return bool(self.until) and entry.at > self.until


async def read(path: Path, selection: Selection, follow: bool, running: Callable[[], bool]) -> AsyncIterator[LogEntry]:
    """Yield the entries; with follow until the container has ended and all it wrote has been read."""
    skip = _to_skip(path, selection)
    cursor = _Cursor(path)
    try:
        while True:
            alive = running()  # asked before reading: what is written until it ended is then read
            for entry in cursor.entries():
                if selection.ended_by(entry):
                    return
                if not selection.wants(entry):
                    continue
                if skip:
                    skip -= 1
                else:
                    yield entry
            if cursor.at_end():
                if not (follow and alive):
                    return
                await asyncio.sleep(_POLL)
    finally:
        cursor.close()


def _to_skip(path: Path, selection: Selection) -> int:
    if selection.tail is None:
        return 0
    cursor = _Cursor(path)
    wanted = 0
    while True:
        wanted += sum(1 for e in cursor.entries() if selection.wants(e) and not selection.ended_by(e))
        if cursor.at_end():
            cursor.close()
            return max(0, wanted - selection.tail)


class _Cursor:
    """A place in the sequence of files path.N (oldest), ..., path.1, path, of which rotated ones may end in .gz."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: _File | None = None
        self._rest = b""
        self._drained = False

    def close(self) -> None:
        if self._file:
            self._file.close()

    def entries(self) -> Iterator[LogEntry]:
        """Yield what can be read now, at most a batch."""
        if self._file is None and not self._step():
            return
        assert self._file is not None
        data = self._file.data.read(_BATCH)
        self._drained = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield decode(line)

    def at_end(self) -> bool:
        """Whether all is read for now; steps on to the next newer file when this one is done with."""
        return self._file is None or (self._drained and not self._step())

    def _step(self) -> bool:
        """Go on with the next newer file, or what this one has got since; False when there is neither."""
        newer = self._newer()
        # Looked at last: what was written before a rotation comes first.
        more = self._has_more()
        chosen = newer.pop() if newer and not more else None
        for file in newer:
            file.close()
        if chosen:
            self.close()
            self._file, self._rest, self._drained = chosen, b"", False
        return more or chosen is not None

    def _newer(self) -> list["_File"]:
        """The files newer than this one, the newest first.

        In that order, a rotation meanwhile shows a file twice, and hides none but the one it began.
        """
        found: list[_File] = []
        for number in range(self._last_number() + 2):
            file = _open(self._path.with_name(f"{self._path.name}.{number}") if number else self._path)
            if file is None:
                continue
            if self._file and file.same(self._file):
                file.close()
                break
            if any(file.same(other) for other in found):
                file.close()
            else:
                found.append(file)
        return found

    def _has_more(self) -> bool:
        if self._file is None or self._file.compressed:
            return False
        size, at = self._file.stat().st_size, self._file.data.tell()
        if size < at:  # a single file that has started over
            self._file.data.seek(0)
            self._rest, at = b"", 0
        return size > at

    def _last_number(self) -> int:
        names = (path.name.removesuffix(".gz") for path in self._path.parent.glob(f"{self._path.name}.*"))
        numbers = (name.removeprefix(f"{self._path.name}.") for name in names)
        return max((int(number) for number in numbers if number.isdigit()), default=0)


class _File:
    """One that is open. inode: its own, or that of the file it was compressed from."""

    def __init__(self, raw: BinaryIO, inode: int, compressed: bool) -> None:
        self._raw, self._inode, self.compressed = raw, inode, compressed
        self.data = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if compressed else raw

    def stat(self) -> os.stat_result:
        return os.fstat(self._raw.fileno())

    def same(self, other: "_File") -> bool:
        """An open file's inode number is nobody else's; one that was compressed may have given up its own."""
        plain = not (self.compressed or other.compressed)
        return self._inode == other._inode and (plain or self.stat().st_mtime_ns == other.stat().st_mtime_ns)

    def close(self) -> None:
        self.data.close()
        self._raw.close()


def _open(path: Path) -> _File | None:
    """Open a file, or what it has been compressed to."""
    with contextlib.suppress(FileNotFoundError):
        raw = path.open("rb")
        return _File(raw, os.fstat(raw.fileno()).st_ino, compressed=False)
    with contextlib.suppress(FileNotFoundError):
        raw = path.with_name(f"{path.name}.gz").open("rb")
        # RFC 1952: ten bytes, then the name, which ends in a zero.
        name = raw.read(_GZIP_HEADER)[10:].split(b"\0")[0]
        raw.seek(0)
        return _File(raw, int(name), compressed=True)
    return None


def decode(line: bytes) -> LogEntry:
    """Read one line of the file; lone surrogates stand for the bytes that were not UTF-8."""
    try:
        parsed = msgspec.json.decode(line, type=_Line)
        text, stream, at = parsed.log, parsed.stream, parsed.time
    except msgspec.DecodeError:  # msgspec refuses lone surrogates, which json reads
        value = json.loads(line)
        text, stream, at = value["log"], value["stream"], value["time"]
    return LogEntry(at=_nanoseconds(at), stream=stream, data=text.encode("utf-8", "surrogateescape"))


def _nanoseconds(text: str) -> int:
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(seconds, "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(fraction.ljust(9, "0"))
