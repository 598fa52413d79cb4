import asyncio
import gzip
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.runtime.errors import Conflict, Invalid, NotFound
from swarmd.runtime.images import ImageConfig, ImageStore, familiar, normalised
from swarmd.runtime.model import Health
from tests.runtime.images.tars import configuration, digest, directory, docker_save, entry, oci_layout, tar

ROOTFS = tar(directory("bin"), entry("bin/sh", b"shell", mode=0o755))
SECOND = tar(entry("etc/motd", b"hello"))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


async def chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize(
    ("ref", "full"),
    [
        ("demo", "docker.io/library/demo:latest"),
        ("demo:1", "docker.io/library/demo:1"),
        ("team/demo", "docker.io/team/demo:latest"),
        ("docker.io/library/demo", "docker.io/library/demo:latest"),
        ("localhost/demo", "localhost/demo:latest"),
        ("host.example:5000/a/b:v1", "host.example:5000/a/b:v1"),
        (f"demo@sha256:{'0' * 64}", f"docker.io/library/demo@sha256:{'0' * 64}"),
    ],
)
def test_names_are_stored_in_full_and_shown_short(ref: str, full: str) -> None:
    assert normalised(ref) == full
    assert normalised(familiar(full)) == full


@pytest.mark.parametrize("ref", ["", "Demo", "a b", "demo:", "demo:a:b", "-x", "demo@sha256:12", "../x"])
def test_what_can_be_no_name_is_refused(ref: str) -> None:
    with pytest.raises(Invalid, match="image name"):
        normalised(ref)


async def test_an_import_has_the_same_id_on_every_host_however_it_comes(tmp_path: Path) -> None:
    config = ImageConfig(
        cmd=("sh",), env=("A=1",), labels={"b": "2", "a": "1"}, health=Health(test=("CMD", "true"), interval=1.5)
    )
    file = tmp_path / "rootfs.tar"
    file.write_bytes(ROOTFS)
    one, two = ImageStore(tmp_path / "one"), ImageStore(tmp_path / "two")
    plain = await one.import_rootfs(file, "demo", config=config)
    compressed = await two.import_rootfs(chunks(gzip.compress(ROOTFS)), "demo", config=config)
    assert plain == compressed
    image = one.get("demo")
    assert (image.id, image.config, image.size) == (plain, config, len(ROOTFS))
    assert [(layer / "bin/sh").read_bytes() for layer in image.layers] == [b"shell"]
    assert file.exists()
    assert await one.import_rootfs(file, "other") != plain


async def test_a_saved_image_is_loaded_with_its_names_and_layers(store: ImageStore) -> None:
    loaded = await store.load(
        chunks(docker_save(["demo:1", "demo:2"], ROOTFS, SECOND, Cmd=["sh"], ExposedPorts={"80/tcp": {}}))
    )
    image = store.get("demo:2")
    assert [image] == list(loaded)
    assert image.id == digest(configuration(ROOTFS, SECOND, Cmd=["sh"], ExposedPorts={"80/tcp": {}}))
    assert (image.config.cmd, image.config.exposed_ports) == (("sh",), ("80/tcp",))
    assert (image.layers[1] / "etc/motd").read_bytes() == b"hello"


async def test_an_oci_layout_with_compressed_layers_is_loaded(store: ImageStore) -> None:
    config = configuration(ROOTFS)
    await store.load(chunks(oci_layout("docker.io/library/demo:1", config, gzip.compress(ROOTFS))))
    assert store.get("demo:1").id == digest(config)


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (oci_layout("demo:1", configuration(ROOTFS), SECOND), "its configuration says"),
        (oci_layout("demo:1", configuration(ROOTFS)), "lists 0 layers"),
        (docker_save(["demo:1"], ROOTFS).replace(b'"amd64"', b'"arm64"'), "not sha256"),
        (docker_save(["demo:1"], ROOTFS).replace(b"shell", b"SHELL"), "its configuration says"),
        (ROOTFS, "no image archive"),
        (tar(entry("manifest.json", b"[]")), "has no image for"),
        (tar(entry("manifest.json", b"[{}]")), "damaged"),
        (tar(entry("manifest.json", b'[{"Config": "../../etc/passwd"}]')), "incomplete"),
    ],
)
async def test_an_archive_that_is_not_what_it_says_leaves_nothing(
    store: ImageStore, tmp_path: Path, archive: bytes, why: str
) -> None:
    with pytest.raises(Invalid, match=why):
        await store.load(chunks(archive))
    assert store.list() == []
    assert list((tmp_path / "images/layers").iterdir()) == []
    assert list((tmp_path / "images/tmp").iterdir()) == []


async def test_what_is_not_here_is_named(store: ImageStore) -> None:
    with pytest.raises(NotFound, match="image nginx:1 is not on this node"):
        store.get("nginx:1")


async def test_images_are_found_by_the_beginning_of_their_id(store: ImageStore) -> None:
    id = await store.import_rootfs(chunks(ROOTFS), "demo")
    for ref in (id, id.removeprefix("sha256:"), id.removeprefix("sha256:")[:12], id[:20]):
        assert store.get(ref).id == id


async def test_a_name_moves_to_the_newer_image(store: ImageStore, tmp_path: Path) -> None:
    old = await store.import_rootfs(chunks(ROOTFS), "demo")
    new = await store.import_rootfs(chunks(SECOND), "demo")
    assert store.get("demo").id == new
    assert store.get(old).refs == ()
    again = ImageStore(tmp_path / "images")
    assert {image.id: image.refs for image in again.list()} == {old: (), new: ("docker.io/library/demo:latest",)}


async def test_removing_the_last_name_removes_what_no_other_image_needs(store: ImageStore, tmp_path: Path) -> None:
    await store.load(chunks(docker_save(["two"], ROOTFS, SECOND)))
    id = await store.import_rootfs(chunks(ROOTFS), "one")
    await store.tag("one", "alias")
    with pytest.raises(Conflict, match="has 2 names"):
        await store.remove(id)
    assert await store.remove("alias") == (("docker.io/library/alias:latest",), "")
    assert (await store.remove("one"))[1] == id
    assert [image.refs for image in store.list()] == [("docker.io/library/two:latest",)]
    assert (store.get("two").layers[0] / "bin/sh").exists()
    await store.remove(store.get("two").id)
    assert [list((tmp_path / "images" / part).iterdir()) for part in ("layers", "blobs/sha256", "tmp")] == [[], [], []]


async def test_the_same_import_many_times_at_once(store: ImageStore, tmp_path: Path) -> None:
    ids = await asyncio.gather(*(store.import_rootfs(chunks(ROOTFS), f"demo:{n}") for n in range(8)))
    assert len(set(ids)) == 1
    assert len(store.get("demo:0").refs) == 8
    assert len(list((tmp_path / "images/layers").iterdir())) == 1


async def test_the_loop_goes_on_while_an_image_is_imported(store: ImageStore) -> None:
    big = tar(*(entry(f"file{n}", b"x") for n in range(2_000)))
    work = asyncio.ensure_future(store.import_rootfs(chunks(big, 1 << 20), "big"))
    turns = 0
    while not work.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    await work


async def test_killed_in_the_middle_nothing_shows(tmp_path: Path) -> None:
    data = tar(*(entry(f"file{n}", b"x") for n in range(20_000)))
    file, root = tmp_path / "rootfs.tar", tmp_path / "images"
    file.write_bytes(data)
    program = (
        "import asyncio; from pathlib import Path; from swarmd.runtime.images import ImageStore\n"
        "async def main():\n"
        f"    await ImageStore(Path({str(root)!r})).import_rootfs(Path({str(file)!r}), 'demo')\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as importer:  # noqa: ASYNC220 (starts at once)
        deadline = time.monotonic() + 20
        while not list(root.glob("tmp/*/file100")):
            assert time.monotonic() < deadline, f"never unpacking; last seen {list(root.glob('*/*'))[:9]}"
            await asyncio.sleep(0.001)
        importer.kill()
    again = ImageStore(root)
    assert again.list() == []
    assert [list((root / part).iterdir()) for part in ("layers", "blobs/sha256", "tmp")] == [[], [], []]
