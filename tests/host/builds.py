"""Builds for tests: a context of a few files, on a host's real engine."""

import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarmd.runtime.build.request import Progress, Request
from swarmd.runtime.errors import NotFound
from swarmd.runtime.images.arrivals import Source
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Descriptor, Platform
from tests.host.engine_host import Host, chunks

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
class Builds:
    """said: what the last build told."""

    host: Host
    said: list[Progress] = field(default_factory=list)

    async def build(self, text: str, files: Files | None = None, **asked: Any) -> Image:
        self.said.clear()
        tar = packed(self.host.root / f"context-{id(self)}.tar", files or {})
        builder = self.host.engine.builder
        async with builder.context(chunks(tar.read_bytes())) as context:
            image, _ = await builder.build(Request(dockerfile=text, **asked), context, pull, look, self.said.append)
        tar.unlink()
        return image

    def cached(self) -> list[str]:
        return [one.step.text for one in self.said if one.state == "cached"]

    def output(self) -> str:
        return b"".join(one.data for one in self.said if one.state == "output").decode()

    async def shows(self, image: Image, script: str, **config: Any) -> str:
        """What a container of an image writes."""
        ran = await self.host.run(script, image=image.id, **config)
        assert ran.exit.code == 0, ran
        return ran.out


async def look(ref: str) -> tuple[Source, Descriptor]:
    raise NotFound(f"image {ref} is nowhere")


async def pull(ref: str, platform: Platform, newest: bool) -> Image:
    raise NotFound(f"image {ref} is nowhere")
