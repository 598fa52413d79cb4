"""Trees go whatever their depth, and nothing that links in them lead to."""

import os
from pathlib import Path

from swarmd.runtime.images.unpacking.removal import empty, remove


def deep(top: Path, levels: int) -> None:
    place = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=place)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=place))
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)


def test_trees_deeper_than_a_stack_and_a_path_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    deep(top, 3000)
    remove(top)
    assert not top.exists()


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    outside.mkdir()
    (outside / "f").write_text("x")
    top.mkdir()
    (top / "link").symlink_to(outside)
    (top / "hard").hardlink_to(outside / "f")
    empty(top)
    assert not [*top.iterdir()]
    (tmp_path / "way").symlink_to(outside)
    remove(tmp_path / "way")
    remove(tmp_path / "none")
    assert (outside / "f").read_text() == "x"
