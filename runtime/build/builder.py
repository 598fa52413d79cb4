"""The builder of one host: takes contexts in, runs builds, keeps and prunes what they have made."""

import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from swarmd.runtime.build import remotes
from swarmd.runtime.build.cache import Cache, Record
from swarmd.runtime.build.dockerfile import parse
from swarmd.runtime.build.imported import Look
from swarmd.runtime.build.named import NONE, Named
from swarmd.runtime.build.pruning import REGULAR, Kept, Limits, doomed
from swarmd.runtime.build.request import Pull, Report, Request
from swarmd.runtime.build.solver import Build
from swarmd.runtime.build.trees import Tree
from swarmd.runtime.build.workshop import Containers, Workshop
from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.arrivals import Chunks
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.room import room_on
from swarmd.runtime.images.store import ImageStore, in_thread
from swarmd.runtime.images.unpacking.compression import compression_of
from swarmd.runtime.model import Struct
from swarmd.runtime.spawner_client import Spawner

_LARGEST_DOCKERFILE = 1 << 20
_MOST_LINKS = 40


class Context(Struct, frozen=True):
    """What a build may copy from, in a directory of its own that also holds what it makes on the way."""

    tree: Tree
    place: Path
    named: Named = NONE

    def text(self, path: str) -> str:
        """A file of it: the Dockerfile. Raises Invalid."""
        entry, links = self.tree.entries.get(self.tree.resolved(path)), 0
        while entry is not None and entry.kind == "l" and links < _MOST_LINKS:
            above = "" if entry.link.startswith("/") else entry.path.rpartition("/")[0]
            entry, links = self.tree.entries.get(self.tree.resolved(f"{above}/{entry.link}")), links + 1
        if entry is None or entry.kind != "f":
            near = [name for name in self.tree.entries if name.lower().endswith("dockerfile")]
            hint = f": is it {near[0]}? Name it with -f" if near else ": name it with -f"
            raise Invalid(f"{self.tree.name} has no file {path}{hint}")
        if entry.size > _LARGEST_DOCKERFILE:
            raise Invalid(f"{path} has {entry.size} bytes: that is no Dockerfile")
        source = self.tree.source
        file = Path(source["tar"]) if "tar" in source else Path(source["layers"][0]) / entry.path
        with file.open("rb") as content:
            content.seek(entry.offset)
            data = content.read(entry.size)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise Invalid(f"{path} is not text in UTF-8") from None


class Builder:
    def __init__(self, root: Path, private: Path, images: ImageStore, containers: Containers, spawner: Spawner) -> None:
        """root: what is kept, on the file system of the images; private: a directory in memory, for secrets."""
        self.cache = Cache(root, images.holds)
        self._workshop = Workshop(root, private, images, containers, spawner)
        self._images = images
        images.keep(self.cache.needed)

    async def clean(self) -> None:
        """Remove what builds of a daemon before this one have left."""
        await self._workshop.clean()

    @asynccontextmanager
    async def context(self, content: Chunks) -> AsyncIterator[Context]:
        """Take in a tar, compressed or not; Invalid if it is none."""
        with self._workshop.place() as place:
            with room_on(self._images.root):
                tree = await self._workshop.receive(content, place, "the build context")
            yield Context(tree=tree, place=place)

    @asynccontextmanager
    async def remote_context(self, source: str) -> AsyncIterator[Context]:
        """A git repository, or what a URL has: a tar, or a Dockerfile by itself."""
        with self._workshop.place() as place:
            if remotes.is_git(source):
                directory = await remotes.clone(source, place)
                yield Context(tree=await self._workshop.tree([directory], [""], source), place=place)
                return
            found = await remotes.download(source, place)
            if await in_thread(lambda: _is_text(found.path)):
                holder = place / "written"
                holder.mkdir()
                found.path.rename(holder / "Dockerfile")
                yield Context(tree=await self._workshop.tree([holder], [""], source), place=place)
                return
            yield Context(tree=await self._workshop.index(found.path, place, source), place=place)

    async def build(
        self, request: Request, context: Context, pull: Pull, look: Look, report: Report
    ) -> tuple[Image, list[str]]:
        """Return the image, and the build arguments that nothing asked for. Raises what solver.Build.run raises."""
        build = Build(self._workshop, self.cache, request, context.tree, context.named, pull, look, report)
        image = await build.run()
        return image, build.unused()

    def check(self, text: str, file: str, context: Context) -> Sequence[str]:
        """What is doubtful in a Dockerfile. Raises DockerfileError for what is wrong in it."""
        return parse(text, file, context.tree.left_out).warnings

    def files(self, image: Image) -> AsyncIterator[bytes]:
        """A tar of an image's whole file system."""
        return self._workshop.export(image.layers)

    # ------------------------------------------------------------ the cache

    def records(self) -> Sequence[Record]:
        return self.cache.list()

    async def kept(self) -> Sequence[Kept]:
        """All that the cache has."""
        images = {diff_id for image in self._images.list() for diff_id in image.variant.diff_ids}
        records = [
            Kept(
                id=one.key,
                kind=REGULAR,
                description=one.description,
                created=one.created,
                used=one.used,
                uses=one.uses,
                size=one.size,
                shared=one.layer is not None and one.layer.diff_id in images,
            )
            for one in self.cache.list()
        ]
        return [*records, *await in_thread(lambda: list(self.cache.mounts()))]

    async def prune(self, wanted: Callable[[Kept], bool], limits: Limits) -> tuple[list[str], int]:
        """Forget what may go and does not fit, the longest unused first; return the ids and the bytes freed."""
        kept, before = await self.kept(), self._images.disk_usage()
        total = sum(one.freed for one in kept)
        stays = limits.stays(total, shutil.disk_usage(self._images.root).free)
        taken, of_mounts, gone = [], 0, []
        for one in doomed((one for one in kept if wanted(one) and not one.in_use), total, stays):
            if one.kind == REGULAR:
                self.cache.forget(one.id)
            elif (path := self.cache.forget_mount(one.id)) is not None:
                gone.append(path)
                of_mounts += one.size
            else:
                continue  # a step has just begun to use it
            taken.append(one.id)
        self._images.sweep()
        for path in gone:
            await in_thread(partial(shutil.rmtree, path, ignore_errors=True))
        return taken, of_mounts + before - self._images.disk_usage()


def _is_text(file: Path) -> bool:
    with file.open("rb") as content:
        start = content.read(4096)
    if compression_of(start) or start[257:262] == b"ustar":
        return False
    with contextlib.suppress(UnicodeDecodeError):
        start.decode()
        return True
    return False
