"""Steps that others have made: an image can say by which keys its steps are found, and another host's build uses them.

The keys stand in the image's configuration, under "swarmd.build.steps"; for the other programs it is a name that they
do not know.  An image that is not here is looked up by its configuration alone: a layer comes when a step asks for it.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from swarmd.runtime.build.cache import Layer, Record
from swarmd.runtime.errors import Invalid, NotFound, RuntimeFault
from swarmd.runtime.images import arrivals
from swarmd.runtime.images.arrivals import Source
from swarmd.runtime.images.blobs import matches
from swarmd.runtime.images.image import Variant, check_layers
from swarmd.runtime.images.manifests import (
    Configuration,
    Descriptor,
    Index,
    Manifest,
    Platform,
    choose,
    is_index,
    parse,
)
from swarmd.runtime.images.store import ImageStore, Lease
from swarmd.runtime.model import Struct

# Where an image that is not here can be had: its registry, and its target there.
Look = Callable[[str], Awaitable[tuple[Source, Descriptor]]]


class Known(Struct, frozen=True, omit_defaults=True):
    """A step by its key; diff_id is empty for one that changed nothing; created in ns since the epoch."""

    key: str
    created: int
    description: str = ""
    diff_id: str = ""


class WithSteps(Configuration, frozen=True, omit_defaults=True, kw_only=True):
    """An image's configuration, and the steps that it was made by."""

    steps: tuple[Known, ...] = msgspec.field(default=(), name="swarmd.build.steps")


def told(document: Configuration, records: Iterable[Record], created: int | None) -> Configuration:
    """The configuration with those of a build's steps that can be had from its image.

    created: ns since the epoch, of all of them; None: as it was.
    """
    there = {"", *document.rootfs.diff_ids}
    steps = [
        Known(
            key=one.key,
            created=one.created if created is None else created,
            description=one.description,
            diff_id=one.layer.diff_id if one.layer else "",
        )
        for one in records
    ]
    return WithSteps(
        **msgspec.structs.asdict(document),
        steps=tuple(sorted((step for step in steps if step.diff_id in there), key=lambda step: step.key)),
    )


class Imported:
    """The steps of one image, which may be here (source None) or in a registry."""

    def __init__(
        self, name: str, steps: Iterable[Known], layers: Mapping[str, Descriptor], source: Source | None
    ) -> None:
        self._name, self._source, self._layers = name, source, layers
        self._steps = {step.key: step for step in steps}

    async def record(self, images: ImageStore, lease: Lease, key: str) -> Record | None:
        """A step, with its layer on this host. Raises RuntimeFault if that can't be had."""
        step = self._steps.get(key)
        if step is None:
            return None
        layer, size = None, 0
        if step.diff_id:
            descriptor = self._layers[step.diff_id]
            if self._source:
                # As a layer that is here already costs nothing, it is not looked for first.
                await arrivals.layer(
                    images, lease, self._source.blob, descriptor, step.diff_id, self._name, arrivals.silent
                )
            elif not (images.blobs.holds(descriptor) and images.layers.has(step.diff_id)):
                return None
            lease.blobs.add(descriptor.digest)
            lease.layers.add(step.diff_id)
            layer = Layer(descriptor=descriptor, diff_id=step.diff_id)
            size = descriptor.size + images.layers.size(step.diff_id)
        return Record(
            key=key, description=step.description, created=step.created, used=step.created, layer=layer, size=size
        )


async def steps_of(images: ImageStore, name: str, wanted: Platform, look: Look) -> Imported:
    """What an image tells of its steps. Raises NotFound or another RuntimeFault where there is no such image."""
    try:
        variant = images.get(name).of(wanted).variant
    except NotFound:
        return await _remote(name, wanted, look)
    return _here(images, name, variant)


def _here(images: ImageStore, name: str, variant: Variant) -> Imported:
    document = parse(images.blobs.read(variant.configuration.digest), WithSteps, name)
    return _imported(name, document, variant.blobs, None)


async def _remote(name: str, wanted: Platform, look: Look) -> Imported:
    source, target = await look(name)
    data = await _document(source, target, name)
    if is_index(target.media_type, data, name):
        target = choose(parse(data, Index, name).manifests, wanted, name)
        data = await _document(source, target, name)
    manifest = parse(data, Manifest, name)
    document = parse(await _document(source, manifest.config, name), WithSteps, name)
    check_layers(manifest, document, name)
    return _imported(name, document, manifest.layers, source)


async def _document(source: Source, descriptor: Descriptor, name: str) -> bytes:
    data = await source.document(descriptor)
    if not matches(data, descriptor.digest):
        raise Invalid(f"{name} is damaged: its description {descriptor.digest} came with other content")
    return data


def _imported(name: str, document: WithSteps, blobs: Iterable[Descriptor], source: Source | None) -> Imported:
    layers = dict(zip(document.rootfs.diff_ids, (blob.bare for blob in blobs), strict=True))
    steps = [step for step in document.steps if step.diff_id in layers or not step.diff_id]
    return Imported(name, steps, layers, source)


class Imports:
    """The images that a build may take steps of, in the order in which they are named."""

    def __init__(self, images: ImageStore, lease: Lease, found: list[Imported], warn: Callable[[str], None]) -> None:
        self._images, self._lease, self._found, self._warn = images, lease, found, warn

    async def record(self, key: str) -> Record | None:
        for one in self._found:
            try:
                if record := await one.record(self._images, self._lease, key):
                    return record
            except RuntimeFault as error:
                self._warn(f"a step of the cache can't be had, and is done anew: {error}")
        return None


async def imports(
    images: ImageStore, lease: Lease, names: Iterable[str], wanted: Platform, look: Look, warn: Callable[[str], None]
) -> Imports:
    """An image that is not there, or tells of no steps, is a warning: the build takes longer, that is all."""
    found = []
    for name in names:
        try:
            found.append(await steps_of(images, name, wanted, look))
        except RuntimeFault as error:
            warn(f"no steps of {name} can be used: {error}")
    return Imports(images, lease, found, warn)
