"""Reads tar archives as a stream: ustar, old and new GNU, and PAX, sparse files in all four ways to write them.

Formats: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Interchange Format"; the GNU tar manual, "Basic Tar
Format" and "Storing Sparse Files".  Every header's checksum is verified; what is torn, contradicts itself or asks for
more memory than a name needs is Invalid.  Nothing here touches a file system: see writer.py.
"""

import struct
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from zlib import adler32

from msgspec import field

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.unpacking.pax import Pax
from swarmd.runtime.images.unpacking.sparse import Segments, checked, old_gnu, pax_map, pax_segments
from swarmd.runtime.model import Struct

BLOCK = 512
_LONGEST_EXTRA = 1 << 20  # bytes of a long name or of one PAX header
_LONGEST_GLOBAL = 1 << 16  # bytes of all global headers: they are gone through for each entry
_ZEROES = bytes(BLOCK)
_FIELDS = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_ADLER = 65521


class Kind(Enum):
    FILE = "file"
    LINK = "hard link"
    SYMLINK = "symlink"
    CHARACTER = "character device"
    BLOCK = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


_KINDS = {
    b"\0": Kind.FILE,
    b"0": Kind.FILE,
    b"7": Kind.FILE,  # contiguous, on systems that had it
    b"S": Kind.FILE,  # sparse, as old GNU tar wrote it
    b"1": Kind.LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


class Entry(Struct, frozen=True):
    """name and target hold bytes that are no UTF-8 as surrogates; size is that of the file, mtime in ns.

    segments: where a sparse file's content lies in it, as (offset, size); None when there are no holes.
    """

    name: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    segments: Segments | None = None


def shown(name: str) -> str:
    """A name for a message: printable, quoted, and not as long as a megabyte."""
    quoted = ascii(name) if not name.isprintable() else repr(name)
    return quoted if len(quoted) <= 160 else f"{quoted[:100]}...{quoted[-40:]}"


class Reader:
    """Iterate over it for the entries; what an entry holds is taken before the next one is asked for, or skipped."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer, self._at, self._before = b"", 0, 0  # before: bytes of the archive that the buffer comes after
        self._left, self._padding = 0, 0  # bytes of the entry that have not been taken, and up to the next block
        self._global = Pax()

    def __iter__(self) -> Iterator[Entry]:
        while entry := self._next():
            yield entry
        self._buffer = b""
        for _ in self._pieces:
            pass  # so that whoever hashes them has all

    @property
    def offset(self) -> int:
        """Where in the archive that lies which is taken next: an entry's content, before any of it is."""
        return self._before + self._at

    def content(self, size: int | None = None) -> Iterator[memoryview]:
        """Take the next bytes of the entry as it is stored, all that are left by default."""
        size = self._left if size is None else size
        self._left -= size
        while size:
            if self._at == len(self._buffer):
                self._fill(1)
            end = min(self._at + size, len(self._buffer))
            view = memoryview(self._buffer)[self._at : end]
            size -= end - self._at
            self._at = end
            yield view

    def _next(self) -> Entry | None:
        self._skip(self._left + self._padding)
        self._left = self._padding = 0
        long_name = long_target = b""
        pax: Pax | None = None
        extra = False
        while True:
            if not self._more(BLOCK):
                if extra or self._at < len(self._buffer):
                    raise Invalid("the tar archive is cut off in the middle of a header")
                return None
            at = self._at
            fields = _FIELDS.unpack_from(self._buffer, at)
            kind = fields[7]
            if not fields[0][0] and self._is_end(at):
                if extra:
                    raise Invalid("the tar archive ends after the header of an entry that does not follow")
                return None
            _verify(self._buffer[at : at + BLOCK], fields[6])
            self._at = at + BLOCK
            if kind in b"xXgLK":
                extra = True
                data = self._extra(number(fields[4], "the size"))
                if kind == b"L":
                    long_name = _cut(data)
                elif kind == b"K":
                    long_target = _cut(data)
                elif kind == b"g":
                    self._global.update(data)
                    if self._global.size > _LONGEST_GLOBAL:
                        raise Invalid(f"the tar archive has global headers of more than {_LONGEST_GLOBAL} bytes")
                    extra = False
                else:
                    pax = Pax()
                    pax.update(data)
                continue
            return self._entry(fields, at, long_name, long_target, self._global.over(pax))

    def _entry(self, fields: tuple[bytes, ...], at: int, long_name: bytes, long_target: bytes, pax: Pax) -> Entry:
        flag, magic = fields[7], fields[9]
        name = _cut(fields[0])
        if magic == b"ustar\x0000" and fields[14][0]:
            prefix = fields[14][:131] if fields[15].endswith(b"tar\0") else fields[14]  # star has times behind it
            if prefix := _cut(prefix):
                name = prefix + b"/" + name
        found = pax.found
        decoded = _text(found.get(b"GNU.sparse.name") or long_name or found.get(b"path") or name, "name")
        kind = _KINDS.get(flag)
        if kind is None:
            raise Invalid(f"archive entry {shown(decoded)} is of the unknown type {flag!r}")
        if flag == b"\0" and decoded.endswith("/"):
            kind = Kind.DIRECTORY  # as archives older than ustar have it
        size, segments = 0, None
        if kind is Kind.FILE:
            size = _either(pax.number(b"size"), fields[4], "the size")
            if size < 0:
                raise Invalid(f"archive entry {shown(decoded)} has a negative size")
            self._left, self._padding = size, -size % BLOCK
            if flag == b"S" or pax.sparse:
                size, segments = self._sparse(decoded, flag, at, pax)
        device = (0, 0)
        if kind is Kind.CHARACTER or kind is Kind.BLOCK:
            device = number(fields[12], "the device"), number(fields[13], "the device")
        return Entry(
            name=decoded,
            kind=kind,
            mode=number(fields[1], "the mode") & 0o7777,
            uid=_either(pax.number(b"uid"), fields[2], "the owner"),
            gid=_either(pax.number(b"gid"), fields[3], "the owner"),
            size=size,
            mtime=pax.time() if b"mtime" in found else number(fields[5], "the time") * 10**9,
            target=_text(long_target or found.get(b"linkpath") or _cut(fields[8]), "target"),
            device=device,
            xattrs=pax.xattrs(),
            segments=segments,
        )

    def _sparse(self, name: str, flag: bytes, at: int, pax: Pax) -> tuple[int, Segments]:
        """The file's size and map; leaves what is stored of it to be taken."""
        try:
            if flag == b"S":
                # The entry's own header is still in the buffer: nothing has been read since.
                size, segments = old_gnu(self._buffer[at : at + BLOCK], lambda: self._take(BLOCK), number)
            elif pax.found.get(b"GNU.sparse.major"):
                size, segments = pax_map(pax, self._map_block)
            else:
                size, segments = pax_segments(pax)
            return size, checked(segments, size, self._left)
        except ValueError as error:
            raise Invalid(f"archive entry {shown(name)} has a broken map of its holes: {error}") from None

    def _map_block(self) -> bytes:
        if self._left < BLOCK:
            raise ValueError("it ends too early")
        self._left -= BLOCK
        return self._take(BLOCK)

    def _extra(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_EXTRA:
            raise Invalid(f"the tar archive has a header of {size} bytes: at most {_LONGEST_EXTRA} are read")
        data = self._take(size)
        self._skip(-size % BLOCK)
        return data

    def _is_end(self, at: int) -> bool:
        if self._buffer[at : at + BLOCK] != _ZEROES:
            return False
        self._at = at + BLOCK
        # An end of one block is common; one that anything follows is no end.
        if self._more(BLOCK) and self._buffer[self._at : self._at + BLOCK] != _ZEROES:
            raise Invalid("the tar archive goes on after its end: it is damaged, or several that were put together")
        return True

    def _more(self, size: int) -> bool:
        """Have so many bytes in the buffer, from where we are; False when the archive has less."""
        if len(self._buffer) - self._at >= size:
            return True
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        while have < size and (piece := next(self._pieces, b"")):
            parts.append(piece)
            have += len(piece)
        self._before += self._at
        self._buffer, self._at = b"".join(parts), 0
        return have >= size

    def _fill(self, size: int) -> None:
        if not self._more(size):
            raise Invalid("the tar archive is cut off in the middle of an entry")

    def _take(self, size: int) -> bytes:
        self._fill(size)
        self._at += size
        return self._buffer[self._at - size : self._at]

    def _skip(self, size: int) -> None:
        while size > len(self._buffer) - self._at:
            size -= len(self._buffer) - self._at
            self._before += len(self._buffer)
            self._buffer, self._at = b"", 0
            self._fill(1)
        self._at += size


@lru_cache(4096)  # modes, owners and many times are the same from entry to entry
def number(text: bytes, what: str) -> int:
    """A header's number: octal digits, or after a set bit the binary number that GNU tar and star write."""
    if text[0] & 0x80:
        bits = 8 * len(text) - 1
        value = int.from_bytes(text, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if value >> (bits - 1) else value
    digits = text.partition(b"\0")[0].strip()
    if not digits:
        return 0
    try:
        if digits.isdigit():
            return int(digits, 8)
    except ValueError:
        pass
    raise Invalid(f"the tar archive has {digits!r} as {what} of an entry, which is no octal number")


def _verify(header: bytes, stored: bytes) -> None:
    """Compare the sum of the header's bytes, its own field taken as spaces, with that field."""
    digits = stored.strip(b" \0")
    if digits.isdigit() and digits.translate(None, b"89") == digits:
        wanted = int(digits, 8)
        # adler32's lower half is one more than the sum of the bytes, modulo a prime: 20 times as fast as adding them.
        if ((adler32(header) & 0xFFFF) - 1 - sum(stored) + 256 - wanted) % _ADLER == 0 and wanted < 2 * _ADLER:
            return
        plain = header[:148] + b" " * 8 + header[156:]
        if sum(plain) - 256 * sum(byte > 127 for byte in plain) == wanted:  # as some old tars added them, with signs
            return
    raise Invalid("this is not a tar archive, or it is damaged: the checksum of a header is wrong")


def _either(given: int | None, plain: bytes, what: str) -> int:
    return number(plain, what) if given is None else given


def _cut(text: bytes) -> bytes:
    return text.partition(b"\0")[0]


def _text(data: bytes, what: str) -> str:
    if b"\0" in data:
        raise Invalid(f"the tar archive has a zero byte in an entry's {what}")
    return data.decode("utf-8", "surrogateescape")
