"""An image as the store has it: read from its documents, never from memory of how it came."""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from swarmd.runtime.errors import Invalid, NotFound
from swarmd.runtime.images.blobs import Blobs
from swarmd.runtime.images.config import ImageConfig, from_oci
from swarmd.runtime.images.layers import Layers
from swarmd.runtime.images.manifests import (
    Configuration,
    Descriptor,
    Index,
    Manifest,
    Platform,
    RootFS,
    host_platform,
    is_index,
    parse,
    suits,
)
from swarmd.runtime.images.names import Entry
from swarmd.runtime.images.references import familiar
from swarmd.runtime.model import Struct


class Variant(Struct, frozen=True):
    """One platform's image."""

    manifest: Descriptor
    configuration: Descriptor
    document: Configuration
    blobs: tuple[Descriptor, ...]  # the layers as they are transferred, lowest first
    layers: tuple[Path, ...]  # the same, ready for overlayfs
    size: int  # bytes on the disk: documents, blobs and files

    @property
    def platform(self) -> Platform:
        return self.document.platform

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return self.document.rootfs.diff_ids

    def digests(self) -> Iterator[str]:
        yield from (self.manifest.digest, self.configuration.digest, *(blob.digest for blob in self.blobs))


class Image(Struct, frozen=True):
    """id is the digest of its target, the manifest or index that its names stand for: what a registry calls it too."""

    id: str
    target: Descriptor
    refs: tuple[str, ...]  # full names
    updated: int  # ns since the epoch, when it last came or got a name
    variants: tuple[Variant, ...]  # those that are here, the one for this host first
    config: ImageConfig  # of the first, as are the following
    layers: tuple[Path, ...]
    created: str = ""  # RFC 3339, as the image says; empty if it does not

    @property
    def variant(self) -> Variant:
        return self.variants[0]

    @property
    def size(self) -> int:
        return sum(variant.size for variant in self.variants)

    @property
    def architecture(self) -> str:
        return self.variant.platform.architecture

    def of(self, wanted: Platform) -> "Image":
        """The same image with a platform's variant first; NotFound, with what there is, if that one is not here."""
        best = max(self.variants, key=lambda variant: suits(variant.platform, wanted))
        if not suits(best.platform, wanted):
            there = ", ".join(str(variant.platform) for variant in self.variants)
            raise NotFound(
                f"image {self.shown} is not on this node for {wanted}, but for {there}: pull it with --platform"
            )
        others = tuple(variant for variant in self.variants if variant is not best)
        return _image(self.id, self.target, self.refs, self.updated, (best, *others))

    @property
    def shown(self) -> str:
        return familiar(self.refs[0]) if self.refs else self.id[7:19]


def passing(config: ImageConfig, layers: Sequence[Path]) -> Image:
    """One that is no image of the store, for ImageStore.lend: layers, lowest first, and what to run on them."""
    target = Descriptor(digest=f"sha256:{secrets.token_hex(32)}", size=0)
    document = Configuration(architecture=host_platform().architecture, os="linux", rootfs=RootFS())
    variant = Variant(manifest=target, configuration=target, document=document, blobs=(), layers=tuple(layers), size=0)
    return Image(
        id=target.digest, target=target, refs=(), updated=0, variants=(variant,), config=config, layers=variant.layers
    )


def read(blobs: Blobs, layers: Layers, entry: Entry) -> Image:
    """Raises NotFound or Invalid where content that the entry stands for is gone, or as its size shows damaged."""
    target = entry.target
    data = blobs.read(target.digest)
    if is_index(target.media_type, data, target.digest):
        manifests = parse(data, Index, target.digest).manifests
        found = [_variant(blobs, layers, one) for one in manifests if is_here(blobs, layers, one)]
    else:
        found = [_variant(blobs, layers, target)]
    if not found:
        raise NotFound(f"none of the images that {target.digest} lists are on this node")
    found.sort(key=lambda variant: -suits(variant.platform, host_platform()))
    return _image(target.digest, target, entry.refs, entry.updated, tuple(found))


def _image(id: str, target: Descriptor, refs: tuple[str, ...], updated: int, variants: tuple[Variant, ...]) -> Image:
    first = variants[0]
    return Image(
        id=id,
        target=target,
        refs=refs,
        updated=updated,
        variants=variants,
        config=from_oci(first.document.config or {}),
        layers=first.layers,
        created=first.document.created or "",
    )


def is_here(blobs: Blobs, layers: Layers, manifest: Descriptor) -> bool:
    """Whether a manifest, its configuration, its blobs and its unpacked layers are all on this node."""
    try:
        _variant(blobs, layers, manifest)
    except (NotFound, Invalid):
        return False
    return True


def configuration(blobs: Blobs, digest: str) -> Configuration:
    return parse(blobs.read(digest), Configuration, f"image configuration {digest}")


def _variant(blobs: Blobs, layers: Layers, manifest: Descriptor) -> Variant:
    document = parse(blobs.read(manifest.digest), Manifest, manifest.digest)
    config = configuration(blobs, document.config.digest)
    check_layers(document, config, manifest.digest)
    if lost := [layer.digest for layer in document.layers if not blobs.holds(layer)]:
        raise NotFound(f"its content {lost[0]} is gone or cut off")
    if lost := [diff_id for diff_id in config.rootfs.diff_ids if not layers.has(diff_id)]:
        raise NotFound(f"the files of its layer {lost[0]} are gone")
    sizes = [manifest.size, document.config.size, *(layer.size for layer in document.layers)]
    return Variant(
        manifest=manifest.bare,
        configuration=document.config,
        document=config,
        blobs=document.layers,
        layers=tuple(map(layers.tree, config.rootfs.diff_ids)),
        size=sum(sizes) + sum(map(layers.size, config.rootfs.diff_ids)),
    )


def check_layers(manifest: Manifest, config: Configuration, what: str) -> None:
    listed, described = len(manifest.layers), len(config.rootfs.diff_ids)
    if listed != described:
        raise Invalid(f"image {what} lists {listed} layers, its configuration {described}")


def digests_of(blobs: Blobs, target: Descriptor) -> tuple[set[str], set[str]]:
    """The digests of all that a target needs: of blobs, and diff ids of layers.

    Raises NotFound or Invalid where a document is gone or damaged, so that nobody knows.
    """
    needed, unpacked = {target.digest}, set[str]()
    data = blobs.read(target.digest)
    if is_index(target.media_type, data, target.digest):
        for manifest in parse(data, Index, target.digest).manifests:
            if blobs.has(manifest.digest):  # of other platforms' images there is none
                below = digests_of(blobs, manifest)
                needed, unpacked = needed | below[0], unpacked | below[1]
        return needed | {one.digest for one in parse(data, Index, target.digest).manifests}, unpacked
    document = parse(data, Manifest, target.digest)
    needed |= {document.config.digest, *(layer.digest for layer in document.layers)}
    described = blobs.read(document.config.digest)
    with contextlib.suppress(Invalid):  # an artefact that is no image has no layers to unpack
        unpacked |= {*parse(described, Configuration, document.config.digest).rootfs.diff_ids}
    return needed, unpacked
