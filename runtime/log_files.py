"""The files of a container's json-file log, oldest to newest, and a place in them.

A reader holds the file it reads open: after a rotation it reads that file to its end, then goes on with the next newer.
"""

import contextlib
import gzip
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

_BATCH = 1 << 18
_BACKWARDS = 1 << 16
_GZIP_HEADER = 64

# Where in some whole lines those begin that are looked for.
Starts = Callable[[bytes], list[int]]


@dataclass(frozen=True, slots=True)
class Place:
    """Byte `offset` of a file, which is named as it was when it was opened."""

    file: str
    offset: int


class Cursor:
    """A place in the sequence of files path.N (oldest), ..., path.1, path, of which rotated ones may end in .gz."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: _File | None = None
        self._rest = b""
        self._drained = False
        self.place = Place(str(path), 0)  # of the lines that were read last

    def close(self) -> None:
        if self._file:
            self._file.close()

    def to_last(self, count: int, starts: Starts) -> None:
        """Go to the first of the last `count` lines that are looked for, or to the oldest line."""
        files = self._newer()
        for number, file in enumerate(files, 1):
            offset, found = file.last(count, starts)
            count -= found
            if not count or number == len(files):
                file.data.seek(offset)
                self._file = file
                break
        for file in files:
            if file is not self._file:
                file.close()

    def lines(self) -> bytes:
        """Return whole lines that can be read now, at most a batch of them."""
        if self._file is None and not self._step():
            return b""
        assert self._file is not None
        data = self._file.data.read(_BATCH)
        self._drained = not data
        end = data.rfind(b"\n") + 1
        if not end:
            self._rest += data
            return b""
        found, self._rest = self._rest + data[:end], data[end:]
        self.place = Place(self._file.name, self._file.data.tell() - len(self._rest) - len(found))
        return found

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
        self.name = str(raw.name)

    def stat(self) -> os.stat_result:
        return os.fstat(self._raw.fileno())

    def same(self, other: "_File") -> bool:
        """An open file's inode number is nobody else's; one that was compressed may have given up its own."""
        plain = not (self.compressed or other.compressed)
        return self._inode == other._inode and (plain or self.stat().st_mtime_ns == other.stat().st_mtime_ns)

    def close(self) -> None:
        self.data.close()
        self._raw.close()

    def last(self, count: int, starts: Starts) -> tuple[int, int]:
        """Return where the last `count` lines begin, of those looked for, and how many of them there are here."""
        if self.compressed:  # can't be read backwards
            kept: deque[int] = deque(maxlen=count)
            for offset, lines in self._forwards():
                kept.extend(offset + start for start in starts(lines))
            return (kept[0] if kept else 0), len(kept)
        found = 0
        for offset, lines in self._backwards():
            here = starts(lines)
            if found + len(here) >= count:
                return offset + [*here, len(lines)][len(here) - (count - found)], count
            found += len(here)
        return 0, found

    def _forwards(self) -> Iterator[tuple[int, bytes]]:
        """All whole lines, some at a time, with the offset of the first."""
        offset, rest = 0, b""
        while data := self.data.read(_BATCH):
            lines, newline, rest = (rest + data).rpartition(b"\n")
            yield offset, lines + newline
            offset += len(lines + newline)

    def _backwards(self) -> Iterator[tuple[int, bytes]]:
        """All whole lines, some at a time from the end on, with the offset of the first."""
        end, rest, whole = self.stat().st_size, b"", False
        while end:
            begin = max(0, end - _BACKWARDS)
            data = os.pread(self._raw.fileno(), end - begin, begin) + rest
            end = begin
            if not whole:  # what is after the last newline is being written
                data = data[: data.rfind(b"\n") + 1]
                whole = bool(data)
            cut = data.find(b"\n", 0, -1) + 1 if begin else 0
            if begin and not cut:
                rest = data
                continue
            rest = data[:cut]
            if data[cut:]:
                yield begin + cut, data[cut:]


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
