"""Files of images that are being built: what a context holds, what is copied, and where it goes."""

import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from swarmd.runtime.build.trees import Choice, Tree, choose, digest
from swarmd.runtime.build.workshop import Workshop
from swarmd.runtime.errors import Invalid, RuntimeFault
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.spawner_client import Spawner

pytestmark = pytest.mark.root


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    spawner, images = Spawner(), ImageStore(tmp_path / "images")
    spawner.start()
    yield Workshop(tmp_path / "builds", tmp_path / "private", images, cast("Any", None), spawner)
    await images.workers.close()
    spawner.close()


def packed(directory: Path, files: dict[str, bytes | str | None]) -> Path:
    """bytes: a file; text: a link to it; None: a directory."""
    path = directory / "context.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid, entry.mtime = 1000, 1000, 1_000_000
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o750
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            else:
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content if isinstance(content, bytes) else b""))
    return path


FILES: dict[str, bytes | str | None] = {
    "app": None,
    "app/main.py": b"print()",
    "app/lib": None,
    "app/lib/a.so": b"a" * 3_000_000,
    "app/latest": "lib/a.so",
    "README": b"read",
}


async def copied(
    workshop: Workshop, tree: Tree, choice: Choice, place: Path, base: list[Path], owner: str = ""
) -> Path:
    await workshop.copy(place, base, tree, choose(tree, choice), owner)
    return place / "upper"


async def test_a_directorys_content_is_copied_as_roots(workshop: Workshop, tmp_path: Path) -> None:
    with workshop.place() as context, workshop.place() as place:
        tree = await workshop.index(packed(tmp_path, FILES), context, "the context")
        upper = await copied(workshop, tree, Choice(["app"], "/srv/"), place, [])
        assert (upper / "srv/main.py").read_bytes() == b"print()"
        assert (upper / "srv/lib/a.so").stat().st_size == 3_000_000
        assert (upper / "srv/latest").readlink() == Path("lib/a.so")
        found = (upper / "srv").stat()
        assert (found.st_uid, found.st_mode & 0o7777, found.st_mtime) == (0, 0o750, 1_000_000)


async def test_links_of_the_image_are_followed_inside_it(workshop: Workshop, tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "usr/lib").mkdir(parents=True)
    (base / "lib").symlink_to("usr/lib")
    (base / "out").symlink_to("../../../../../tmp")
    with workshop.place() as context, workshop.place() as place:
        tree = await workshop.index(packed(tmp_path, FILES), context, "the context")
        upper = await copied(workshop, tree, Choice(["README"], "/lib"), place, [base])
        assert (upper / "usr/lib/README").read_bytes() == b"read"
    with workshop.place() as place, pytest.raises(RuntimeFault, match="leads nowhere"):
        await copied(workshop, tree, Choice(["README"], "/out/"), place, [base])


async def test_owners_are_looked_up_in_the_image(workshop: Workshop, tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "etc").mkdir(parents=True)
    (base / "etc/passwd").write_text("app:x:77:88::/:/bin/sh\n")
    (base / "etc/group").write_text("app:x:88:\n")
    with workshop.place() as context, workshop.place() as place:
        tree = await workshop.index(packed(tmp_path, FILES), context, "the context")
        upper = await copied(workshop, tree, Choice(["README"], "/new/dir/", mode="u=rw,go="), place, [base], "app:app")
        for path, mode in ((upper / "new/dir/README", 0o600), (upper / "new/dir", 0o755)):
            found = path.stat()
            assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (77, 88, mode)
    with workshop.place() as place, pytest.raises(RuntimeFault, match="nobody-here"):
        await copied(workshop, tree, Choice(["README"], "/x"), place, [base], "nobody-here")


async def test_what_is_not_there_is_named_with_what_is_near(workshop: Workshop, tmp_path: Path) -> None:
    with workshop.place() as context:
        tree = await workshop.index(packed(tmp_path, FILES), context, "the build context")
    with pytest.raises(Invalid, match="'READM' is not in the build context: did you mean 'README'"):
        choose(tree, Choice(["READM"], "/"))


async def test_a_key_depends_on_content_and_not_on_times_or_order(workshop: Workshop, tmp_path: Path) -> None:
    choice = Choice(["app"], "/app")
    digests = []
    for files in (FILES, dict(reversed(FILES.items())), {**FILES, "app/main.py": b"print(1)"}):
        with workshop.place() as context:
            digests.append(digest(choose(await workshop.index(packed(tmp_path, files), context, "c"), choice)))
    assert digests[0] == digests[1] != digests[2]


async def test_files_of_layers_are_listed_as_they_are_seen_together(workshop: Workshop, tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    (low / "d").mkdir(parents=True)
    (low / "d/old").write_text("old")
    (low / "d/both").write_text("low")
    (high / "d").mkdir(parents=True)
    os.mknod(high / "d/old", 0o20000, 0)
    (high / "d/both").write_text("high")
    tree = await workshop.tree([low, high], ["d"], "stage build")
    assert [entry.path for entry in tree.entries.values()] == ["d", "d/both"]
    with workshop.place() as place:
        upper = await copied(workshop, tree, Choice(["d"], "/e", owned=True), place, [])
        assert (upper / "e/both").read_text() == "high"
