"""Builds for tests: a context of a few files, on a host's real engine."""

import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarmd.runtime.build.cache import Cache
from swarmd.runtime.build.request import Progress, Request
from swarmd.runtime.build.solver import Build
from swarmd.runtime.build.trees import Tree
from swarmd.runtime.build.workshop import Workshop
from swarmd.runtime.errors import NotFound
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Platform
from tests.host.engine_host import Host

Files = dict[str, bytes | str | None]


def packed(path: Path, files: Files, mtime: float = 1_000_000) -> Path:
    """bytes: a file; text: a link to it; None: a directory."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid, entry.mtime = 1000, 1000, mtime
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o750
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            else:
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content if isinstance(content, bytes) else b""))
    return path


@dataclass
class Builder:
    """said: what each build told, the last one's; it is emptied when one begins."""

    host: Host
    workshop: Workshop
    cache: Cache
    said: list[Progress] = field(default_factory=list)

    async def build(self, text: str, files: Files | None = None, **asked: Any) -> Image:
        self.said.clear()
        with self.workshop.place() as place:
            tar = packed(place / "context.tar", files or {})
            context: Tree = await self.workshop.index(tar, place, "the build context")
            request = Request(dockerfile=text, **asked)
            return await Build(self.workshop, self.cache, request, context, place, self.pull, self.said.append).run()

    async def pull(self, ref: str, platform: Platform, newest: bool) -> Image:
        raise NotFound(f"image {ref} is nowhere")

    def cached(self) -> list[str]:
        return [one.step.text for one in self.said if one.state == "cached"]

    def output(self) -> str:
        return b"".join(one.data for one in self.said if one.state == "output").decode()

    async def shows(self, image: Image, script: str, **config: Any) -> str:
        """What a container of an image writes."""
        ran = await self.host.run(script, image=image.id, **config)
        assert ran.exit.code == 0, ran
        return ran.out


@asynccontextmanager
async def builder_on(host: Host) -> AsyncIterator[Builder]:
    root = host.root / "data/builds"
    spawner = host.engine._host.spawner
    workshop = Workshop(root, host.root / "run/builds", host.engine.images, host.engine, spawner)
    cache = Cache(root)
    host.engine.images.keep(cache.needed)
    yield Builder(host, workshop, cache)
