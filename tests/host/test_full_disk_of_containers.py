"""A container that fills the disk ends as its program does, and can be stopped and removed, which makes room again."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from swarmd.runtime.model import Phase
from tests.host.engine_host import Host, add_image, engine_in, leftovers, remove_parents, until
from tests.run import RUN

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")]
FILL = "dd if=/dev/zero of=/big bs=64k count=1000 2>/dev/null; dd if=/dev/zero of=/more bs=1k count=100 2>/dev/null"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "small", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
async def small(disk: Path) -> AsyncIterator[Host]:
    parent = f"st-full-{RUN}"
    async with engine_in(disk, parent) as engine:
        await add_image(engine.images)
        yield Host(engine, disk)
        for state in engine.list():
            await engine.remove(state.id, force=True)
    await until("nothing is left", lambda: _left(disk, parent) == [])
    remove_parents(parent)


async def test_its_end_is_known_and_it_can_be_removed(small: Host) -> None:
    engine = small.engine
    beside = await small.start("sleep", "100", restart="always")
    made = await small.make("true")
    id = await small.start("sh", "-c", f"{FILL}; exit 7")
    ended = await engine.wait(id)
    assert (ended.code, ended.error) == (7, "")
    with (small.root / "filler").open("wb", 0) as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(bytes(512))
    with pytest.raises(OSError, match="No space left"):
        await small.make("true")
    with pytest.raises(OSError, match="No space left"):
        await engine.start(made)
    said = f"start: the disk of {small.root}/data/containers/{made} is full: free space there and start it again"
    failed = engine.inspect(made).exit
    assert failed is not None and (failed.code, failed.error) == (125, said)
    await asyncio.wait_for(engine.stop(beside, 0), 20)
    assert engine.inspect(beside).phase is Phase.EXITED
    for one in (id, made, beside):
        await asyncio.wait_for(engine.remove(one), 20)
    (small.root / "filler").unlink()
    assert (await small.run("echo there is room again")).out == "there is room again\n"


def _left(disk: Path, parent: str) -> list[str]:
    """The disk itself is in the mounts of every process, and network namespaces are those of all tests."""
    return [line for line in leftovers(disk / "data", parent) if not line.startswith("netns")]
