"""What the parts of a build know of one another: a stage of the build, sources and mounts of the stage."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from swarmd.runtime.build.cache import Cache, Layer, Record
from swarmd.runtime.build.dockerfile.instructions import Dockerfile, Stage
from swarmd.runtime.build.graph import Graph
from swarmd.runtime.build.named import Named
from swarmd.runtime.build.request import Request
from swarmd.runtime.build.snapshots import Snapshot
from swarmd.runtime.build.trees import Tree
from swarmd.runtime.build.workshop import Keep, Workshop
from swarmd.runtime.images.manifests import Platform
from swarmd.runtime.images.store import ImageStore


class AnyBuild(Protocol):
    """globals: variables of FROM lines; consumed: build arguments that were asked for."""

    workshop: Workshop
    images: ImageStore
    cache: Cache
    request: Request
    context: Tree
    named: Named
    dockerfile: Dockerfile
    globals: dict[str, str]
    consumed: set[str]
    epoch: int | None
    graph: Graph
    keep: Keep
    slots: asyncio.Semaphore

    def warn(self, sentence: str) -> None: ...
    def platform_of(self, stage: Stage) -> Platform: ...
    async def found(self, key: str) -> Record | None: ...
    def made(self, key: str, description: str, layer: Layer | None) -> Record: ...
    async def stage(self, index: int) -> Snapshot: ...
    async def base(self, ref: str, platform: Platform) -> Snapshot: ...


class AnyStage(Protocol):
    snapshot: Snapshot

    @property
    def build(self) -> AnyBuild: ...
    def word(self, text: str) -> str: ...
    def values(self) -> dict[str, str]: ...
    async def tree_of(self, name: str, paths: Sequence[str], *, follow: bool = True) -> Tree: ...
