"""An image as the Engine API shows it: in a listing, inspected, its history, and the platforms that it is for."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from swarmd.agent.api.streams import stamp
from swarmd.runtime.images.config import to_oci
from swarmd.runtime.images.image import Image, Variant
from swarmd.runtime.images.manifests import Descriptor, HistoryEntry, Index, is_index, parse
from swarmd.runtime.images.references import Reference, familiar
from swarmd.runtime.images.store import ImageStore

_KIND = "vnd.docker.reference.type"  # annotations of what says something about another manifest
_ABOUT = "vnd.docker.reference.digest"
_ATTESTATION = "attestation-manifest"


def tags(refs: Iterable[str]) -> list[str]:
    return [familiar(ref) for ref in refs if "@" not in ref]


def digests(image: Image, refs: Iterable[str]) -> list[str]:
    """What a registry would call it, in each repository that it has a name in."""
    repositories = dict.fromkeys(Reference.parse(ref).repository for ref in refs)
    return [f"{familiar(repository)}@{image.id}" for repository in repositories]


def created(image: Image) -> int:
    """Seconds since the epoch; 0 where the image does not say, as in imports that come out the same on every host."""
    return _seconds(image.created)


def runs(image: Image, image_id: str) -> bool:
    """Whether a container that remembers this id is one of the image's."""
    return image_id == image.id or any(image_id == variant.manifest.digest for variant in image.variants)


def contents(store: ImageStore, image: Image) -> dict[str, int]:
    """All of the store's that it is made of, each once: bytes by digest of a blob or of an unpacked layer."""
    found = {image.id: image.target.size}
    for variant in image.variants:
        for descriptor in (variant.manifest, variant.configuration, *variant.blobs):
            found[descriptor.digest] = descriptor.size
        # A layer that is not compressed has the same digest in both its forms.
        found.update((f"unpacked {diff_id}", store.layers.size(diff_id)) for diff_id in variant.diff_ids)
    return found


def shared_sizes(store: ImageStore, images: Iterable[Image]) -> dict[str, int]:
    """Of each image, by its id, the bytes that other images need too."""
    all_contents = {image.id: contents(store, image) for image in images}
    users = Counter(digest for found in all_contents.values() for digest in found)
    return {id: sum(size for digest, size in found.items() if users[digest] > 1) for id, found in all_contents.items()}


def summary(store: ImageStore, image: Image, refs: Sequence[str], shared: int = -1) -> dict[str, Any]:
    """refs: those of its names to show; shared: bytes, -1 where they were not counted."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": tags(refs),
        "RepoDigests": digests(image, refs),
        "Created": created(image),
        "Size": sum(contents(store, image).values()),
        "SharedSize": shared,
        "Containers": -1,
        "Labels": dict(image.config.labels),
        "Descriptor": msgspec.to_builtins(image.target),
    }


def inspection(store: ImageStore, image: Image) -> dict[str, Any]:
    """Of its first variant, which is this host's unless another was asked for."""
    variant = image.variant
    document, history = variant.document, variant.document.history or ()
    shown = {
        "Id": image.id,
        "Descriptor": msgspec.to_builtins(image.target),
        "RepoTags": tags(image.refs),
        "RepoDigests": digests(image, image.refs),
        "Parent": "",
        "Comment": (history[-1].comment or "") if history else "",
        "DockerVersion": "",
        "Author": document.author or "",
        "Config": _config(image),
        "Architecture": variant.platform.architecture,
        "Os": variant.platform.os,
        "Size": sum(contents(store, image).values()),
        "GraphDriver": {"Name": "overlay2", "Data": _overlay(variant)},
        "RootFS": {"Type": document.rootfs.type, "Layers": list(variant.diff_ids)},
        "Metadata": {"LastTagTime": stamp(image.updated)},
    }
    given = {"Created": image.created, "Variant": variant.platform.variant, "OsVersion": variant.platform.os_version}
    return shown | {name: value for name, value in given.items() if value}


def _config(image: Image) -> dict[str, Any]:
    always: dict[str, Any] = {
        **{"User": "", "Env": [], "Entrypoint": None, "Cmd": None, "WorkingDir": "", "Labels": {}, "StopSignal": ""},
        "ExposedPorts": {},
    }
    return always | to_oci(image.config)


def _overlay(variant: Variant) -> dict[str, str]:
    """As Docker's driver has it: the topmost layer above all others."""
    if not variant.layers:
        return {}
    *lower, upper = map(str, variant.layers)
    return {"UpperDir": upper} | ({"LowerDir": ":".join(reversed(lower))} if lower else {})


def history(store: ImageStore, image: Image) -> list[dict[str, Any]]:
    """From the last step to the first; a layer of which the history says nothing is a step without words."""
    layers = iter(image.variant.diff_ids)
    rows = []
    for entry in image.variant.document.history or ():
        diff_id = None if entry.empty_layer else next(layers, None)
        rows.append(_step(entry, store.layers.size(diff_id) if diff_id else 0))
    rows += [_step(HistoryEntry(), store.layers.size(diff_id)) for diff_id in layers]
    rows.reverse()
    if rows:
        rows[0] |= {"Id": image.id, "Tags": tags(image.refs) or None}
    return rows


def _step(entry: HistoryEntry, size: int) -> dict[str, Any]:
    return {
        "Id": "<missing>",
        "Created": _seconds(entry.created or ""),
        "CreatedBy": entry.created_by or "",
        "Tags": None,
        "Size": size,
        "Comment": entry.comment or "",
    }


def manifests(store: ImageStore, image: Image, users: Mapping[str, Collection[str]]) -> list[dict[str, Any]]:
    """What its index lists, here or not. users: ids of containers by the digest of the manifest they run."""
    data = store.blobs.read(image.id)
    if not is_index(image.target.media_type, data, image.id):
        return [_manifest(store, image, image.target, users)]
    return [_manifest(store, image, listed, users) for listed in parse(data, Index, image.id).manifests]


def _manifest(
    store: ImageStore, image: Image, listed: Descriptor, users: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    notes = listed.annotations or {}
    variant = next((found for found in image.variants if found.manifest.digest == listed.digest), None)
    unpacked = sum(map(store.layers.size, dict.fromkeys(variant.diff_ids))) if variant else 0
    content = store.blobs.size(listed.digest)
    if variant:
        blobs = {blob.digest: blob.size for blob in (variant.manifest, variant.configuration, *variant.blobs)}
        content = sum(blobs.values())
    shown: dict[str, Any] = {
        "ID": listed.digest,
        "Descriptor": msgspec.to_builtins(listed),
        "Available": variant is not None,
        "Size": {"Content": content, "Total": content + unpacked},
        "Kind": "attestation" if notes.get(_KIND) == _ATTESTATION else "image",
    }
    if shown["Kind"] == "attestation":
        return shown | {"AttestationData": {"For": notes.get(_ABOUT, "")}}
    platform = variant.platform if variant else listed.platform
    data = {
        "Platform": msgspec.to_builtins(platform) if platform else {"os": "", "architecture": ""},
        "Containers": list(users.get(listed.digest, ())),
        "Size": {"Unpacked": unpacked},
    }
    return shown | {"ImageData": data}


def _seconds(text: str) -> int:
    """Of RFC 3339; other times than those are as good as none."""
    try:
        when = datetime.fromisoformat(text) if text else None
    except ValueError:
        return 0
    return max(0, int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())) if when else 0
