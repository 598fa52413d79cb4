"""Compressed streams come out whole however they come in, and cut or damaged ones are refused."""

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.unpacking.compression import PIECE, Read, decompressed

TEXT = b"".join(b"line %d\n" % n for n in range(40_000))
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def fed(data: bytes, step: int = PIECE) -> Read:
    rest = memoryview(data)

    def read(size: int) -> bytes:
        nonlocal rest
        taken, rest = bytes(rest[: min(size, step)]), rest[min(size, step) :]
        return taken

    return read


def whole(data: bytes, step: int = PIECE) -> bytes:
    return b"".join(decompressed(fed(data, step))[1])


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("step", [1, 7, 1000, PIECE])
def test_a_stream_comes_out_however_it_comes_in(name: str, step: int) -> None:
    data = COMPRESS[name](TEXT)
    found, out = decompressed(fed(data, step))
    assert (found, b"".join(out)) == (name, TEXT)


@pytest.mark.parametrize("name", COMPRESS)
def test_streams_of_several_members_are_one(name: str) -> None:
    compress = COMPRESS[name]
    assert whole(compress(b"one") + compress(b"") + compress(TEXT)) == b"one" + TEXT
    assert whole(compress(b"one") + compress(b"two"), 1) == b"onetwo"


@pytest.mark.parametrize("data", [b"", b"x", TEXT, b"\x1f", bytes(10)])
def test_what_is_not_compressed_is_plain(data: bytes) -> None:
    assert whole(data, 3) == data
    assert decompressed(fed(data))[0] == ""


@pytest.mark.parametrize("name", COMPRESS)
def test_every_cut_is_noticed(name: str) -> None:
    data = COMPRESS[name](TEXT[:3000]) + COMPRESS[name](b"tail")
    border = len(COMPRESS[name](TEXT[:3000]))
    for cut in range(6, len(data)):
        if cut != border:
            with pytest.raises(Invalid, match="cut off"):
                whole(data[:cut])
    assert whole(data[:border]) == TEXT[:3000]


@pytest.mark.parametrize("name", COMPRESS)
def test_damage_and_what_does_not_belong_there_are_refused(name: str) -> None:
    data = COMPRESS[name](TEXT)
    middle = len(data) // 2
    with pytest.raises(Invalid, match=r"damaged|cut off"):
        whole(data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])
    with pytest.raises(Invalid, match=r"damaged|cut off"):
        whole(data + b"something else")


def test_padding_behind_gzip_and_zstd_frames_to_skip_are_passed_over() -> None:
    assert whole(gzip.compress(b"a") + bytes(1000) + gzip.compress(b"b") + bytes(99)) == b"ab"
    skipped = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    empty = b"\x5f\x2a\x4d\x18" + bytes(4)
    frame = zstandard.ZstdCompressor(write_content_size=False).compress
    data = frame(b"a") + skipped + empty + frame(b"b") + skipped
    assert whole(data) == whole(data, 1) == b"ab"
    with pytest.raises(Invalid, match="cut off"):
        whole(data[:-1])


@pytest.mark.parametrize("name", COMPRESS)
def test_a_bomb_comes_out_in_small_pieces(name: str) -> None:
    data = COMPRESS[name](bytes(50 << 20))
    total = 0
    for piece in decompressed(fed(data))[1]:
        assert len(piece) <= PIECE
        total += len(piece)
        if total > 20 << 20:
            break  # whoever takes them can stop


def test_more_memory_than_any_layer_needs_is_refused() -> None:
    frame = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=28))
    stream = frame.compressobj()
    with pytest.raises(Invalid, match="damaged"):
        whole(stream.compress(TEXT) + stream.flush())
