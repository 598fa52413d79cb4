"""Reads a container's json-file log across its rotated files, and follows it while the container runs.

A reader holds the file it reads open: after a rotation it reads that file to its end, then goes on with the next newer.
"""

import asyncio
import calendar
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from swarmd.runtime.model import LogEntry

_POLL = 0.1
_BATCH = 1 << 20


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
    """A place in the sequence of files path.N (oldest), ..., path.1, path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def close(self) -> None:
        if self._file:
            self._file.close()

    def entries(self) -> Iterator[LogEntry]:
        """Yield what can be read now, at most a batch."""
        if self._file is None and not self._open(self._files()):
            return
        assert self._file is not None
        *lines, self._rest = (self._rest + self._file.read(_BATCH)).split(b"\n")
        for line in lines:
            yield decode(line)

    def at_end(self) -> bool:
        """Whether all is read for now; steps on to the next newer file when this one is done with."""
        if self._file is None:
            return True
        if self._size() > self._file.tell():
            return False
        here = _identity(os.fstat(self._file.fileno()))
        files = self._files()
        known = [_identity(file.stat()) if file.exists() else None for file in files]
        newer = files[known.index(here) + 1 :] if here in known else files
        if self._size() > self._file.tell():
            return False  # written between the last read and the rotation
        return not newer or not self._open(newer)

    def _files(self) -> list[Path]:
        """The files there are, the oldest first."""
        rotated = [p for p in self._path.parent.glob(f"{self._path.name}.*") if p.suffix[1:].isdigit()]
        rotated.sort(key=lambda p: -int(p.suffix[1:]))
        return [*rotated, *([self._path] if self._path.exists() else [])]

    def _open(self, files: list[Path]) -> bool:
        for file in files:
            try:
                opened = file.open("rb")
            except FileNotFoundError:
                continue
            self.close()
            self._file, self._rest = opened, b""
            return True
        return False

    def _size(self) -> int:
        assert self._file is not None
        return os.fstat(self._file.fileno()).st_size


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


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
