"""Contexts of builds: what is listed is what Python's tarfile finds, where it is; what no build may have is refused."""

import asyncio
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.unpacking.indexing import index
from swarmd.runtime.images.unpacking.jobs import Indexed, IndexJob
from swarmd.runtime.images.unpacking.workers import Workers
from tests.runtime.images.tars import digest, directory, entry, hardlink, symlink, tar
from tests.runtime.images.unpacking.test_workers import children, until

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
FILES = tar(directory("d"), *(entry(f"d/{n}", os.urandom(50_000)) for n in range(20)))


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    await workers.close()


def listed(place: Path, archive: bytes, size: int = 1 << 18) -> list[list[Any]]:
    """Lines as they are written, but for names, which are bytes."""
    source = io.BytesIO(archive)
    job = IndexJob(blob=b"", plain=os.fsencode(place / "plain"), list=os.fsencode(place / "list"))
    index(job, lambda most: source.read(min(most, size)))
    lines = [json.loads(line) for line in (place / "list").read_bytes().splitlines()]
    return [[line[0].encode("latin-1"), *line[1:8], line[8].encode("latin-1"), line[9]] for line in lines]


names = st.binary(min_size=1, max_size=150).map(
    lambda data: os.fsdecode(b"n" + data.replace(b"\0", b"0").replace(b"/", b"_") + b"e")
)


@given(
    files=st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=6),
    format=st.sampled_from(FORMATS[1:]),
    size=st.integers(1, 2000),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_offsets_and_digests_are_of_the_contents(
    tmp_path: Path, files: list[tuple[str, bytes]], format: int, size: int
) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, errors="surrogateescape") as archive:
        for name, content in files:
            info, _ = entry(name, content, mtime=1234, mode=0o751, uid=1000, gid=7)
            archive.addfile(info, io.BytesIO(content))
    data = file.getvalue()
    for line, (name, content) in zip(listed(tmp_path, data, size), files, strict=True):
        *about, offset = line
        about_it = [os.fsencode(name), "f", 0o751, 1000, 7, len(content), 1234 * 10**9, digest(content)[7:], b""]
        assert about == about_it and data[offset : offset + len(content)] == content


def test_every_kind_of_entry(tmp_path: Path) -> None:
    parts = [
        directory("./", mode=0o700),
        directory("d/", mode=0o1777),
        entry("./d//f", b"content"),
        symlink("d/link", "ünd/\udcff"),
        hardlink("again", "d/./f"),
        entry("pipe", type=tarfile.FIFOTYPE),
        entry("/absolute", b""),
    ]
    found = listed(tmp_path, tar(*parts))
    assert [(line[0], line[1], line[8]) for line in found] == [
        (b"", "d", b""),
        (b"d", "d", b""),
        (b"d/f", "f", b""),
        (b"d/link", "l", "ünd/".encode() + b"\xff"),
        (b"again", "f", b""),
        (b"pipe", "p", b""),
        (b"absolute", "f", b""),
    ]
    assert found[4][1:] == found[2][1:]  # one file, at one place
    assert found[1][2] == 0o1777 and found[6][7] == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("tool", [["gzip"], ["bzip2"], ["xz"], ["zstd", "-q"]], ids=lambda tool: str(tool[0]))
def test_offsets_are_those_of_the_archive_without_its_compression(tmp_path: Path, tool: list[str]) -> None:
    packed = subprocess.run([*tool, "-c"], input=FILES, stdout=subprocess.PIPE, check=True).stdout
    assert listed(tmp_path, packed) == listed(tmp_path, FILES)
    assert (tmp_path / "plain").read_bytes() == FILES


REFUSED = {
    "no archive": (b"no archive at all" * 100, "not a tar archive"),
    "nothing": (b"", "empty, and not even an empty tar"),
    "cut off in a file": (FILES[:30_000], "cut off in the middle of an entry"),
    "cut off in a header": (FILES[:700], "cut off in the middle of a header"),
    "a damaged header": (FILES[:512] + b"damage" + FILES[518:], "checksum"),
    "a cut off gzip": (gzip.compress(FILES)[:-9], "gzip stream is cut off"),
    "a damaged gzip": (gzip.compress(FILES)[:5000] + b"damage" * 9, "gzip stream is"),
    "a name that leads out": (tar(entry("a/../../b", b"x")), "'a/../../b' leads out of it"),
    "a link that leads out": (tar(hardlink("a", "../b")), "'../b' leads out of it"),
    "a link to nothing": (tar(hardlink("a", "/etc/passwd")), "'a' is a hard link to nothing"),
    "a device": (tar(entry("sda", type=tarfile.BLKTYPE)), "'sda' is a device: leave it out"),
    "an unknown kind": (tar(entry("what", type=b"Q")), "'what' is of the unknown type"),
    "two archives": (tar(entry("a", b"x"))[:1536] + tar(entry("b", b"x")), "goes on after its end"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(tmp_path: Path, what: str) -> None:
    data, why = REFUSED[what]
    with pytest.raises(Invalid, match=why):
        listed(tmp_path, data)


@pytest.mark.parametrize("format", ["--format=gnu", "--format=pax"])
def test_a_sparse_file_is_refused(tmp_path: Path, format: str) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"end")
    made = subprocess.run(["tar", "-S", format, "-C", tmp_path, "-c", "holes"], stdout=subprocess.PIPE, check=True)
    with pytest.raises(Invalid, match="'holes' is stored as a sparse file: pack it without"):
        listed(tmp_path, made.stdout)


def test_an_empty_archive_is_an_empty_context(tmp_path: Path) -> None:
    assert listed(tmp_path, bytes(1024)) == []


# ---------------------------------------------------------------- by a worker


class Sent:
    """A context that comes as a test says."""

    def __init__(self, place: Path, name: str) -> None:
        self.file, self._place, self._name = place / name, place, name
        self.file.touch()
        self._sizes: asyncio.Queue[int | None] = asyncio.Queue()

    def add(self, data: bytes) -> None:
        with self.file.open("ab") as file:
            file.write(data)
            self._sizes.put_nowait(file.tell())

    def end(self) -> None:
        self._sizes.put_nowait(None)

    async def _growth(self) -> AsyncIterator[int]:
        while (size := await self._sizes.get()) is not None:
            yield size

    async def listed(self, workers: Workers) -> Indexed:
        place = self._place
        return await workers.index(self.file, place / f"{self._name}.tar", place / f"{self._name}.list", self._growth())


async def test_a_context_is_read_while_it_comes(workers: Workers, tmp_path: Path) -> None:
    sent = Sent(tmp_path, "a")
    running = asyncio.ensure_future(sent.listed(workers))
    for at in range(0, len(FILES), 100_000):
        sent.add(FILES[at : at + 100_000])
    assert not running.done()
    sent.end()
    assert (await running).compression == ""
    assert len((tmp_path / "a.list").read_bytes().splitlines()) == 21
    bad = Sent(tmp_path, "b")
    bad.add(b"no archive at all" * 100)
    with pytest.raises(Invalid, match="not a tar archive"):  # it has not ended
        await bad.listed(workers)


async def test_contexts_that_are_slow_to_come_keep_no_pull_waiting(workers: Workers, tmp_path: Path) -> None:
    most = 2 * len(os.sched_getaffinity(0))
    contexts = [Sent(tmp_path, str(number)) for number in range(most + 2)]
    before = children()
    running = [asyncio.ensure_future(sent.listed(workers)) for sent in contexts]
    for sent in contexts:
        sent.add(FILES[:60_000])

    async def whole() -> AsyncIterator[int]:
        yield len(FILES)

    (tmp_path / "blob").write_bytes(FILES)
    (tmp_path / "layer").mkdir()
    assert (await workers.unpack(tmp_path / "blob", tmp_path / "layer", whole())).diff_id == digest(FILES)
    assert not any(one.done() for one in running)
    for sent in contexts:
        sent.add(FILES[60_000:])
        sent.end()
    await asyncio.gather(*running)
    await until(lambda: len(children() - before) <= most)  # they leave no more processes than any other jobs
    assert len({(tmp_path / f"{number}.list").read_bytes() for number in range(len(contexts))}) == 1
