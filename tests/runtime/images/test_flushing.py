"""What a crash of the host takes of content that had just come, and what it leaves."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from swarmd.runtime.images import store as stores
from swarmd.runtime.images.arrivals import fetch
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import host_platform
from swarmd.runtime.images.mending import mend
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.stages import files
from tests.runtime.images.crash_points import Registry, whole


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


async def pulled(store: ImageStore) -> Image:
    registry = Registry()
    with store.lease() as lease:
        await fetch(store, lease, registry, registry.target, "pulled:1", host_platform())
        return await store.name(registry.target, ("pulled:1",), lasting=False)


def next_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "boot_id", lambda: "the next boot")


def made(image: Image) -> list[int]:
    """What tells one unpacking of each layer from another."""
    return [layer.stat().st_ino for layer in image.layers]


async def test_what_was_pulled_is_flushed_soon_and_stays_as_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_FLUSH_AFTER", 0.0)
    store = ImageStore(root)
    image = await pulled(store)
    deadline = time.monotonic() + 20
    while image.id not in (known := (root / "flushed.json").read_text()):
        assert time.monotonic() < deadline, f"flushed is {known}"
        await asyncio.sleep(0.01)
    await store.close()
    next_boot(monkeypatch)
    again = ImageStore(root)
    assert again.damaged() == []
    assert made(again.get("pulled:1")) == made(image)
    await again.close()


async def test_layers_that_were_not_flushed_are_unpacked_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = ImageStore(root)
    image = await pulled(store)
    await store.close()
    (image.layers[0] / "bin/sh").write_bytes(b"")
    next_boot(monkeypatch)
    again = ImageStore(root)
    await mend(again)
    image = again.get("pulled:1")
    whole(again, {*image.variant.digests()}, {*image.variant.diff_ids})
    assert caplog.text == ""
    await again.close()


async def test_an_image_whose_blob_was_not_flushed_is_gone_and_can_be_pulled_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = ImageStore(root)
    blob = store.blobs.path((await pulled(store)).variant.blobs[0].digest)
    await store.close()
    os.truncate(blob, blob.stat().st_size // 2)
    next_boot(monkeypatch)
    again = ImageStore(root)
    await mend(again)
    assert again.list() == [] and again.damaged() == []
    said = "image docker.io/library/pulled:1 had just come when the host went down: pull or build it again"
    assert [record.message for record in caplog.records] == [said]
    image = await pulled(again)
    whole(again, {*image.variant.digests()}, {*image.variant.diff_ids})
    await again.close()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]"])
async def test_nothing_is_removed_because_the_list_of_what_was_flushed_is_damaged(root: Path, content: bytes) -> None:
    """Containers may run on it; only a new boot casts doubt on it."""
    store = ImageStore(root)
    image = await pulled(store)
    await store.close()
    (root / "flushed.json").write_bytes(content)
    again = ImageStore(root)
    assert made(again.get("pulled:1")) == made(image)
    await again.close()


async def test_damage_is_told_where_no_crash_of_the_host_explains_it(root: Path) -> None:
    store = ImageStore(root)
    image = await pulled(store)
    await store.close()
    store.blobs.path(image.variant.configuration.digest).write_bytes(b"{")
    again = ImageStore(root)
    await again.settle()
    assert [*again.damaged()] != []
    await again.close()
