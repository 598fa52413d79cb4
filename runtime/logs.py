"""Reads a container's json-file log across its rotated files, and follows it while the container runs."""

import asyncio
import calendar
import contextlib
import functools
import itertools
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from swarmd.runtime.images.store import in_thread
from swarmd.runtime.inotify import Changes
from swarmd.runtime.log_files import Cursor, Place
from swarmd.runtime.model import LogEntry

_LOG = logging.getLogger(__name__)
_LOOK_AGAIN = 1.0  # s, for what the kernel does not tell of
_POLL = 0.1  # s, when it watches no more directories


class _Line(msgspec.Struct, gc=False):  # nothing in it could refer to it
    log: str
    stream: str
    time: str
    attrs: dict[str, str] | None = None


_DECODER = msgspec.json.Decoder(_Line)


@dataclass(frozen=True, slots=True)
class Selection:
    """since and until in ns since the epoch, 0 for no bound; tail None for all."""

    since: int = 0
    until: int = 0
    tail: int | None = None
    stdout: bool = True
    stderr: bool = True

    @property
    def all(self) -> bool:
        """Whether every line is wanted, the number of them aside."""
        return self.stdout and self.stderr and not self.since and not self.until

    def wants(self, entry: LogEntry) -> bool:
        return entry.at >= self.since and (self.stdout if entry.stream == "stdout" else self.stderr)

    def ended_by(self, entry: LogEntry) -> bool:
        return bool(self.until) and entry.at > self.until


async def one_by_one(batches: AsyncGenerator[Sequence[LogEntry], None]) -> AsyncGenerator[LogEntry, None]:
    async with contextlib.aclosing(batches):
        async for batch in batches:
            for entry in batch:
                yield entry


async def read(
    path: Path, selection: Selection, follow: bool, running: Callable[[], bool]
) -> AsyncGenerator[Sequence[LogEntry], None]:
    """Yield the entries that can be had at once; with follow until the container has ended and all of it is read."""
    with contextlib.ExitStack() as stack:
        changes = _changes(path.parent, stack) if follow else None
        cursor = Cursor(path)
        stack.callback(cursor.close)
        if selection.tail is not None:
            await in_thread(partial(cursor.to_last, selection.tail, partial(_starts, selection)))
        while True:
            alive = running()  # asked before reading: what is written until it ended is then read
            entries = decode(cursor.lines(), cursor.place)
            chosen = entries if selection.all else _chosen(entries, selection)
            if chosen:
                yield chosen
            if selection.until and any(map(selection.ended_by, entries)):
                return
            if cursor.at_end():
                if not (follow and alive):
                    return
                await _change(changes)
            else:
                await asyncio.sleep(0)  # others have their turn between two batches


def _changes(directory: Path, stack: contextlib.ExitStack) -> Changes | None:
    try:
        changes = Changes(directory)
    except FileNotFoundError:
        return None  # removed meanwhile: there is nothing to follow
    except OSError as error:
        _LOG.warning(
            "followers of %s look for new lines every %s s, as it can't be watched: %s", directory, _POLL, error
        )
        return None
    stack.callback(changes.close)
    return changes


async def _change(changes: Changes | None) -> None:
    if changes is None:
        await asyncio.sleep(_POLL)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_AGAIN):
            await changes.wait()


def _chosen(entries: list[LogEntry], selection: Selection) -> list[LogEntry]:
    before_end = itertools.takewhile(lambda entry: not selection.ended_by(entry), entries)
    return [entry for entry in before_end if selection.wants(entry)]


def _starts(selection: Selection, lines: bytes) -> list[int]:
    """Where the lines begin that are wanted."""
    found, start = [], 0
    for line in lines.split(b"\n")[:-1]:
        entry = None if selection.all else _entry(line)
        if selection.all or (entry and selection.wants(entry) and not selection.ended_by(entry)):
            found.append(start)
        start += len(line) + 1
    return found


def decode(data: bytes, place: Place) -> list[LogEntry]:
    """Read whole lines, which were found at place; one that a crash has cut off is left out.  Raises nothing."""
    found, last, at = [], "", 0
    try:
        for line in _DECODER.decode_lines(data):
            if line.time != last:  # lines that were written together have one time
                last, at = line.time, _nanoseconds(line.time)
            found.append(LogEntry(at, line.stream, line.log.encode("utf-8", "surrogateescape"), line.attrs))
    except (msgspec.DecodeError, ValueError):  # one is damaged, or has what msgspec refuses
        return _decode_each(data, place)
    return found


def _decode_each(data: bytes, place: Place) -> list[LogEntry]:
    found, start = [], 0
    for line in data.split(b"\n")[:-1]:
        if entry := _entry(line):
            found.append(entry)
        else:
            _warn(place.file, place.offset + start)
        start += len(line) + 1
    return found


def _entry(line: bytes) -> LogEntry | None:
    """Read one line; lone surrogates stand for the bytes that were not UTF-8, which json reads and msgspec refuses."""
    try:
        value = json.loads(line)
        text, stream, at = value["log"], value["stream"], value["time"]
        return LogEntry(_nanoseconds(at), stream, text.encode("utf-8", "surrogateescape"), value.get("attrs"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


@functools.lru_cache(maxsize=1024)  # once for each such line
def _warn(file: str, offset: int) -> None:
    _LOG.warning("log file %s has a damaged line at byte %d, which is left out", file, offset)


def _nanoseconds(text: str) -> int:
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return _seconds(seconds) * 10**9 + int(fraction.ljust(9, "0"))


@functools.lru_cache(maxsize=64)
def _seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
