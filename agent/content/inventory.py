"""What this node holds, and what it is fetching, as managers are told it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from swarmd.proto.objects_pb2 import HeldImage, Holdings
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Descriptor
from swarmd.runtime.images.store import ImageStore

MOST = 2000  # images told, the newest: an object of the cluster's store has its limits
PACE = 0.02  # s, in which changes are one


class Inventory:
    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._coming: dict[str, HeldImage] = {}
        self._changed = asyncio.Event()

    @contextmanager
    def coming(self, target: Descriptor, name: str) -> Iterator[None]:
        """While an image is being fetched: others may fetch here what has come of it."""
        self._coming[target.digest] = HeldImage(
            digest=target.digest, media_type=target.media_type, target_size=target.size, names=[name], coming=True
        )
        self._changed.set()
        try:
            yield
        finally:
            self._coming.pop(target.digest, None)
            self._changed.set()

    def now(self) -> Holdings:
        newest = sorted(self._store.list(), key=lambda image: -image.updated)[:MOST]
        here = {image.id for image in newest}
        coming = [image for digest, image in self._coming.items() if digest not in here]
        return Holdings(images=[*map(held, newest), *coming])

    async def after(self, told: Holdings | None) -> Holdings:
        """What is held as soon as it is something else than what was told."""
        with self._store.watched(self._changed.set):
            while (now := self.now()) == told:
                await self._changed.wait()
                await asyncio.sleep(PACE)
                self._changed.clear()
            return now


def held(image: Image) -> HeldImage:
    return HeldImage(
        digest=image.id,
        media_type=image.target.media_type,
        target_size=image.target.size,
        names=image.refs,
        size=image.size,
        updated=image.updated,
    )
