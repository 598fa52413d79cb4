"""An image store of which the disk has lost a part, and what comes and goes in it at the same time."""

import asyncio
import contextlib
import gzip
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import pytest

from swarmd.runtime.errors import NotFound, RuntimeFault
from swarmd.runtime.images.arrivals import fetch
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.loading import load
from swarmd.runtime.images.making import import_rootfs
from swarmd.runtime.images.manifests import Descriptor, host_platform
from swarmd.runtime.images.store import ImageStore
from tests.runtime.images.crash_points import SHARED, Registry, chunks, whole
from tests.runtime.images.tars import digest, docker_save, entry, hardlink, tar


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = ImageStore(tmp_path / "images")
    yield store
    await store.close()


async def test_who_goes_while_a_failure_is_cleared_away_leaves_nothing(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def unpack(blob: Path, into: Path, growth: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()
            (into / "late").touch()

    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"half"
        await asyncio.sleep(0)
        raise ConnectionResetError("the client has gone")

    monkeypatch.setattr(store.workers, "unpack", unpack)
    coming = asyncio.ensure_future(import_rootfs(store, broken()))
    await asyncio.wait_for(ending.wait(), 10)
    coming.cancel()
    await asyncio.sleep(0)
    may_end.set()
    await asyncio.wait([coming])
    assert [*(store.root / "tmp").iterdir()] == []


async def pulled(store: ImageStore, registry: Registry) -> Image:
    with store.lease() as lease:
        await fetch(store, lease, registry, registry.target, "pulled:1", host_platform())
        return await store.name(registry.target, ("pulled:1",))


def is_whole(store: ImageStore, image: Image) -> None:
    whole(store, {*image.variant.digests()}, {*image.variant.diff_ids})


def blob_of(image: Image, root: Path) -> Path:
    return root / "blobs" / image.variant.blobs[-1].digest.replace(":", "/")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def scribbled(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def removed_layer(image: Image) -> None:
    for path in image.layers[-1].rglob("*"):
        if path.is_file():
            path.unlink()
    for path in (image.layers[-1] / "etc", image.layers[-1], image.layers[-1].parent / "size", image.layers[-1].parent):
        path.rmdir() if path.is_dir() else path.unlink()


DAMAGES: dict[str, Callable[[Image, Path], None]] = {
    "a blob is cut off": lambda image, root: cut(blob_of(image, root)),
    "a blob is gone": lambda image, root: blob_of(image, root).unlink(),
    "a layer is gone": lambda image, root: removed_layer(image),
    "a layer has no size": lambda image, root: os.truncate(image.layers[-1].parent / "size", 0),
    "a manifest is empty": lambda image, root: os.truncate(root / "blobs" / image.id.replace(":", "/"), 0),
    "a manifest is gone": lambda image, root: (root / "blobs" / image.id.replace(":", "/")).unlink(),
    "a manifest is scribbled over": lambda image, root: scribbled(root / "blobs" / image.id.replace(":", "/")),
    "a configuration is gone": lambda image, root: (
        root / "blobs" / image.variant.configuration.digest.replace(":", "/")
    ).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("mend", [True, False], ids=["pulled again", "removed"])
async def test_a_damaged_image_is_told_of_and_mended_or_removed(
    store: ImageStore, caplog: pytest.LogCaptureFixture, damage: str, mend: bool
) -> None:
    registry = Registry()
    image = await pulled(store, registry)
    other = (await load(store, chunks(docker_save(["other:1"], SHARED))))[0]
    DAMAGES[damage](image, store.root)
    again = ImageStore(store.root)
    assert "image docker.io/library/pulled:1 is damaged" in caplog.text
    with pytest.raises(NotFound, match="No such image: pulled:1: what this node has of it is damaged"):
        again.get("pulled:1")
    again.sweep()
    if mend:
        is_whole(again, await pulled(again, registry))
    else:
        assert await again.remove("pulled:1") == (("docker.io/library/pulled:1",), image.id)
    is_whole(again, again.get(other.id))
    await again.remove("other:1")
    if mend:
        await again.remove("pulled:1")
    await again.close()
    assert [[*again.blobs.digests()], [*again.layers.diff_ids()]] == [[], []]


async def test_a_scribbled_blob_whose_layer_is_gone_comes_again(store: ImageStore) -> None:
    registry = Registry()
    image = await pulled(store, registry)
    removed_layer(image)
    scribbled(blob_of(image, store.root))
    again = ImageStore(store.root)
    is_whole(again, await pulled(again, registry))
    await again.close()


@pytest.mark.parametrize("left", [0, 100])
async def test_images_are_found_again_without_their_list(
    store: ImageStore, caplog: pytest.LogCaptureFixture, left: int
) -> None:
    image = await pulled(store, Registry())
    os.truncate(store.root / "index.json", left)
    again = ImageStore(store.root)
    assert "index.json is damaged" in caplog.text
    again.sweep()
    (found,) = again.list()
    assert (found.id, found.refs) == (image.id, ())
    is_whole(again, found)
    await again.tag(image.id, "pulled:1")
    await again.close()
    assert ImageStore(store.root).get("pulled:1").id == image.id


class Slow(Registry):
    """Sends half of its own layer, and the rest when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may = 0, asyncio.Event()
        self.half = asyncio.Event()

    async def blob(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        data = self.content[descriptor.digest]
        self.asked += 1
        yield data[: len(data) // 2]
        self.half.set()
        await self.may.wait()
        yield data[len(data) // 2 :]


async def test_of_two_pulls_at_once_one_is_cancelled(store: ImageStore) -> None:
    first, second = Slow(), Slow()
    pulls = [asyncio.create_task(pulled(store, first))]
    await asyncio.wait_for(first.half.wait(), 30)
    pulls.append(asyncio.create_task(pulled(store, second)))
    await asyncio.sleep(0)
    pulls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulls[0]
    await asyncio.wait_for(second.half.wait(), 30)
    second.may.set()
    is_whole(store, await asyncio.wait_for(pulls[1], 30))
    await store.close()
    assert list((store.root / "tmp").iterdir()) == []


async def test_what_a_pull_needs_stays_though_its_last_image_is_removed(store: ImageStore) -> None:
    await load(store, chunks(docker_save(["other:1"], SHARED)))
    slow = Slow()
    pull = asyncio.create_task(pulled(store, slow))
    await asyncio.wait_for(slow.half.wait(), 30)
    await store.remove("other:1")
    store.sweep()
    assert store.layers.has(digest(SHARED))
    slow.may.set()
    is_whole(store, await asyncio.wait_for(pull, 30))


async def test_an_image_that_is_being_removed_can_not_be_had_any_more(store: ImageStore) -> None:
    """So that no container begins to use it in between; one that has, keeps it."""
    image = (await load(store, chunks(docker_save(["other:1"], SHARED))))[0]
    users: list[Image] = []
    removing = asyncio.create_task(store.remove("other:1", in_use=lambda: bool(users)))
    while not removing.done():
        with contextlib.suppress(NotFound):
            users.append(store.get(image.id))
        await asyncio.sleep(0)
    assert (await removing)[1] == ("" if users else image.id)
    assert store.layers.has(digest(SHARED)) == bool(users)


async def test_a_killed_worker_ends_a_pull_in_a_sentence_and_nothing_is_left(store: ImageStore) -> None:
    slow = Slow()
    pull = asyncio.create_task(pulled(store, slow))
    await asyncio.wait_for(slow.half.wait(), 30)
    deadline = time.monotonic() + 30
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while not (workers := [int(pid) for pid in children.read_text().split() if _is_worker(int(pid))]):
        assert time.monotonic() < deadline, f"no worker among {children.read_text()}"
        await asyncio.sleep(0.01)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    slow.may.set()
    with pytest.raises(RuntimeFault, match="was killed, as the kernel does when memory is short: free some"):
        await asyncio.wait_for(pull, 30)
    await store.close()
    assert [list((store.root / part).iterdir()) for part in ("layers", "blobs/sha256", "tmp")] == [[], [], []]


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"unpacking.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


async def test_disk_usage_counts_hard_links_once_and_sparse_files_by_their_size(store: ImageStore) -> None:
    sparse = bytes(1 << 20) + b"end"
    layer = tar(entry("a", b"x" * 5000), hardlink("b", "a"), hardlink("c", "b"), entry("sparse", sparse))
    image = await import_rootfs(store, chunks(gzip.compress(layer)), ("linked:1",))
    blobs = sum(path.stat().st_size for path in (store.root / "blobs").rglob("*") if path.is_file())
    assert store.layers.size(image.variant.diff_ids[0]) == 5000 + len(sparse)
    assert store.disk_usage() == blobs + 5000 + len(sparse) == image.size
