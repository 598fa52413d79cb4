"""Images of many layers: more than fit into mount options, and more than the kernel stacks at once."""

import os
from pathlib import Path

import pytest

from swarmd.runtime.errors import StartError
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import passing
from swarmd.runtime.model import Namespaces
from tests.host.engine_host import Host

pytestmark = pytest.mark.root


def many(host: Host, directory: Path, count: int) -> str:
    """An image of busybox and so many layers on it: each writes its number, hides the file of the one before."""
    base = host.engine.images.get("busybox")
    layers = [*base.layers]
    for number in range(count):
        tree = directory / f"{number:064d}" / "tree"  # as long as the store's own names
        tree.mkdir(parents=True)
        (tree / "number").write_text(str(number))
        (tree / f"file-{number}").touch()
        if number:
            os.mknod(tree / f"file-{number - 1}", 0o20000, os.makedev(0, 0))
        layers.append(tree)
    image = passing(ImageConfig(cmd=("sh",)), layers)
    host.engine.images.lend(image)
    return image.id


@pytest.mark.parametrize("count", [120, 700])
@pytest.mark.parametrize("user", ["", "auto"])
async def test_all_layers_are_seen_in_their_order(host: Host, tmp_path: Path, count: int, user: str) -> None:
    image = many(host, tmp_path / "layers", count)
    ran = await host.run("cat /number; ls -d /file-*; echo x > /new", image=image, namespaces=Namespaces(user=user))
    assert (ran.out, ran.err) == (f"{count - 1}/file-{count - 1}\n", "")
    host.engine.images.take_back(image)


@pytest.mark.parametrize("user", ["", "auto"])
async def test_a_layer_can_come_twice(host: Host, tmp_path: Path, user: str) -> None:
    base = host.engine.images.get("busybox").layers
    between = tmp_path / "between"
    (between / "bin").mkdir(parents=True)
    os.mknod(between / "bin/busybox", 0o20000, os.makedev(0, 0))
    image = passing(ImageConfig(cmd=("sh",)), [*base, between, between, *base])
    host.engine.images.lend(image)
    ran = await host.run("echo there; echo x > /new", image=image.id, namespaces=Namespaces(user=user))
    assert (ran.out, ran.err) == ("there\n", "")
    host.engine.images.take_back(image.id)


@pytest.mark.parametrize("user", ["", "auto"])
async def test_an_image_without_layers_has_no_program(host: Host, user: str) -> None:
    image = passing(ImageConfig(cmd=("sh",)), [])
    host.engine.images.lend(image)
    with pytest.raises(StartError, match=r"program: .*not found"):
        await host.start("true", image=image.id, namespaces=Namespaces(user=user))
    host.engine.images.take_back(image.id)


async def test_more_than_can_be_are_refused_in_a_sentence(host: Host, tmp_path: Path) -> None:
    image = many(host, tmp_path / "layers", 1000)
    with pytest.raises(Exception, match="can have 900 layers at most, and this has 1001"):
        await host.start("true", image=image)
    host.engine.images.take_back(image)
