"""What is read of a tar is what Python's tarfile and GNU tar say of it, and what is broken is refused in words."""

import io
import itertools
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.unpacking.tar import BLOCK, Entry, Kind, Reader
from tests.runtime.images.tars import directory, entry, symlink, tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.LINK,
    tarfile.FIFOTYPE: Kind.FIFO,
    tarfile.CHRTYPE: Kind.CHARACTER,
    tarfile.BLKTYPE: Kind.BLOCK,
}


def pieces(data: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def read(data: bytes, size: int = 1 << 16) -> list[tuple[Entry, bytes]]:
    reader = Reader(pieces(data, size))
    return [(found, b"".join(reader.content())) for found in reader]


def one(data: bytes) -> tuple[Entry, bytes]:
    (found,) = read(data)
    return found


names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40).map(lambda t: f"n{t}e")
long_names = st.integers(1, 400).map(lambda n: "/".join(["part" * 5] * (n // 20) + ["x" * (n % 20 + 1)]))
raw_names = st.binary(min_size=1, max_size=90).map(lambda b: os.fsdecode(b"n" + b.replace(b"\0", b"0") + b"e"))


@st.composite
def infos(draw: st.DrawFn, format: str) -> tuple[tarfile.TarInfo, bytes]:
    kind = draw(st.sampled_from(sorted(KINDS)))
    name = (
        draw(names | long_names | raw_names)
        if format != "ustar"
        else draw(st.from_regex(r"[a-z]{1,60}", fullmatch=True))
    )
    content = draw(st.binary(max_size=1300)) if kind == tarfile.REGTYPE else b""
    big = format != "ustar"
    fields = {
        "type": kind,
        "mode": draw(st.integers(0, 0o7777)),
        "uid": draw(st.integers(0, 2**31 if big else 0o7777777)),
        "gid": draw(st.integers(0, 2**31 if big else 0o7777777)),
        "mtime": draw(st.integers(-(2**31) if big else 0, 2**33 - 1)),
    }
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        fields["linkname"] = draw(names | long_names) if big else "target"
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        fields["devmajor"], fields["devminor"] = draw(st.integers(0, 4000)), draw(st.integers(0, 2**20))
    if format == "pax":
        fields["pax_headers"] = {
            f"SCHILY.xattr.user.{k}": v
            for k, v in draw(st.dictionaries(names, names, max_size=2)).items()
            if "=" not in k
        }
    return entry(name, content, **fields)


@pytest.mark.parametrize("format", FORMATS)
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_it_reads_what_tarfile_wrote(format: str, data: st.DataObject) -> None:
    made = data.draw(st.lists(infos(format), max_size=5))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=FORMATS[format], errors="surrogateescape") as archive:
        for info, content in made:
            archive.addfile(info, io.BytesIO(content))
    found = read(file.getvalue(), data.draw(st.sampled_from([1, 100, 511, 512, 513, 4096, 1 << 16])))
    assert len(found) == len(made)
    for (got, held), (info, content) in zip(found, made, strict=True):
        assert held == content
        assert (got.name.rstrip("/"), got.kind) == (info.name.rstrip("/"), KINDS[info.type])
        assert (got.mode, got.uid, got.gid, got.size) == (info.mode, info.uid, info.gid, len(content))
        assert (got.mtime, got.target) == (info.mtime * 10**9, info.linkname)
        if got.kind in (Kind.CHARACTER, Kind.BLOCK):
            assert got.device == (info.devmajor, info.devminor)
        wanted = {k.removeprefix("SCHILY.xattr."): v.encode() for k, v in info.pax_headers.items()}
        assert got.xattrs == wanted


def test_times_have_fractions_and_owners_any_size() -> None:
    found, _ = one(tar(entry("f", mtime=1234.75, uid=3_000_000_000)))
    assert (found.mtime, found.uid) == (1_234_750_000_000, 3_000_000_000)
    found, _ = one(tar(entry("f", mtime=-1.5)))
    assert found.mtime == -1_500_000_000


def test_global_headers_hold_for_all_that_follow_unless_they_say_otherwise() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "77"}) as archive:
        archive.addfile(entry("a")[0])
        archive.addfile(entry("b", pax_headers={"uid": "78"})[0])
        archive.addfile(entry("c")[0])
    # tarfile itself writes a plain number where it fits, and the global one is the stronger.
    assert [found.uid for found, _ in read(file.getvalue())] == [77, 78, 77]


def test_attributes_of_bsdtar_are_read() -> None:
    headers = {"LIBARCHIVE.xattr.user.a%3Db": "aGVsbG8", "SCHILY.xattr.user.c": "d"}
    found, _ = one(tar(entry("f", pax_headers=headers)))
    assert found.xattrs == {"user.a=b": b"hello", "user.c": b"d"}


@pytest.mark.parametrize(
    "how",
    ["--format=oldgnu", "--format=gnu", *(f"--format=posix --sparse-version={v}" for v in ("0.0", "0.1", "1.0"))],
)
@pytest.mark.parametrize("parts", [0, 1, 3, 4, 5, 40, 200])
def test_sparse_files_as_gnu_tar_writes_them(tmp_path: Path, how: str, parts: int) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as out:
        for number in range(parts):
            out.seek(number * 65536 + 8192)
            out.write(b"%07d\n" % number * 16)
        out.truncate(parts * 65536 + 100_000)
    command = ["tar", *how.split(), "--sparse", "--hole-detection=seek", "-c", "sparse"]
    data = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    found, stored = one(data)
    assert (found.name, found.size) == ("sparse", parts * 65536 + 100_000)
    whole = bytearray(found.size)
    at = 0
    for offset, size in found.segments or ():
        whole[offset : offset + size] = stored[at : at + size]
        at += size
    assert at == len(stored) < found.size
    assert bytes(whole) == file.read_bytes()


def test_what_follows_the_end_is_read_to_the_end() -> None:
    taken = []

    def source() -> Iterator[bytes]:
        for piece in pieces(tar(entry("f", b"x")) + bytes(100_000), 1000):
            taken.append(len(piece))
            yield piece

    list(Reader(source()))
    assert sum(taken) == len(tar(entry("f", b"x"))) + 100_000


def test_every_cut_is_noticed_except_between_entries() -> None:
    data = tar(entry("f", b"x" * 700), entry("long" * 40, b"y"), directory("d"))
    whole = [found for found, _ in read(data)]
    for cut in range(1, len(data.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK):
        try:
            found = [found for found, _ in read(data[:cut])]
        except Invalid:
            continue
        # GNU tar, Docker and others all take an archive without its end for complete.
        assert cut % BLOCK == 0
        assert found == whole[: len(found)]


def broken(data: bytes, at: int, new: bytes) -> bytes:
    """The first header changed, and its checksum corrected."""
    block = bytearray(data[:BLOCK])
    block[at : at + len(new)] = new
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[BLOCK:]


@pytest.mark.parametrize(
    ("at", "new", "says"),
    [
        (124, b"-0000000001\0", "the size"),
        (124, b"\xff" * 12, "negative size"),
        (124, b"0000009\0", "the size"),
        (124, b"0o7\0", "the size"),
        (124, b"\x80" + b"\x7f" * 11, "cut off"),
        (108, b"root\0", "the owner"),
        (156, b"Z", "unknown type"),
        (156, b"x", "PAX header"),
        (156, b"L", "does not follow"),
    ],
)
def test_impossible_headers_are_refused(at: int, new: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        read(broken(tar(entry("f", b"content")), at, new))


def test_a_wrong_checksum_is_refused_and_a_signed_one_is_read() -> None:
    data = bytearray(tar(entry("caf\udce9")))
    with pytest.raises(Invalid, match="checksum"):
        read(bytes(data[:1] + b"x" + data[2:]))
    head = bytearray(tarfile.TarInfo("caf\udce9").tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in head)
    assert one(bytes(head) + bytes(2 * BLOCK))[0].name == "caf\udce9"
    with pytest.raises(Invalid, match="not a tar archive"):
        read(b"this is no archive" * 100)


@pytest.mark.parametrize(
    "record",
    [
        b"8 path=a\n",
        b"30 path=a\n",
        b"10 pathxa\n",
        b"x path=aa\n",
        b"10 path=a\n\n",
        b"-1 path=a\n",
        b"11 path=a\0b\n",
    ],
)
def test_broken_pax_records_are_refused(record: bytes) -> None:
    with pytest.raises(Invalid):
        read(pax(record) + tar(entry("f")))


def pax(data: bytes, flag: bytes = b"x") -> bytes:
    head = tarfile.TarInfo("h")
    head.type, head.size = flag, len(data)
    return head.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)


def record(key: str, value: str) -> bytes:
    length = len(f" {key}={value}\n")
    total = next(n for n in itertools.count(length) if n == length + len(str(n)))
    return f"{total} {key}={value}\n".encode()


def test_a_hundred_thousand_headers_before_an_entry_are_read() -> None:
    data = pax(record("path", "a")) * 100_000 + tar(entry("f"))
    assert one(data)[0].name == "a"


def test_headers_without_bounds_are_refused() -> None:
    with pytest.raises(Invalid, match="at most"):
        read(broken(pax(record("path", "a")), 124, b"%011o\0" % (1 << 30)))
    globals_ = b"".join(record(f"SCHILY.xattr.user.{n}", "x" * 100) for n in range(1000))
    with pytest.raises(Invalid, match="global headers"):
        read(pax(globals_, b"g") + tar(entry("f")))


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.map": "0,1", "GNU.sparse.size": "0"},
        {"GNU.sparse.map": "0,1,0,1", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "5,-1", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,2,3", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,2"},
        {"GNU.sparse.map": "0,3", "GNU.sparse.size": "10"},
        {"GNU.sparse.offset": "0", "GNU.sparse.size": "10"},
        {"GNU.sparse.major": "2", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"},
        {"GNU.sparse.map": "0," + "9" * 30, "GNU.sparse.size": "10"},
    ],
)
def test_broken_maps_of_holes_are_refused(records: dict[str, str]) -> None:
    head = b"".join(record(key, value) for key, value in records.items())
    with pytest.raises(Invalid, match="map of its holes"):
        read(pax(head) + tar(entry("f", b"ab")))


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_whatever_the_bytes_are_it_reads_or_refuses_them(data: st.DataObject) -> None:
    whole = bytearray(
        tar(
            entry("f", b"x" * 600, pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
            symlink("long" * 40, "target"),
            entry("s", b"ab", pax_headers={"GNU.sparse.map": "0,1,5,1", "GNU.sparse.size": "9"}),
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        new = data.draw(
            st.binary(min_size=1, max_size=12) | st.sampled_from([b"\xff" * 12, b"7" * 12, b"-1 ", b"\0" * 12])
        )
        whole[at : at + len(new)] = new
        block = at // BLOCK * BLOCK
        if data.draw(st.booleans()):
            whole[block + 148 : block + 156] = b" " * 8
            whole[block + 148 : block + 156] = b"%06o\0 " % sum(whole[block : block + BLOCK])
    try:
        found = read(bytes(whole))
    except Invalid as error:
        assert str(error).isprintable()
    else:
        assert all(len(held) <= len(whole) for _, held in found)
