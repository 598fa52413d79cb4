"""Image archives of any content are read or refused: what docker save writes, OCI layouts, layers cut off anywhere."""

import asyncio
import gzip
import io
import json
import shutil
import tarfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.images.loading import load
from swarmd.runtime.images.manifests import host_platform
from swarmd.runtime.images.store import ImageStore
from tests.fuzz.strategies import fuzz, json_values, mutated
from tests.runtime.images.in_process import InProcess

DIGEST = "sha256:" + "a" * 64
BLOB = "blobs/sha256/" + "a" * 64
SAVED = [{"Config": "c.json", "RepoTags": ["demo:latest"], "Layers": ["l/layer.tar"]}]
PLATFORM = {"os": "linux", "architecture": host_platform().architecture}
INDEX = {
    "schemaVersion": 2,
    "manifests": [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": DIGEST,
            "size": 3,
            "platform": PLATFORM,
            "annotations": {"io.containerd.image.name": "docker.io/library/demo:latest"},
        }
    ],
}
MANIFEST = {"schemaVersion": 2, "config": {"digest": DIGEST}, "layers": [{"digest": DIGEST}]}
NESTED = {"schemaVersion": 2, "manifests": [{"digest": DIGEST, "platform": PLATFORM}]}


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


async def whole(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


def images(data: bytes, directory: Path) -> None:
    """All of an archive is loaded or, with a reason, nothing."""

    async def loaded() -> None:
        store = ImageStore(directory / "images")
        store.workers = InProcess()
        try:
            for image in await load(store, whole(data)):
                assert store.get(image.id) == image
        except RuntimeFault:
            assert store.list() == []
        await store.close()

    asyncio.run(loaded())
    shutil.rmtree(directory / "images")


@fuzz
@given(mutated(SAVED) | json_values)
@example(5)
@example([5])
@example([{"Config": "c", "Layers": 5}])
@example([{"Config": "c", "Layers": [5]}])
@example([{"Config": "c", "RepoTags": [5]}])
def test_docker_save(tmp_path: Path, manifest: Any) -> None:
    images(packed({"manifest.json": json.dumps(manifest).encode()}), tmp_path)


@fuzz
@given(mutated(INDEX), mutated(MANIFEST))
@example({"manifests": [5]}, MANIFEST)
@example({"manifests": [{"platform": 5}]}, MANIFEST)
@example(INDEX, [])
@example(INDEX, {"layers": [5]})
@example(INDEX, NESTED)  # an index that holds itself
@example({"manifests": [{"annotations": {"io.containerd.image.name": 5}, "digest": DIGEST}]}, MANIFEST)
def test_oci_layouts(tmp_path: Path, index: Any, manifest: Any) -> None:
    images(packed({"index.json": json.dumps(index).encode(), BLOB: json.dumps(manifest).encode()}), tmp_path)


@fuzz
@given(st.binary(max_size=600), st.integers(0, 2000), st.integers(0, 2047), st.binary(max_size=3), st.booleans())
@example(b"", 0, 0, b"", True)
def test_layers_with_damage(tmp_path: Path, content: bytes, keep: int, at: int, put: bytes, zipped: bool) -> None:
    archive = bytearray(packed({"a/b": content, "c": b"hello"}))
    archive[at : at + len(put)] = put
    data = gzip.compress(bytes(archive), 1)[:keep] if zipped else bytes(archive[:keep])
    images(data, tmp_path)


@fuzz
@given(st.sampled_from([b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=80))
@example(b"BZh9", b"garbage" * 9)
def test_what_only_begins_like_a_compressed_file(tmp_path: Path, magic: bytes, rest: bytes) -> None:
    images(magic + rest, tmp_path)
