"""Steps that an image tells of: written into its configuration, read again, and refused where they are none."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from swarmd.runtime.build.cache import Layer, Record
from swarmd.runtime.build.imported import Imports, imports, told
from swarmd.runtime.errors import NotFound
from swarmd.runtime.images.arrivals import Chunks, Source
from swarmd.runtime.images.manifests import Configuration, Descriptor, Manifest, Platform, RootFS
from swarmd.runtime.images.store import ImageStore, Lease

HERE = Platform(os="linux", architecture="amd64")
LAYER = Layer(descriptor=Descriptor(digest=f"sha256:{'a' * 64}", size=9), diff_id=f"sha256:{'b' * 64}")
RECORDS = [
    Record(key="made", description="RUN make", created=7, used=8, layer=LAYER),
    Record(key="nothing", description="RUN true", created=7, used=8),
    Record(key="other", description="RUN", created=7, used=8, layer=msgspec.structs.replace(LAYER, diff_id="sha256:x")),
]
PLAIN = Configuration(architecture="amd64", os="linux", rootfs=RootFS(diff_ids=(LAYER.diff_id,)))


class Registry:
    """Has documents alone: a layer that is asked for can't be had."""

    def __init__(self, config: bytes, layers: int = 1) -> None:
        self._documents: dict[str, bytes] = {}
        manifest = Manifest(config=self._add(config), layers=(LAYER.descriptor,) * layers)
        self.target = self._add(msgspec.json.encode(manifest))

    def _add(self, data: bytes) -> Descriptor:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._documents[digest] = data
        return Descriptor(digest=digest, size=len(data))

    async def document(self, descriptor: Descriptor) -> bytes:
        return self._documents[descriptor.digest]

    def blob(self, descriptor: Descriptor) -> Chunks:
        raise NotFound(f"{descriptor.digest} is not there")

    def look(self) -> Callable[[str], Awaitable[tuple[Source, Descriptor]]]:
        async def look(name: str) -> tuple[Source, Descriptor]:
            return self, self.target

        return look


async def _imports(root: Path, registry: Registry, warned: list[str]) -> Imports:
    return await imports(ImageStore(root), Lease(), ["reg.example/a:1"], HERE, registry.look(), warned.append)


async def test_steps_that_the_image_has_are_told_and_found(tmp_path: Path) -> None:
    written = msgspec.json.encode(told(PLAIN, RECORDS, None))
    steps = msgspec.json.decode(written)["swarmd.build.steps"]
    assert [step["key"] for step in steps] == ["made", "nothing"]
    assert msgspec.json.decode(written, type=Configuration) == PLAIN  # for others it is as without
    assert {
        step["created"]
        for step in msgspec.json.decode(msgspec.json.encode(told(PLAIN, RECORDS, 5)))["swarmd.build.steps"]
    } == {5}
    warned: list[str] = []
    found = await _imports(tmp_path, Registry(written), warned)
    record = await found.record("nothing")
    assert record is not None and (record.description, record.created, record.layer) == ("RUN true", 7, None)
    assert await found.record("other") is None and not warned
    assert await found.record("made") is None
    assert len(warned) == 1 and "is not there" in warned[0] and "done anew" in warned[0]


@pytest.mark.parametrize(
    ("config", "layers", "why"),
    [
        (msgspec.json.encode({"rootfs": {"diff_ids": []}, "swarmd.build.steps": "all"}), 1, "swarmd.build.steps"),
        (msgspec.json.encode(told(PLAIN, RECORDS, None)), 2, "lists 2 layers"),
        (b"{", 1, "reg.example/a:1"),
    ],
)
async def test_an_image_that_is_damaged_is_a_warning(tmp_path: Path, config: bytes, layers: int, why: str) -> None:
    warned: list[str] = []
    found = await _imports(tmp_path, Registry(config, layers), warned)
    assert await found.record("made") is None
    assert len(warned) == 1 and warned[0].startswith("no steps of reg.example/a:1 can be used: ") and why in warned[0]
