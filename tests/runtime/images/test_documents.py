"""Documents of images in which something else stands than should: refused, or an image that can be shown and saved."""

import copy
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.agent.api import image_json
from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.images.loading import load
from swarmd.runtime.images.saving import save
from swarmd.runtime.images.store import ImageStore
from tests.runtime.images.in_process import InProcess
from tests.runtime.images.tars import digest, entry, oci_layout, tar

LAYER = tar(entry("bin/sh", b"shell"))
ODD: tuple[Any, ...] = (None, -1, "x", [], {}, ["a"], {"a": 1})
CONFIGURATION: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2020-01-01T00:00:00Z",
    "config": {
        "Cmd": ["x"],
        "Env": ["A=b"],
        "Labels": {"a": "b"},
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000_000, "Retries": 3},
        "Volumes": {"/v": {}},
        "OnBuild": ["RUN x"],
        "User": "u",
    },
    "rootfs": {"type": "layers", "diff_ids": [digest(LAYER)]},
    "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "c", "empty_layer": False}],
}


def places(value: object, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*above, key)
        yield from places(below, (*above, key))


def replaced(place: tuple[Any, ...], odd: object) -> bytes:
    document = copy.deepcopy(CONFIGURATION)
    holder: Any = document
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = odd
    return json.dumps(document).encode()


async def chunks(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


@pytest.mark.parametrize("place", [*places(CONFIGURATION)], ids=lambda place: ".".join(map(str, place)))
async def test_no_configuration_makes_the_store_useless(tmp_path: Path, place: tuple[Any, ...]) -> None:
    store = ImageStore(tmp_path)
    store.workers = InProcess()
    for number, odd in enumerate(ODD):
        archive = oci_layout(f"docker.io/library/odd:{number}", replaced(place, odd), LAYER)
        try:
            (image,) = await load(store, chunks(archive))
        except RuntimeFault:
            continue
        for show in (image_json.inspection, image_json.history):
            assert json.dumps(show(store, image))
        assert json.dumps(image_json.summary(store, image, image.refs))
        assert [piece async for piece in save(store, [(image, image.refs)])]
    assert not store.damaged()
    for image in store.list():
        await store.remove(image.id, force=True)
    await store.close()
    assert store.disk_usage() == 0
