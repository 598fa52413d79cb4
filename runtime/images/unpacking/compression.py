"""Compressed streams of layers: gzip, zstd, bzip2 and xz, told apart by their first bytes; anything else is plain.

Streams may be of several members, one after the other.  What comes out comes in bounded pieces, however much a few
bytes expand to: whoever takes the pieces decides when it is too much.
"""

import bz2
import lzma
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import zstandard
from isal import igzip_lib

from swarmd.runtime.errors import Invalid

PIECE = 1 << 18  # bytes
_WINDOW = 1 << 27  # bytes of memory that an archive can ask for: zstd's own limit, and twice that of `xz -9`
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))
_GZIP_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub has an instance
_LONGEST = max(len(magic) for magic, _ in _MAGIC)

Read = Callable[[int], bytes]


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


_NEW: dict[str, Callable[[], _Decompressor]] = {
    "gzip": lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW),
}


def compression_of(start: bytes) -> str:
    """The name of a compression by the first bytes of a stream; "" for none."""
    return next((name for magic, name in _MAGIC if start.startswith(magic)), "")


def decompressed(read: Read) -> tuple[str, Iterator[bytes]]:
    """Return the compression's name, and what the stream holds piece by piece.

    read: gives up to so many bytes, none only at the end.  Raises Invalid, also while it is iterated over.
    """
    start = b""
    while len(start) < _LONGEST and (more := read(PIECE)):
        start += more
    name = compression_of(start)
    if name == "zstd":
        return name, _explained(name, _zstd(start, read))
    if name:
        return name, _explained(name, _members(start, read, _NEW[name]))
    return name, _plain(start, read)


def _plain(start: bytes, read: Read) -> Iterator[bytes]:
    while start:
        yield start
        start = read(PIECE)


def _explained(name: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except EOFError:
        raise Invalid(f"the {name} stream is cut off") from None
    except (_GZIP_ERROR, lzma.LZMAError, zstandard.ZstdError, ValueError) as error:
        raise Invalid(f"the {name} stream is damaged: {error}") from None
    except OSError as error:
        if error.errno is None:  # bzip2's way to say so
            raise Invalid(f"the {name} stream is damaged: {error}") from None
        raise


def _members(data: bytes, read: Read, new: Callable[[], _Decompressor]) -> Iterator[bytes]:
    while data:
        member = new()
        while not member.eof:
            if member.needs_input and not data and not (data := read(PIECE)):
                raise EOFError
            out = member.decompress(data, PIECE)
            data = b""
            if out:
                yield out
        # Zeroes between members and behind the last one fill up blocks: of tapes, or as the xz format has it.
        data = member.unused_data.lstrip(b"\0")
        while not data and (more := read(PIECE)):
            data = more.lstrip(b"\0")


class _Watched:
    """What the decompressor reads, followed frame by frame: it can't tell a stream's end from one that is cut off."""

    def __init__(self, start: bytes, read: Read) -> None:
        self._start, self._read = start, read
        self._walk = _frames()
        self._wanted = next(self._walk)
        self._head = b""  # of what is wanted
        self.between = False  # frames

    def read(self, size: int) -> bytes:
        data, self._start = self._start[:size], self._start[size:]
        if not data:
            data = self._read(size)
        self._follow(data)
        return data

    def _follow(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._wanted < 0:  # to be skipped
                step = min(-self._wanted, len(data) - at)
                self._wanted += step
                if not self._wanted:
                    self._wanted = next(self._walk)
            else:
                step = min(self._wanted - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == self._wanted:
                    head, self._head = self._head, b""
                    self._wanted = self._walk.send(head)
            at += step
        self.between = self._wanted == 4 and not self._head


def _frames() -> Generator[int, bytes, None]:
    """Walk over zstd frames (RFC 8878, 3.1): yield how many bytes to be given or, negative, to be passed over.

    4 bytes are asked for only where a frame may begin, or the stream end.
    """
    while True:
        magic = int.from_bytes((yield 4), "little")
        if magic & 0xFFFFFFF0 == 0x184D2A50:
            low = yield 2
            high = yield 2
            if size := int.from_bytes(low + high, "little"):
                yield -size
            continue
        descriptor = (yield 1)[0]
        single = descriptor >> 5 & 1
        header = (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
        if header:
            yield -header
        last = 0
        while not last:
            block = int.from_bytes((yield 3), "little")
            last, kind, size = block & 1, block >> 1 & 3, block >> 3
            if size := 1 if kind == 1 else size:
                yield -size
        if descriptor & 4:
            yield -4  # the checksum


def _zstd(start: bytes, read: Read) -> Iterator[bytes]:
    source = _Watched(start, read)
    reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
        source,  # type: ignore[arg-type]  # it calls nothing but read
        read_size=PIECE,
        read_across_frames=True,
    )
    while out := reader.read(PIECE):
        yield out
    if not source.between:
        raise EOFError
