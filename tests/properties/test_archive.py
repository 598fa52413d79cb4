"""What holds of unpacking, whatever an archive says: nothing outside changes, and what can't be is refused in words."""

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.runtime.stages.inside import Refused
from swarmd.runtime.stages.unpack import Target, unpack

OUTSIDE = "/../outside"
PARTS = st.sampled_from(["a", "b", "c", "..", ".", "", "outside", "secret"])
PATHS = st.lists(PARTS, max_size=4).map("/".join) | st.sampled_from(
    [
        "/etc",
        OUTSIDE[1:],
        f"a{OUTSIDE}",
        "../outside/secret",
        "ABSOLUTE",
        "ABSOLUTE/secret",
        "x\0y",
        "n" * 300,
        "\udcff",
    ]
)
TYPES = st.sampled_from(
    [
        tarfile.REGTYPE,
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.CONTTYPE,
        b"Z",
    ]
)
NUMBERS = st.sampled_from(["0", "1.5", "nan", "inf", "-1", "1e400", "9" * 30, "x"])
Entry = tuple[str, bytes, str, int, dict[str, str]]
HEADERS = st.dictionaries(st.sampled_from(["mtime", "uid"]), NUMBERS, max_size=1)
ENTRY: st.SearchStrategy[Entry] = st.tuples(PATHS, TYPES, PATHS, st.integers(0, 0o7777), HEADERS)


@st.composite
def through_a_link(draw: st.DrawFn) -> list[Entry]:
    """A link, then something by way of it: what archives that break out are made of."""
    link = draw(st.sampled_from(["../outside", "ABSOLUTE", "..", "b", "../outside/secret"]))
    name = draw(st.sampled_from(["a", "a/secret", "a/new", "a/outside/secret", "a/../outside/secret"]))
    kind = draw(TYPES)
    return [("a", tarfile.SYMTYPE, link, 0o777, {}), (name, kind, draw(st.sampled_from(["a", "a/secret"])), 0o777, {})]


ENTRIES = st.lists(ENTRY.map(lambda entry: [entry]) | through_a_link(), max_size=5).map(
    lambda found: [*chain.from_iterable(found)]
)


def archive(entries: list[Entry], outside: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link, mode, headers in entries:
            entry = tarfile.TarInfo(name.replace("ABSOLUTE", str(outside)))
            entry.type, entry.mode, entry.linkname = kind, mode, link.replace("ABSOLUTE", str(outside))
            entry.pax_headers = headers
            content = b"changed" if kind in (tarfile.REGTYPE, tarfile.CONTTYPE, b"Z") else b""
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@contextlib.contextmanager
def nothing_outside_changes(whole_root: bool) -> Iterator[tuple[Target, Path]]:
    """Gives a directory to unpack into, beside one to be left alone; as a container's root, or as a directory in it."""
    with TemporaryDirectory() as top:
        outside, inside = Path(top, "outside"), Path(top, "inside")
        outside.mkdir()
        inside.mkdir()
        (outside / "secret").write_text("secret")
        before = seen(Path(top), inside)
        descriptor = os.open(inside, os.O_PATH | os.O_DIRECTORY)
        root = os.open(inside if whole_root else top, os.O_PATH | os.O_DIRECTORY)
        try:
            yield Target(root, descriptor, "/" if whole_root else "/inside"), outside
        finally:
            os.close(descriptor)
            os.close(root)
        assert seen(Path(top), inside) == before
        for path in inside.rglob("*"):
            found = path.lstat()
            assert not stat.S_ISCHR(found.st_mode) and not stat.S_ISBLK(found.st_mode)
            assert not stat.S_ISREG(found.st_mode) or found.st_ino != (outside / "secret").stat().st_ino


def seen(top: Path, inside: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in (top, *top.rglob("*")):
        if path == inside or inside in path.parents:
            continue
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        times = (status.st_mtime_ns, status.st_ctime_ns)
        found[str(path)] = (status.st_mode, status.st_uid, status.st_nlink, times, content)
    return found


def unpacked(place: Target, data: bytes, keep_kinds: bool = False) -> None:
    """Only what the stage turns into a sentence may escape."""
    with contextlib.suppress(Refused, OSError):
        unpack(place, io.BytesIO(data), (os.getuid(), os.getgid()), keep_kinds)


@settings(max_examples=int(os.environ.get("SWARMD_FUZZ_EXAMPLES", "150")), deadline=None)
@given(ENTRIES, st.booleans(), st.booleans())
def test_entries(entries: list[Entry], whole_root: bool, keep_kinds: bool) -> None:
    with nothing_outside_changes(whole_root) as (place, outside):
        unpacked(place, archive(entries, outside), keep_kinds)
        if whole_root:  # else links that the first left may lead out of the directory, inside the root
            unpacked(place, archive(entries, outside), keep_kinds)


@settings(max_examples=int(os.environ.get("SWARMD_FUZZ_EXAMPLES", "150")), deadline=None)
@given(
    ENTRIES, st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=12)), max_size=4), st.integers(0)
)
def test_damaged_archives(entries: list[Entry], damage: list[tuple[int, bytes]], length: int) -> None:
    with nothing_outside_changes(False) as (place, outside):
        data = bytearray(archive(entries, outside))
        for start, piece in damage:
            data[start : start + len(piece)] = piece
        unpacked(place, bytes(data[: length % (len(data) + 1)]))


@given(st.binary(max_size=2000))
@settings(max_examples=int(os.environ.get("SWARMD_FUZZ_EXAMPLES", "100")), deadline=None)
def test_what_is_no_archive(data: bytes) -> None:
    with nothing_outside_changes(False) as (place, _):
        unpacked(place, data)


def test_a_hole_that_is_larger_than_any_disk() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, size in (("small", 1 << 30), ("large", 1 << 62)):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            sparse = {"map": f"{size - 4},4", "realsize": str(size), "name": name, "size": str(size), "numblocks": "1"}
            entry.pax_headers = {f"GNU.sparse.{key}": value for key, value in sparse.items()}
            tar.addfile(entry, io.BytesIO(b"data"))
    with nothing_outside_changes(False) as (place, outside):
        with pytest.raises(OSError, match="/inside/large"):
            unpack(place, io.BytesIO(buffer.getvalue()), (os.getuid(), os.getgid()), False)
        made = outside.parent / "inside/small"
        with made.open("rb") as file:
            file.seek(-8, os.SEEK_END)
            assert file.read() == b"\0\0\0\0data"
        assert (made.stat().st_size, made.stat().st_blocks < 100) == (1 << 30, True)
