"""Maps of sparse files in tar archives; the GNU tar manual, "Storing Sparse Files".  ValueError for a broken one."""

from collections.abc import Callable

from swarmd.runtime.images.unpacking.pax import Pax

Segments = tuple[tuple[int, int], ...]

_MOST = 1 << 20  # segments of a file


def checked(segments: list[tuple[int, int]], size: int, stored: int) -> Segments:
    """The segments that hold something; they are in order, within the file, and together what is stored of it."""
    end = 0
    for offset, length in segments:
        if offset < end or length < 0:
            raise ValueError("parts overlap")
        end = offset + length
    if end > size:
        raise ValueError("parts lie behind the file's end")
    if (total := sum(length for _, length in segments)) != stored:
        raise ValueError(f"it tells of {total} bytes, and {stored} are stored")
    return tuple(segment for segment in segments if segment[1])


def old_gnu(
    header: bytes, next_block: Callable[[], bytes], number: Callable[[bytes, str], int]
) -> tuple[int, list[tuple[int, int]]]:
    """Four segments in the header, and 21 in each block that follows it if it says so."""
    segments: list[tuple[int, int]] = []
    block, start, count, more = header, 386, 4, header[482]
    while True:
        pairs = [block[at : at + 24] for at in range(start, start + 24 * count, 24) if block[at]]
        segments += [(number(pair[:12], "a hole"), number(pair[12:], "a hole")) for pair in pairs]
        if not more:
            return number(header[483:495], "the size"), segments
        if len(segments) > _MOST:
            raise ValueError(f"it has more than {_MOST} parts")
        block, start, count = next_block(), 0, 21
        more = block[504]


def pax_segments(pax: Pax) -> tuple[int, list[tuple[int, int]]]:
    """Versions 0.0, a pair of records for each segment, and 0.1, one record for all."""
    flat = pax.found.get(b"GNU.sparse.map")
    if flat is not None:
        numbers = [_decimal(text) for text in flat.split(b",")] if flat else []
    else:
        wanted = [b"GNU.sparse.offset", b"GNU.sparse.numbytes"]
        records = [record for record in pax.sparse if record[0] in wanted]
        if any(record[0] != wanted[i % 2] for i, record in enumerate(records)):
            raise ValueError("offsets and sizes don't take turns")
        numbers = [_decimal(value) for _, value in records]
    if len(numbers) % 2:
        raise ValueError("an offset has no size")
    size = pax.found.get(b"GNU.sparse.size") or pax.found.get(b"GNU.sparse.realsize")
    if size is None:
        raise ValueError("the file's size is missing")
    return _decimal(size), list(zip(numbers[::2], numbers[1::2], strict=True))


def pax_map(pax: Pax, next_block: Callable[[], bytes]) -> tuple[int, list[tuple[int, int]]]:
    """Version 1.0: lines of decimal numbers before the content, filled up to a block."""
    version = pax.found.get(b"GNU.sparse.major"), pax.found.get(b"GNU.sparse.minor")
    if version != (b"1", b"0"):
        raise ValueError("its version is unknown")
    lines: list[bytes] = []
    rest = b""
    wanted = 1
    while len(lines) < wanted:
        *complete, rest = (rest + next_block()).split(b"\n")
        lines += complete
        if lines and wanted == 1:
            wanted += 2 * _decimal(lines[0])
            if wanted > 2 * _MOST + 1:
                raise ValueError(f"it has more than {_MOST} parts")
        if len(rest) > 20 and len(lines) < wanted:
            raise ValueError("a number is too long")
    numbers = [_decimal(line) for line in lines[1:wanted]]
    size = pax.found.get(b"GNU.sparse.realsize")
    if size is None:
        raise ValueError("the file's size is missing")
    return _decimal(size), list(zip(numbers[::2], numbers[1::2], strict=True))


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise ValueError(f"{text[:24]!r} is no number")
    return int(text)
