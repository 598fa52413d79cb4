"""What a build has made so far: layers and a configuration, which the next step goes on from."""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from swarmd.runtime.build.cache import Layer, Record
from swarmd.runtime.build.imported import told
from swarmd.runtime.images.config import ImageConfig, to_oci
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.layers import Layers
from swarmd.runtime.images.manifests import Configuration, HistoryEntry, Platform, RootFS
from swarmd.runtime.model import Struct

_NO_CONFIG = ImageConfig()


class Snapshot(Struct, frozen=True):
    """base: the image it began with, empty for scratch; inherited: how much of the history is that image's.

    args: build arguments by name, which a stage that goes on from this one has too; no part of an image.
    """

    platform: Platform
    base: str = ""
    layers: tuple[Layer, ...] = ()
    config: ImageConfig = _NO_CONFIG
    history: tuple[HistoryEntry, ...] = ()
    inherited: int = 0
    author: str = ""
    args: tuple[tuple[str, str], ...] = ()

    @property
    def created(self) -> str:
        """When its content came to be, RFC 3339: that of a build that finds all in the cache is the first one's."""
        return next((entry.created for entry in reversed(self.history) if entry.created), "")

    @property
    def chain(self) -> list[str]:
        """What its files are, whatever made them."""
        return [layer.diff_id for layer in self.layers]

    def paths(self, layers: Layers) -> list[Path]:
        """Ready for overlayfs, lowest first."""
        return [layers.tree(layer.diff_id) for layer in self.layers]

    def followed(
        self, created_by: str, layer: Layer | None = None, config: ImageConfig | None = None, created: str = ""
    ) -> "Snapshot":
        """After a step. created: RFC 3339; empty for a step that only describes, which takes no time."""
        entry = HistoryEntry(
            created=created or self.created or None,
            created_by=created_by,
            comment="swarmd",
            empty_layer=layer is None,
        )
        return msgspec.structs.replace(
            self,
            layers=(*self.layers, layer) if layer else self.layers,
            config=config or self.config,
            history=(*self.history, entry),
        )


def of_image(image: Image) -> Snapshot:
    variant = image.variant
    pairs = zip(variant.blobs, variant.diff_ids, strict=True)
    return Snapshot(
        platform=variant.platform,
        base=image.id,
        layers=tuple(Layer(descriptor=blob.bare, diff_id=diff_id) for blob, diff_id in pairs),
        config=image.config,
        history=variant.document.history or (),
        inherited=len(variant.document.history or ()),
        author=variant.document.author or "",
    )


def document(snapshot: Snapshot, epoch: int | None, steps: Iterable[Record] | None = None) -> bytes:
    """The configuration of an image of it.

    epoch: when all that this build has added came to be, s since the epoch; steps: those that it is to tell of.
    """
    own: Sequence[HistoryEntry] = snapshot.history[snapshot.inherited :]
    created = snapshot.created or timestamp(time.time_ns())
    if epoch is not None:
        created = timestamp(epoch * 10**9)
        own = [msgspec.structs.replace(entry, created=created) for entry in own]
    value = Configuration(
        created=created,
        author=snapshot.author or None,
        architecture=snapshot.platform.architecture,
        os=snapshot.platform.os,
        variant=snapshot.platform.variant or None,
        config=to_oci(snapshot.config),
        rootfs=RootFS(diff_ids=tuple(snapshot.chain)),
        history=(*snapshot.history[: snapshot.inherited], *own),
    )
    if steps is not None:
        value = told(value, steps, None if epoch is None else epoch * 10**9)
    return msgspec.json.encode(value)


def timestamp(ns: int) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(ns / 10**9, UTC).isoformat().replace("+00:00", "Z")
