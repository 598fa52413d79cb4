"""Images that do not fit on the disk: one sentence that says what to do, nothing left, and what fits is taken then."""

import os
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

import pytest

from swarmd.runtime.errors import Exhausted, RuntimeFault
from swarmd.runtime.images.arrivals import fetch
from swarmd.runtime.images.loading import load
from swarmd.runtime.images.making import import_rootfs
from swarmd.runtime.images.manifests import host_platform
from swarmd.runtime.images.store import ImageStore
from tests.host.builds import Builds
from tests.host.engine_host import Host, add_image, engine_in, remove_parents
from tests.run import RUN
from tests.runtime.images.crash_points import Registry
from tests.runtime.images.tars import docker_save, entry, tar

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")]
MEGABYTE = 1 << 20
TOO_MUCH = tar(*(entry(f"file{n}", os.urandom(MEGABYTE)) for n in range(14)))
SMALL = tar(entry("etc/motd", b"small"))
SAYS = r"is full: free space on it|[Nn]o space left on device.*: free space"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "small", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
async def store(disk: Path) -> AsyncIterator[ImageStore]:
    store = ImageStore(disk / "images")
    yield store
    await store.close()


async def chunks(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 1 << 18):
        yield data[start : start + (1 << 18)]


async def pull(store: ImageStore, *layers: bytes) -> None:
    registry = Registry(*layers)
    with store.lease() as lease:
        await fetch(store, lease, registry, registry.target, "pulled:1", host_platform())
        await store.name(registry.target, ("pulled:1",))


@pytest.mark.parametrize("how", ["pull", "pull of what shrinks", "load", "import"])
async def test_an_image_that_does_not_fit_leaves_nothing(store: ImageStore, how: str) -> None:
    await import_rootfs(store, chunks(SMALL), ("there:1",))
    before = sorted(path.name for path in store.root.rglob("*"))
    with pytest.raises(Exhausted, match=SAYS) as refused:
        if how == "load":
            await load(store, chunks(docker_save(["new:1"], TOO_MUCH)))
        elif how == "import":
            await import_rootfs(store, chunks(TOO_MUCH), ("new:1",))
        else:
            await pull(store, TOO_MUCH if how == "pull" else tar(entry("zeros", bytes(14 * MEGABYTE))))
    assert "\n" not in str(refused.value)
    await store.close()
    assert sorted(path.name for path in store.root.rglob("*")) == before
    await pull(store)
    assert {ref for image in store.list() for ref in image.refs} == {
        "docker.io/library/there:1",
        "docker.io/library/pulled:1",
    }


async def test_an_image_can_be_removed_from_a_full_disk(store: ImageStore) -> None:
    await import_rootfs(store, chunks(SMALL), ("there:1",))
    with (store.root.parent / "filling").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while file.write(bytes(4096)):
            pass
    ImageStore(store.root)
    await store.remove("there:1")
    await store.close()
    assert store.list() == [] and not list((store.root / "tmp").iterdir())


async def test_files_that_a_build_copies_and_that_do_not_fit(disk: Path, tmp_path: Path) -> None:
    parent = f"st-full-{RUN}"
    (tmp_path / "host").mkdir()
    (tmp_path / "host/data").symlink_to(disk)
    try:
        async with engine_in(tmp_path / "host", parent) as engine:
            await add_image(engine.images)
            host = Host(engine, tmp_path / "host")
            before = engine.images.disk_usage()
            with pytest.raises(RuntimeFault, match=SAYS):
                await Builds(host).build("FROM busybox\nCOPY big /big\n", {"big": os.urandom(5 * MEGABYTE)})
            with pytest.raises(RuntimeFault, match=SAYS):  # not even the context
                await Builds(host).build("FROM busybox\n", {"big": bytes(40 * MEGABYTE)})
            assert engine.images.disk_usage() == before
            assert [path.name for path in (disk / "builds/work").iterdir()] == ["empty"]
            built = await Builds(host).build("FROM busybox\nRUN echo fits > /small\n")
            assert (built.layers[-1] / "small").read_text() == "fits\n"
        assert [*(disk / "images/tmp").iterdir()] == []
    finally:
        remove_parents(parent)
