"""Ends a process at each step that a crash could part from the next, while it changes an image store.

MODE kill: the process alone ends.  MODE power: the host too; what was written and not flushed is empty, cut off or not
there then.  Every store is opened in a fork of this process, which has none.  `python -m
tests.runtime.images.crash_points MODE ROOT FIRST EVERY` goes on until the work ends by itself, and says how many steps
that were; or it ends with what was wrong after one of them.
"""

import asyncio
import gzip
import json
import os
import shutil
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from swarmd.runtime.build.cache import Cache, Layer
from swarmd.runtime.images import flushing
from swarmd.runtime.images.arrivals import fetch
from swarmd.runtime.images.loading import load
from swarmd.runtime.images.making import add_changes, import_rootfs
from swarmd.runtime.images.manifests import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, host_platform
from swarmd.runtime.images.mending import mend
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.stages import files
from tests.runtime.images.tars import configuration, digest, directory, docker_save, entry, tar

STEPS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
SHARED = tar(directory("bin"), entry("bin/sh", b"shell" * 1000, mode=0o755))
OWN = tar(entry("etc/motd", b"pulled" * 1000))
LOADED = tar(entry("etc/motd", b"loaded" * 1000))
IMPORTED = tar(entry("etc/motd", b"imported" * 1000))
LAYERS = {digest(layer): layer for layer in (SHARED, OWN, LOADED, IMPORTED)}
SECOND_BOOT = "a boot after that one"


class Registry:
    """A source of one image, of these layers."""

    def __init__(self, *plain: bytes) -> None:
        plain = plain or (SHARED, OWN)
        layers = [gzip.compress(layer, mtime=0) for layer in plain]
        config = configuration(*plain)
        described = [
            {"mediaType": f"{OCI_LAYER}+gzip", "digest": digest(layer), "size": len(layer)} for layer in layers
        ]
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "config": {"mediaType": OCI_CONFIG, "digest": digest(config), "size": len(config)},
                "layers": described,
            }
        ).encode()
        self.content = {digest(data): data for data in (config, manifest, *layers)}
        self.target = Descriptor(media_type=OCI_MANIFEST, digest=digest(manifest), size=len(manifest))

    async def document(self, descriptor: Descriptor) -> bytes:
        return self.content[descriptor.digest]

    async def blob(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        data = self.content[descriptor.digest]
        for start in range(0, len(data), 400):
            yield data[start : start + 400]


class Crash:
    """Ends this process at a step, counted from 0."""

    def __init__(self, mode: str, root: Path, after: int) -> None:
        self._mode, self._root, self._point, self._left = mode, root, after, after
        self._flushed: set[tuple[int, int]] = set()
        self._lock = threading.RLock()

    def arm(self) -> None:
        """What is there already was flushed long ago."""
        self._flushed |= self._files()
        sys.addaudithook(self._audit)
        fsync, flush = os.fsync, flushing.flush

        def synced(fd: int) -> None:
            self.step()
            fsync(fd)
            found = os.fstat(fd)
            self._flushed.add((found.st_dev, found.st_ino))

        def all_synced(directory: Path) -> None:
            self.step()
            flush(directory)
            self._flushed |= self._files()

        os.fsync, flushing.flush = synced, all_synced

    def _files(self) -> set[tuple[int, int]]:
        found = set()
        for above, _, names in os.walk(self._root):
            for name in names:
                status = Path(above, name).lstat()
                found.add((status.st_dev, status.st_ino))
        return found

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event in STEPS or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            self.step()

    def step(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == -1:
                if self._mode == "power":
                    self._lose()
                os._exit(9)

    def _lose(self) -> None:
        for above, _, names in os.walk(self._root):
            for name in names:
                path = Path(above, name)
                found = path.lstat()
                if (found.st_dev, found.st_ino) in self._flushed:
                    continue
                if self._point % 3 == 2:
                    path.unlink()
                else:
                    os.truncate(path, found.st_size // 2 if self._point % 3 else 0)


async def chunks(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


async def prepare(root: Path) -> None:
    store = ImageStore(root / "images")
    await load(store, chunks(docker_save(["old:1"], SHARED)))
    await store.close()


async def live(mode: str, root: Path, point: int, told: int) -> None:
    """Tell of each image that is there, as a client would hear of it."""
    store = ImageStore(root / "images")
    cache = Cache(root / "builds", store.holds)
    store.keep(cache.needed)
    Crash(mode, root, point).arm()
    registry = Registry()
    with store.lease() as lease:
        await fetch(store, lease, registry, registry.target, "pulled:1", host_platform())
        await store.name(registry.target, ("pulled:1",), lasting=False)
    os.write(told, b"p")
    await load(store, chunks(docker_save(["loaded:1"], SHARED, LOADED)))
    os.write(told, b"l")
    await import_rootfs(store, chunks(IMPORTED), ("imported:1",))
    os.write(told, b"i")
    await store.tag("pulled:1", "again:1")
    os.write(told, b"t")
    with store.lease() as lease:
        upper = root / "upper"
        upper.mkdir(exist_ok=True)
        (upper / "made").write_bytes(b"by a step" * 1000)
        layer, diff_id = await add_changes(store, lease, upper)
        cache.add("step", "RUN make", Layer(descriptor=layer, diff_id=diff_id), 0)
    await store.remove("loaded:1")
    os.write(told, b"r")
    store.sweep()
    cache.forget("step")
    store.sweep()
    await store.close()


def whole(store: ImageStore, blobs: set[str], layers: set[str]) -> None:
    for digest_ in blobs:
        data = store.blobs.path(digest_).read_bytes()
        assert digest(data) == digest_, f"blob {digest_} is damaged: {len(data)} bytes"
    for diff_id in layers:
        tree = store.layers.tree(diff_id)
        found = {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*") if p.is_file()}
        assert found == wanted_files(diff_id), f"layer {diff_id} has { ({k: len(v) for k, v in found.items()}) }"
        assert store.layers.size(diff_id) == sum(map(len, found.values())), f"layer {diff_id} says another size"


def wanted_files(diff_id: str) -> dict[str, bytes]:
    if diff_id not in LAYERS:
        return {"made": b"by a step" * 1000}
    return {
        digest(SHARED): {"bin/sh": b"shell" * 1000},
        digest(OWN): {"etc/motd": b"pulled" * 1000},
        digest(LOADED): {"etc/motd": b"loaded" * 1000},
        digest(IMPORTED): {"etc/motd": b"imported" * 1000},
    }[diff_id]


def legal(mode: str, done: int) -> tuple[set[str], set[str]]:
    """Names that must be there, and those that may, when this much was told and the next was under way.

    What can be pulled again, need not outlast a crash of the host at once.
    """
    after = [{"old"}, {"old", "pulled"}, {"old", "pulled", "loaded"}, {"old", "pulled", "loaded", "imported"}]
    after += [after[3] | {"again"}, {"old", "pulled", "imported", "again"}]
    here, coming = after[0 if mode == "power" and done == 1 else done], after[min(done + 1, 5)]
    return here & coming, here | coming


async def check(mode: str, root: Path, done: int) -> None:
    if mode == "power":
        files.boot_id = lambda: SECOND_BOOT
    store = ImageStore(root / "images")
    cache = Cache(root / "builds", store.holds)
    store.keep(cache.needed)
    await mend(store)
    names = {ref.removeprefix("docker.io/library/").removesuffix(":1") for image in store.list() for ref in image.refs}
    must, may = legal(mode, done)
    assert must <= names <= may, f"there are {sorted(names)}, not {sorted(must)} to {sorted(may)}"
    assert len(store._entries) == len(store.list()), "an image is listed and can't be used"
    store.sweep()
    await store.close()
    blobs, layers = {*store.blobs.digests()}, {*store.layers.diff_ids()}
    needed_blobs, needed_layers = set[str](), set[str]()
    for image in store.list():
        for variant in image.variants:
            needed_blobs |= {*variant.digests()}
            needed_layers |= {*variant.diff_ids}
    (lease,) = cache.needed()
    assert blobs == needed_blobs | lease.blobs, f"{blobs ^ (needed_blobs | lease.blobs)} is there or missing"
    assert layers == needed_layers | lease.layers, f"{layers ^ (needed_layers | lease.layers)} is there or missing"
    whole(store, blobs, layers)
    left = sorted(path.name for path in (root / "images/tmp").iterdir())
    assert not left, f"tmp has {left}"
    strange = sorted(path.name for path in (root / "builds/records").iterdir() if path.name != "step")
    assert not strange, f"records has {strange}"
    registry = Registry()
    with store.lease() as lease:
        await fetch(store, lease, registry, registry.target, "pulled:1", host_platform())
        image = await store.name(registry.target, ("pulled:1",))
    whole(store, {*image.variant.digests()}, {*image.variant.diff_ids})
    await store.close()


def forked(work: Callable[[], Coroutine[None, None, None]]) -> int:
    """Return the exit code of a process of its own that does it; 1 after it has said what was wrong."""
    pid = os.fork()
    if not pid:
        _work(work)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _work(work: Callable[[], Coroutine[None, None, None]]) -> NoReturn:
    code = 1
    try:
        asyncio.run(work())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    mode, root, point, every = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    before = root.with_name("before")
    before.mkdir()
    assert forked(partial(prepare, before)) == 0
    code = 9
    while code:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(before, root, symlinks=True)
        reader, told = os.pipe()
        code = forked(partial(live, mode, root, point, told))
        os.close(told)
        done = len(os.read(reader, 16))
        os.close(reader)
        said = f"point {point}, after it was told of {done} changes"
        assert code in (0, 9), f"{said}: the process ended with {code}"
        assert forked(partial(check, mode, root, done)) == 0, f"{said}: see above"
        point += every
    print(point - every)


if __name__ == "__main__":
    main()
