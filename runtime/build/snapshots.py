"""What a build has made so far: layers and a configuration, which the next step goes on from."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from swarmd.runtime.build.cache import Layer
from swarmd.runtime.images.config import ImageConfig, to_oci
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.layers import Layers
from swarmd.runtime.images.manifests import Configuration, HistoryEntry, Platform, RootFS
from swarmd.runtime.model import Struct

_NO_CONFIG = ImageConfig()


class Snapshot(Struct, frozen=True):
    """base: the image it began with, empty for scratch; history without times, which an image's creation adds."""

    platform: Platform
    base: str = ""
    layers: tuple[Layer, ...] = ()
    config: ImageConfig = _NO_CONFIG
    history: tuple[HistoryEntry, ...] = ()
    author: str = ""

    @property
    def chain(self) -> list[str]:
        """What its files are, whatever made them."""
        return [layer.diff_id for layer in self.layers]

    def paths(self, layers: Layers) -> list[Path]:
        """Ready for overlayfs, lowest first."""
        return [layers.tree(layer.diff_id) for layer in self.layers]

    def followed(self, created_by: str, layer: Layer | None = None, config: ImageConfig | None = None) -> "Snapshot":
        """After a step."""
        entry = HistoryEntry(created_by=created_by, comment="swarmd", empty_layer=layer is None)
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
        author=variant.document.author or "",
    )


def document(snapshot: Snapshot, created: str) -> bytes:
    """The configuration of an image of it; created: RFC 3339, of the image and of the steps of this build."""
    history: Sequence[HistoryEntry] = [
        entry if entry.created else msgspec.structs.replace(entry, created=created) for entry in snapshot.history
    ]
    value = Configuration(
        created=created,
        author=snapshot.author or None,
        architecture=snapshot.platform.architecture,
        os=snapshot.platform.os,
        variant=snapshot.platform.variant or None,
        config=to_oci(snapshot.config),
        rootfs=RootFS(diff_ids=tuple(snapshot.chain)),
        history=tuple(history),
    )
    return msgspec.json.encode(value)
