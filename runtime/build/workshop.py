"""Where the steps of builds are performed: files are copied, programs run, and what changed becomes a layer.

    <root>/work/<name>/   what a step is writing, a context, a list; emptied when the workshop is opened

Nothing here decides what to do; see `solver.py`.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from swarmd.runtime.build.cache import Layer
from swarmd.runtime.build.merging import merge
from swarmd.runtime.build.snapshots import Snapshot
from swarmd.runtime.build.trees import Placed, Tree, read_list, write_list
from swarmd.runtime.changes import OURS
from swarmd.runtime.container_files import asked, export_layers
from swarmd.runtime.errors import Exhausted, Invalid
from swarmd.runtime.images.arrivals import Chunks, read_meanwhile
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import passing
from swarmd.runtime.images.manifests import OCI_LAYER_GZIP, Descriptor
from swarmd.runtime.images.store import ImageStore, Lease, in_thread
from swarmd.runtime.images.unpacking.jobs import Indexed
from swarmd.runtime.model import ContainerConfig, ContainerState, Exit, Health, LogConfig, LogEntry
from swarmd.runtime.sizes import tree_size
from swarmd.runtime.spawner_client import Spawner

BUILD = "swarmd.build"  # the annotation of a build's containers
_MOST_SAID, _MOST_LINES = 4 << 20, 100_000  # bytes and lines of a step that are told
_LARGEST_LOG = 64 << 20  # bytes; as JSON has them, all of these fit before the first is rotated away
_TAIL = 10  # lines

_Index = Callable[[AsyncIterator[int] | None], Coroutine[Any, Any, Indexed]]


class Containers(Protocol):
    """The part of the engine that runs steps."""

    async def create(self, config: ContainerConfig, name: str = "") -> str: ...
    async def start(self, id: str) -> None: ...
    async def wait(self, id: str) -> Exit: ...
    async def remove(self, id: str, force: bool = False) -> None: ...
    def list(self) -> Sequence[ContainerState]: ...
    def directory(self, id: str) -> Path: ...
    def logs(self, id: str, *, follow: bool = False, tail: int | None = None) -> AsyncGenerator[LogEntry, None]: ...


class Workshop:
    def __init__(self, root: Path, private: Path, images: ImageStore, containers: Containers, spawner: Spawner) -> None:
        """private: a directory in memory, for secrets while they are needed."""
        self.images, self.private = images, private
        shutil.rmtree(private, ignore_errors=True)
        private.mkdir(mode=0o700, parents=True)
        self._containers, self._spawner = containers, spawner
        self._work = root / "work"
        shutil.rmtree(self._work, ignore_errors=True)
        self._empty = self._work / "empty"
        self._empty.mkdir(parents=True)

    async def clean(self) -> None:
        """Remove what a daemon before this one was running."""
        for state in list(self._containers.list()):
            if BUILD in state.config.annotations:
                await self._containers.remove(state.id, force=True)

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        """A directory for what a build makes on the way."""
        path = self._work / secrets.token_hex(8)
        for name in ("upper", "work", "rootfs"):
            (path / name).mkdir(parents=True, mode=0o755)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    # ------------------------------------------------------------ looking

    async def receive(self, content: Chunks, place: Path, name: str) -> Tree:
        """The files of a tar, compressed or not, which is read while it comes."""
        file = place / "context"
        return await self._indexed(file, place, name, lambda index: read_meanwhile(content, file, index))

    async def index(self, tar: Path, place: Path, name: str) -> Tree:
        """The files of a tar that is here."""
        return await self._indexed(tar, place, name, lambda index: index(None))

    async def _indexed(self, tar: Path, place: Path, name: str, ask: Callable[[_Index], Awaitable[Indexed]]) -> Tree:
        plain, listed = place / "plain.tar", place / "index"
        try:
            found = await ask(partial(self.images.workers.index, tar, plain, listed))
        except Invalid as error:
            raise Invalid(f"{name}: {error}") from None
        return Tree(name, await in_thread(lambda: read_list(listed)), {"tar": str(plain if found.compression else tar)})

    async def tree(self, layers: Sequence[Path], paths: Sequence[str], name: str, *, follow: bool = False) -> Tree:
        """What is at and below some paths of layers, lowest first, or of one directory.

        follow: what is at a path that is a link is what it leads to.
        """
        source = self._source(layers)
        with self.place() as place:
            await self._ask("list", **source, paths=list(paths), follow=follow, list=str(place / "list"))
            return Tree(name, await in_thread(lambda: read_list(place / "list")), source)

    def _source(self, layers: Sequence[Path]) -> dict[str, Any]:
        return {"layers": [str(layer) for layer in reversed(layers)] or [str(self._empty)], "empty": str(self._empty)}

    async def _ask(self, action: str, **more: Any) -> None:
        try:
            await asked(self._spawner, {"op": "snapshot", "action": action, **more}, [])
        except Exhausted as error:
            raise Exhausted(
                f"{error}: free space on the disk of {self._work}, or remove images with `image prune`"
            ) from None

    async def export(self, layers: Sequence[Path]) -> AsyncIterator[bytes]:
        """A tar of all that layers have, lowest first, seen as one."""
        with self.place() as place:
            async for piece in export_layers(self._spawner, place, layers):
                yield piece

    # ------------------------------------------------------------ making

    async def copy(
        self, place: Path, base: Sequence[Path], tree: Tree | None, placed: Sequence[Placed], owner: str = ""
    ) -> None:
        """Make files in place/upper, as they are seen above the base's layers."""
        await in_thread(lambda: write_list(place / "apply", placed))
        await self._ask(
            "apply",
            **self._source(base),
            directory=str(place),
            source=dict(tree.source) if tree else {},
            owner=owner,
            list=str(place / "apply"),
        )

    async def merged(self, place: Path, layers: Sequence[Layer], keep: "Keep") -> Layer | None:
        """One layer that is what these are together."""
        for layer in layers:
            await in_thread(partial(merge, self.images.layers.tree(layer.diff_id), place / "upper"))
        return await keep(place / "upper")

    async def run(
        self, snapshot: Snapshot, config: ContainerConfig, heard: Callable[[LogEntry], None], keep: "Keep"
    ) -> tuple[Exit, Layer | None]:
        """Run a program on a snapshot; return how it ended, and with success the layer of what it changed."""
        layers = snapshot.paths(self.images.layers) or [self._empty]
        async with self.passing(snapshot.config, layers) as id:
            config = msgspec.structs.replace(
                config,
                image=id,
                annotations={**config.annotations, BUILD: "1"},
                health=Health(test=("NONE",)),  # the image's is for what it is to run in the end
                log=LogConfig(driver="json-file", max_size=_LARGEST_LOG, max_file=2),
            )
            container = await self._containers.create(config, f"build-{secrets.token_hex(6)}")
            try:
                await self._containers.start(container)
                clipped = await self._listen(container, heard)
                ended = await self._containers.wait(container)
                if clipped:
                    async for entry in self._containers.logs(container, tail=_TAIL):
                        heard(entry)
                if ended.code:
                    return ended, None
                upper = self._containers.directory(container) / "upper"
                await in_thread(lambda: remove_mount_points(upper, [m.target for m in config.mounts]))
                return ended, await keep(upper)
            finally:
                await asyncio.shield(self._containers.remove(container, force=True))

    async def _listen(self, container: str, heard: Callable[[LogEntry], None]) -> bool:
        """Whether a program has said more than is of use to anybody, of which the last is then told at its end."""
        size = lines = 0
        async with aclosing(self._containers.logs(container, follow=True)) as said:
            async for entry in said:
                size, lines = size + len(entry.data), lines + 1
                heard(entry)
                if size > _MOST_SAID or lines > _MOST_LINES:
                    why = "\n[this step says too much: the rest is left out, but for its last lines]\n"
                    heard(msgspec.structs.replace(entry, data=why.encode()))
                    return True
        return False

    @asynccontextmanager
    async def passing(self, config: ImageConfig, layers: Sequence[Path]) -> AsyncIterator[str]:
        """Give a snapshot an id that containers can be made from, for a while."""
        image = passing(config, layers)
        self.images.lend(image)
        try:
            yield image.id
        finally:
            self.images.take_back(image.id)


class Keep:
    """Makes layers of what steps have written. clamp: no file is newer than this, in s since the epoch."""

    def __init__(self, images: ImageStore, lease: Lease, clamp: int | None = None) -> None:
        self._images, self._lease, self._clamp = images, lease, clamp

    async def __call__(self, upper: Path) -> Layer | None:
        """Make a layer of an overlay's upper directory, which is moved away; None if there is nothing in it."""
        if not await in_thread(lambda: any(upper.iterdir())):
            return None
        images = self._images
        file = images.blobs.temporary()
        try:
            packed = await images.workers.pack(upper, file, clamp=self._clamp)
            self._lease.blobs.add(packed.digest)
            self._lease.layers.add(packed.diff_id)
            async with images.only_one(packed.digest), images.only_one(f"unpacked {packed.diff_id}"):
                if not images.layers.has(packed.diff_id):
                    await self._adopt(upper, file, packed.diff_id)
                if images.blobs.size(packed.digest) != packed.size:
                    images.blobs.adopt(file, packed.digest)
        finally:
            file.unlink(missing_ok=True)
        descriptor = Descriptor(media_type=OCI_LAYER_GZIP, digest=packed.digest, size=packed.size)
        return Layer(descriptor=descriptor, diff_id=packed.diff_id)

    async def _adopt(self, upper: Path, file: Path, diff_id: str) -> None:
        """The directory itself, unless the layer's times differ from it."""
        layers = self._images.layers
        making = layers.prepare()
        try:
            if self._clamp is None:
                await in_thread(lambda: _swap(upper, making / "tree"))
                size = await in_thread(lambda: tree_size(making / "tree"))
            else:
                size = (await self._images.workers.unpack(file, making / "tree", None)).files_size
            layers.describe(making, size)
            layers.adopt(making, diff_id)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise


def _swap(upper: Path, tree: Path) -> None:
    tree.rmdir()
    upper.rename(tree)


def remove_mount_points(upper: Path, targets: Sequence[str]) -> None:
    """Take away what was only made as places to mount on: empty, and in no layer below, else it would not be here."""
    inside = {os.path.normpath(f"/{target}").lstrip("/") for target in (*OURS, *targets)}  # whatever .. it has
    for target in sorted(inside - {""}, key=len, reverse=True):
        path = upper
        for part in target.strip("/").split("/")[:-1]:
            path = path / part
            if path.is_symlink() or not path.is_dir():
                break
        else:
            path = path / target.rpartition("/")[2]
            _remove_if_empty(path)
            while (path := path.parent) != upper and path.is_dir() and not any(path.iterdir()) and _is_fresh(path):
                path.rmdir()


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_symlink():
            return
        if path.is_dir():
            if _is_fresh(path):
                path.rmdir()
        elif path.is_file() and not path.stat().st_size and _is_fresh(path):
            path.unlink()


def _is_fresh(path: Path) -> bool:
    """Whether no layer below has it: overlayfs notes where it copied something from."""
    try:
        os.getxattr(path, "trusted.overlay.origin", follow_symlinks=False)
    except OSError:
        return True
    return False
