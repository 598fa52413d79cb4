"""Workers unpack what still grows, say what went wrong in a sentence, and leave nothing behind however they end."""

import asyncio
import contextlib
import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from swarmd.runtime.errors import Exhausted, Invalid, RuntimeFault
from swarmd.runtime.images.unpacking import workers as workers_module
from swarmd.runtime.images.unpacking.workers import Workers
from tests.runtime.images.tars import digest, directory, entry, tar

TAR = tar(directory("d"), *(entry(f"d/{n}", os.urandom(50_000)) for n in range(20)))
BLOB = gzip.compress(TAR, 1, mtime=0)
NAME = "swarmd-layers"


OTHERS: set[int] = set()  # workers of tests before this


@pytest.fixture(autouse=True)
def others() -> None:
    OTHERS.clear()
    OTHERS.update(children())


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    await workers.close()
    assert not children()


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    (tmp_path / "layer").mkdir()
    return tmp_path / "layer"


def stored(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "blob").write_bytes(data)
    return tmp_path / "blob"


def children(parent: int | None = None) -> set[int]:
    """The workers of a process, zombies left out."""
    found = set()
    for about in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = about.read_text().partition(" (")
            name, _, fields = rest.rpartition(") ")
            state, above = fields.split()[:2]
            if int(above) == (parent or os.getpid()) and state != "Z" and (name == NAME or "python" in name):
                found.add(int(pid))
    return found - OTHERS


async def until(what: Callable[[], object], patience: float = 15.0) -> None:
    deadline = time.monotonic() + patience
    while not (seen := what()):
        assert time.monotonic() < deadline, f"last seen: {seen!r}, workers {children()}"
        await asyncio.sleep(0.01)


class Tap:
    """How far a file has grown, as a test says."""

    def __init__(self) -> None:
        self._sizes: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        self.say = self._sizes.put_nowait

    async def sizes(self) -> AsyncIterator[int]:
        while (size := await self._sizes.get()) is not None:
            if isinstance(size, Exception):
                raise size
            yield size


async def test_a_whole_blob(workers: Workers, tmp_path: Path, layer: Path) -> None:
    done = await workers.unpack(stored(tmp_path, BLOB), layer, None)
    assert (done.digest, done.size, done.diff_id) == (digest(BLOB), len(BLOB), digest(TAR))
    assert (done.files_size, done.compression) == (1_000_000, "gzip")
    assert len([*(layer / "d").iterdir()]) == 20
    measured = await workers.measure(tmp_path / "blob")
    assert (measured.digest, measured.size, measured.diff_id) == (done.digest, done.size, done.diff_id)
    assert len(children()) == 1  # one after the other


async def test_a_blob_that_grows_is_unpacked_meanwhile(workers: Workers, tmp_path: Path, layer: Path) -> None:
    blob, tap = stored(tmp_path, b""), Tap()
    running = asyncio.ensure_future(workers.unpack(blob, layer, tap.sizes()))
    with blob.open("ab", buffering=0) as file:
        for at in range(0, len(BLOB), 100_000):
            piece = BLOB[at : at + 100_000]
            file.write(piece)
            tap.say(at + len(piece))
            if at == 600_000:
                await until(lambda: (layer / "d" / "5").exists())
    assert not running.done()
    tap.say(None)
    done = await running
    assert (done.digest, done.diff_id) == (digest(BLOB), digest(TAR))
    await workers.unpack(blob, await emptied(layer), None)  # by the same process


async def emptied(layer: Path) -> Path:
    workers_module.empty(layer)
    return layer


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (BLOB[:-9], "cut off"),
        (BLOB[:5000] + b"damage" + BLOB[5006:], "damaged"),
        (b"no archive at all" * 100, "not a tar archive"),
        (tar(entry("../f", b"x")), "leads out of the layer"),
    ],
)
async def test_what_is_broken_is_refused_and_leaves_nothing(
    workers: Workers, tmp_path: Path, layer: Path, data: bytes, says: str
) -> None:
    with pytest.raises(Invalid, match=says):
        await workers.unpack(stored(tmp_path, data), layer, None)
    assert not [*layer.iterdir()]


async def test_a_broken_blob_is_refused_before_it_has_come(workers: Workers, tmp_path: Path, layer: Path) -> None:
    tap = Tap()
    tap.say(1700)
    with pytest.raises(Invalid, match="not a tar archive"):
        await workers.unpack(stored(tmp_path, b"no archive at all" * 100), layer, tap.sizes())


async def test_a_download_that_breaks_off_ends_it(workers: Workers, tmp_path: Path, layer: Path) -> None:
    tap = Tap()
    running = asyncio.ensure_future(workers.unpack(stored(tmp_path, BLOB), layer, tap.sizes()))
    tap.say(500_000)
    await until(lambda: (layer / "d" / "3").exists())
    tap.say(RuntimeFault("the registry is gone"))
    with pytest.raises(RuntimeFault, match="the registry is gone"):
        await running
    assert not [*layer.iterdir()] and not children()


async def test_cancelling_kills_it_and_removes_what_it_made(workers: Workers, tmp_path: Path, layer: Path) -> None:
    tap = Tap()
    running = asyncio.ensure_future(workers.unpack(stored(tmp_path, BLOB), layer, tap.sizes()))
    tap.say(500_000)
    await until(lambda: (layer / "d" / "3").exists())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not [*layer.iterdir()] and not children()


async def test_one_that_is_killed_is_said_so_and_replaced(workers: Workers, tmp_path: Path, layer: Path) -> None:
    tap = Tap()
    running = asyncio.ensure_future(workers.unpack(stored(tmp_path, BLOB), layer, tap.sizes()))
    tap.say(500_000)
    await until(lambda: (layer / "d" / "3").exists())
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(RuntimeFault, match=r"worked on the layer .*blob' was killed.*memory"):
        await running
    assert not [*layer.iterdir()]
    assert (await workers.unpack(tmp_path / "blob", layer, None)).diff_id == digest(TAR)
    for pid in children():  # an idle one
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not children())
    assert (await workers.measure(tmp_path / "blob")).diff_id == digest(TAR)


async def test_a_missing_blob_is_named(workers: Workers, tmp_path: Path, layer: Path) -> None:
    with pytest.raises(RuntimeFault, match=r"none.*No such file"):
        await workers.unpack(tmp_path / "none", layer, None)


async def test_there_are_no_more_than_processors(workers: Workers, tmp_path: Path) -> None:
    blob = stored(tmp_path, BLOB)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(children()))
            await asyncio.sleep(0.01)

    watching = asyncio.ensure_future(watch())
    done = await asyncio.gather(*(workers.measure(blob) for _ in range(12)))
    watching.cancel()
    assert {one.diff_id for one in done} == {digest(TAR)}
    assert 1 <= most <= len(os.sched_getaffinity(0))


async def test_idle_ones_end(tmp_path: Path) -> None:
    workers = Workers(idle=0.2)
    await workers.measure(stored(tmp_path, BLOB))
    assert children()
    await until(lambda: not children())
    assert (await workers.measure(tmp_path / "blob")).size == len(BLOB)
    await workers.close()
    assert not children()


@pytest.mark.parametrize("growing", [True, False])
async def test_workers_end_with_the_daemon(tmp_path: Path, layer: Path, growing: bool) -> None:
    blob = stored(tmp_path, BLOB)
    program = f"""
import asyncio
from pathlib import Path
from swarmd.runtime.images.unpacking.workers import Workers

async def growth():
    yield 500000
    await asyncio.sleep(100)

async def main():
    workers = Workers()
    blob, layer = Path({str(blob)!r}), Path({str(layer)!r})
    await workers.measure(blob)
    await workers.unpack(blob, layer, growth() if {growing} else None)
    await asyncio.sleep(100)

asyncio.run(main())
"""
    daemon = subprocess.Popen([sys.executable, "-c", program])  # noqa: ASYNC220
    try:
        await until(lambda: (layer / "d" / "3").exists() and children(daemon.pid))
        started = children(daemon.pid)
    finally:
        daemon.kill()
        daemon.wait()
    await until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in started))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "small", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
async def test_a_full_disk_is_said_and_is_empty_again(workers: Workers, tmp_path: Path, small_disk: Path) -> None:
    layer = small_disk / "layer"
    layer.mkdir()
    with pytest.raises(Exhausted, match=r"archive entry 'd/\d+' can't be made: No space left on device: free space"):
        await workers.unpack(stored(tmp_path, BLOB), layer, None)
    assert not [*layer.iterdir()]
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(os.urandom(1_000_000))
    with pytest.raises(Exhausted, match=r"the disk of the images is full \(No space left on device\): free space"):
        await workers.pack(tmp_path / "tree", small_disk / "blob")
    assert not (small_disk / "blob").exists()


@pytest.mark.root
async def test_packing(workers: Workers, tmp_path: Path, layer: Path) -> None:
    await workers.unpack(stored(tmp_path, BLOB), layer, None)
    packed = await workers.pack(layer, tmp_path / "packed", clamp=5)
    data = (tmp_path / "packed").read_bytes()
    assert (packed.digest, packed.size) == (digest(data), len(data))
    assert packed.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}"
    assert await workers.pack(layer, tmp_path / "again", clamp=5) == packed
    only = await workers.pack(layer, tmp_path / "packed", paths=["d/1"], compression="", clamp=5)
    assert only.size == 512 * 2 + 50_176 + 1024
    with pytest.raises(Invalid, match="not there"):
        await workers.pack(layer, tmp_path / "none", paths=["nothing"])
    assert not (tmp_path / "none").exists()
