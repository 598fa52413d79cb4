import asyncio
import gzip
import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.runtime.errors import Conflict, Invalid, NotFound
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.loading import load
from swarmd.runtime.images.making import import_rootfs
from swarmd.runtime.images.manifests import OCI_CONFIG, OCI_INDEX, OCI_LAYER
from swarmd.runtime.images.references import familiar, normalised
from swarmd.runtime.images.saving import save
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.model import Health
from tests.runtime.images.tars import configuration, digest, directory, docker_save, entry, oci_layout, tar

ROOTFS = tar(directory("bin"), entry("bin/sh", b"shell", mode=0o755))
SECOND = tar(entry("etc/motd", b"hello"))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    store = ImageStore(tmp_path / "images")
    yield store
    await store.close()


async def chunks(data: bytes, size: int = 1000) -> AsyncGenerator[bytes, None]:
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


async def test_an_import_is_an_image_of_one_layer(store: ImageStore) -> None:
    config = ImageConfig(
        cmd=("sh",), env=("A=1",), labels={"b": "2", "a": "1"}, health=Health(test=("CMD", "true"), interval=1.5)
    )
    made = await import_rootfs(store, chunks(gzip.compress(ROOTFS)), ("demo",), config=config, message="first")
    image = store.get("demo")
    assert image == made == store.get(image.id[7:19])
    assert (image.config, image.variant.diff_ids, image.architecture) == (config, (digest(ROOTFS),), "amd64")
    assert [(layer / "bin/sh").read_bytes() for layer in image.layers] == [b"shell"]
    assert image.created > "2026"
    assert [entry.comment for entry in image.variant.document.history or ()] == ["first"]
    assert store.disk_usage() == sum(map(store.blobs.size, store.blobs.digests())) + len(b"shell")


async def test_a_saved_image_is_loaded_with_its_names_and_layers(store: ImageStore) -> None:
    loaded = await load(
        store, chunks(docker_save(["demo:1", "demo:2"], ROOTFS, SECOND, Cmd=["sh"], ExposedPorts={"80/tcp": {}}))
    )
    image = store.get("demo:2")
    assert [image] == list(loaded)
    assert image.variant.configuration.digest == digest(
        configuration(ROOTFS, SECOND, Cmd=["sh"], ExposedPorts={"80/tcp": {}})
    )
    assert (image.config.cmd, image.config.exposed_ports) == (("sh",), ("80/tcp",))
    assert (image.layers[1] / "etc/motd").read_bytes() == b"hello"


async def test_an_oci_layout_with_compressed_layers_is_loaded(store: ImageStore) -> None:
    config = configuration(ROOTFS)
    await load(store, chunks(oci_layout("docker.io/library/demo:1", config, gzip.compress(ROOTFS))))
    assert store.get("demo:1").variant.configuration.digest == digest(config)


async def test_what_is_saved_is_loaded_as_it_was(store: ImageStore, tmp_path: Path) -> None:
    image = await import_rootfs(store, chunks(ROOTFS), ("demo:1", "other"))
    archive = b"".join([chunk async for chunk in save(store, [(image, ("docker.io/library/demo:1",))])])
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        names = members.getnames()
    assert len(names) == len(set(names))
    elsewhere = ImageStore(tmp_path / "elsewhere")
    (again,) = await load(elsewhere, chunks(gzip.compress(archive)))
    assert (again.id, again.refs) == (image.id, ("docker.io/library/demo:1",))
    assert again.variant.document == image.variant.document


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (oci_layout("demo:1", configuration(ROOTFS), SECOND), "is damaged: layer .* holds"),
        (oci_layout("demo:1", configuration(ROOTFS)), "lists 0 layers"),
        (docker_save(["demo:1"], ROOTFS).replace(b'"amd64"', b'"arm64"'), "not sha256"),
        (docker_save(["demo:1"], ROOTFS).replace(b"shell", b"SHELL"), "its configuration says"),
        (ROOTFS, "no image archive"),
        (tar(entry("manifest.json", b"[]")), "holds no image"),
        (tar(entry("manifest.json", b"[{}]")), "damaged"),
        (tar(entry("manifest.json", b'[{"Config": "../../etc/passwd"}]')), "incomplete"),
    ],
)
async def test_an_archive_that_is_not_what_it_says_leaves_nothing(
    store: ImageStore, tmp_path: Path, archive: bytes, why: str
) -> None:
    with pytest.raises(Invalid, match=why):
        await load(store, chunks(archive))
    assert store.list() == []
    await store.close()
    assert list((tmp_path / "images/layers").iterdir()) == []
    assert list((tmp_path / "images/tmp").iterdir()) == []


async def test_what_is_not_here_is_named(store: ImageStore) -> None:
    with pytest.raises(NotFound, match="No such image: nginx:1"):
        store.get("nginx:1")


async def test_images_are_found_by_the_beginning_of_their_id(store: ImageStore) -> None:
    id = (await import_rootfs(store, chunks(ROOTFS), ("demo",))).id
    for ref in (id, id.removeprefix("sha256:"), id.removeprefix("sha256:")[:12], id[:20]):
        assert store.get(ref).id == id


async def test_a_name_moves_to_the_newer_image(store: ImageStore, tmp_path: Path) -> None:
    old = (await import_rootfs(store, chunks(ROOTFS), ("demo",))).id
    new = (await import_rootfs(store, chunks(SECOND), ("demo",))).id
    assert store.get("demo").id == new
    assert store.get(old).refs == ()
    again = ImageStore(tmp_path / "images")
    assert {image.id: image.refs for image in again.list()} == {old: (), new: ("docker.io/library/demo:latest",)}


async def test_removing_the_last_name_removes_what_no_other_image_needs(store: ImageStore, tmp_path: Path) -> None:
    await load(store, chunks(docker_save(["two"], ROOTFS, SECOND)))
    id = (await import_rootfs(store, chunks(ROOTFS), ("one",))).id
    await store.tag("one", "alias")
    with pytest.raises(Conflict, match="has 2 names"):
        await store.remove(id)
    assert await store.remove("alias") == (("docker.io/library/alias:latest",), "")
    assert (await store.remove("one"))[1] == id
    assert [image.refs for image in store.list()] == [("docker.io/library/two:latest",)]
    assert (store.get("two").layers[0] / "bin/sh").exists()
    await store.remove(store.get("two").id)
    await store.close()
    assert [list((tmp_path / "images" / part).iterdir()) for part in ("layers", "blobs/sha256", "tmp")] == [[], [], []]


async def test_the_same_content_many_times_at_once_comes_once(store: ImageStore) -> None:
    archive = oci_layout("demo:1", configuration(ROOTFS), gzip.compress(ROOTFS))
    loaded = await asyncio.gather(*(load(store, chunks(archive)) for _ in range(8)))
    assert len({image.id for images in loaded for image in images}) == 1
    assert len([*store.layers.diff_ids()]) == 1
    assert [*(store.root / "tmp").iterdir()] == []


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"Healthcheck": {"Test": ["CMD", "x"], "Interval": "3s"}}, r"Interval"),
        ({"Cmd": [1, 2]}, r"Cmd\[0\]"),
        ({"Env": "A=b"}, "Env"),
        ({"Labels": []}, "Labels"),
        ({"ExposedPorts": ["80"]}, "ExposedPorts"),
    ],
)
async def test_a_malformed_configuration_is_refused_and_harms_no_other_image(
    store: ImageStore, config: dict[str, Any], why: str
) -> None:
    await load(store, chunks(docker_save(["good:1"], ROOTFS)))
    for archive in (
        docker_save(["bad:1"], ROOTFS, **config),
        oci_layout("docker.io/library/bad:1", configuration(ROOTFS, **config), ROOTFS),
    ):
        with pytest.raises(Invalid, match=f"malformed: .*{why}"):
            await load(store, chunks(archive))
    await store.tag("good:1", "good:2")
    assert [image.refs for image in store.list()] == [("docker.io/library/good:1", "docker.io/library/good:2")]


def index_of(*listed: tuple[bytes, str], blobs: tuple[bytes, ...] = ()) -> bytes:
    """An archive with an index named demo:1 that lists documents, each with the system it is for."""
    described = [
        {"digest": digest(data), "size": len(data), "platform": {"os": system, "architecture": "amd64"}}
        for data, system in listed
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described}).encode()
    annotations = {"io.containerd.image.name": "docker.io/library/demo:1"}
    entry_ = {"mediaType": OCI_INDEX, "digest": digest(index), "size": len(index), "annotations": annotations}
    files = {f"blobs/sha256/{digest(blob)[7:]}": blob for blob in (index, *blobs)}
    files["index.json"] = json.dumps({"manifests": [entry_]}).encode()
    return tar(*(entry(name, data) for name, data in files.items()))


def manifest_of(config: bytes, *layers: tuple[bytes, str]) -> bytes:
    parts = [{"digest": digest(data), "size": len(data), "mediaType": kind} for data, kind in layers]
    described = {"digest": digest(config), "size": len(config), "mediaType": OCI_CONFIG}
    return json.dumps({"schemaVersion": 2, "config": described, "layers": parts}).encode()


async def test_what_a_builder_attests_is_passed_over(store: ImageStore) -> None:
    config, claim = configuration(ROOTFS), b'{"claims": "much"}'
    image = manifest_of(config, (ROOTFS, OCI_LAYER))
    attestation = manifest_of(configuration(claim), (claim, "application/vnd.in-toto+json"))
    held = (image, config, ROOTFS, attestation, configuration(claim), claim)
    (loaded,) = await load(store, chunks(index_of((image, "linux"), (attestation, "unknown"), blobs=held)))
    assert [variant.manifest.digest for variant in store.get("demo:1").variants] == [digest(image)]
    assert not store.blobs.has(digest(attestation))
    archive = b"".join([chunk async for chunk in save(store, [(loaded, loaded.refs)])])
    await store.remove("demo:1")
    assert [again.id for again in await load(store, chunks(archive))] == [loaded.id]


async def test_indexes_that_cannot_be_used_are_refused(store: ImageStore) -> None:
    config = configuration(ROOTFS)
    image = manifest_of(config, (ROOTFS, OCI_LAYER))
    inner = {"digest": digest(image), "size": len(image), "platform": {"os": "linux", "architecture": "amd64"}}
    nested = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [inner]}).encode()
    with pytest.raises(Invalid, match="index in which there are indexes"):
        await load(store, chunks(index_of((nested, "linux"), blobs=(nested, image, config, ROOTFS))))
    with pytest.raises(Invalid, match="the archive has none of them"):
        await load(store, chunks(index_of((image, "linux"))))
    assert store.list() == [] and store.disk_usage() == 0


async def test_an_archive_cannot_promise_other_content(store: ImageStore) -> None:
    name = f"docker.io/library/nginx@sha256:{'0' * 64}"
    for archive in (oci_layout(name, configuration(ROOTFS), ROOTFS), docker_save([name], ROOTFS)):
        with pytest.raises(Invalid, match="which has another digest"):
            await load(store, chunks(archive))
    assert store.list() == [] and store.disk_usage() == 0


async def test_a_configuration_is_read_as_docker_reads_it(store: ImageStore) -> None:
    probe = {"Test": ["CMD", "x"], "Interval": -3, "StartInterval": 10**9, "Retries": 0}
    given = {"Cmd": "ls", "Env": None, "Labels": {"a": None}, "Healthcheck": probe, "ArgsEscaped": True}
    (image,) = await load(store, chunks(docker_save(["demo:1"], ROOTFS, **given)))
    assert (image.config.cmd, image.config.env, image.config.labels) == (("ls",), (), {"a": ""})
    assert image.config.health == Health(test=("CMD", "x"), start_interval=1.0)


async def test_killed_in_the_middle_nothing_shows(tmp_path: Path) -> None:
    data = tar(*(entry(f"file{n}", b"x") for n in range(20_000)))
    file, root = tmp_path / "rootfs.tar", tmp_path / "images"
    file.write_bytes(data)
    program = (
        "import asyncio; from pathlib import Path; from swarmd.runtime.images.store import ImageStore\n"
        "from swarmd.runtime.images.making import import_rootfs\n"
        "async def content():\n"
        f"    yield Path({str(file)!r}).read_bytes()\n"
        "async def main():\n"
        f"    await import_rootfs(ImageStore(Path({str(root)!r})), content(), ['demo'])\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as importer:  # noqa: ASYNC220 (starts at once)
        deadline = time.monotonic() + 20
        while not list(root.glob("tmp/*/tree/file100")):
            assert time.monotonic() < deadline, f"never unpacking; last seen {list(root.glob('*/*'))[:9]}"
            await asyncio.sleep(0.001)
        importer.kill()
    again = ImageStore(root)
    again.sweep()
    await again.close()
    assert again.list() == []
    assert [list((root / part).iterdir()) for part in ("layers", "blobs/sha256", "tmp")] == [[], [], []]
