"""Reads image archives: what `docker save` writes, and OCI image layouts in a tar.

Nothing here writes into the store: a bundle only says which images an archive holds, and gives the bytes of their
parts.  Digests that the archive names are checked by the store as it copies.
"""

import platform
import tarfile
from collections.abc import Iterator
from typing import IO, Any, TypedDict, TypeVar

import msgspec

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.references import normalised
from swarmd.runtime.model import Struct

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MOST_METADATA = 16 << 20
_DEEPEST = 3  # indexes within indexes

T = TypeVar("T")


class _Descriptor(TypedDict, total=False):
    mediaType: str
    digest: str
    platform: dict[str, Any] | None
    annotations: dict[str, str] | None


class _Manifest(TypedDict, total=False):
    """Of an image or, with `manifests`, an index."""

    manifests: list[_Descriptor] | None
    config: _Descriptor | None
    layers: list[_Descriptor] | None


class _Saved(TypedDict, total=False):
    Config: str
    RepoTags: list[str] | None
    Layers: list[str] | None


def architecture() -> str:
    """This host's, in the words of OCI."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


class Part(Struct, frozen=True):
    """A blob by its name in the archive. digest: what it has to be, empty when the archive does not say."""

    member: str
    digest: str = ""


class Found(Struct, frozen=True):
    config: Part
    layers: tuple[Part, ...]
    refs: tuple[str, ...]


class Bundle:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        try:
            self._members = {_plain(member.name): member for member in tar}
        except tarfile.TarError as error:
            raise Invalid(f"this is not a complete tar archive: {error}") from None

    def open(self, name: str) -> IO[bytes]:
        member = self._members.get(_plain(name))
        try:
            content = self._tar.extractfile(member) if member else None
        except KeyError:
            content = None
        if content is None:
            raise Invalid(f"the image archive is incomplete: it has no file {name!r}")
        return content

    def read(self, name: str) -> bytes:
        with self.open(name) as content:
            data = content.read(_MOST_METADATA + 1)
        if len(data) > _MOST_METADATA:
            raise Invalid(f"{name!r} in the image archive is too large to be a description of an image")
        return data

    def images(self) -> list[Found]:
        """All images for this host's platform; Invalid if it is no image archive."""
        if "manifest.json" in self._members:
            found = [self._saved(entry) for entry in self._json("manifest.json", list[_Saved])]
        elif "index.json" in self._members:
            found = list(self._laid_out(self._json("index.json", _Manifest)))
        else:
            raise Invalid("this is no image archive: it has neither a manifest.json nor an index.json")
        if not found:
            raise Invalid(f"the image archive has no image for linux/{architecture()}")
        return found

    def _saved(self, entry: _Saved) -> Found:
        config = _needed(entry.get("Config"), "Config")
        stem = config.removeprefix("blobs/sha256/").removesuffix(".json")
        return Found(
            config=Part(member=config, digest=f"sha256:{stem}" if len(stem) == 64 else ""),
            layers=tuple(Part(member=layer) for layer in entry.get("Layers") or ()),
            refs=tuple(normalised(ref) for ref in entry.get("RepoTags") or ()),
        )

    def _laid_out(self, index: _Manifest, refs: tuple[str, ...] = (), depth: int = 0) -> Iterator[Found]:
        if depth > _DEEPEST:
            raise Invalid(f"the image archive is damaged: its indexes are more than {_DEEPEST} deep")
        for descriptor in index.get("manifests") or ():
            wanted = descriptor.get("platform") or {"os": "linux", "architecture": architecture()}
            if (wanted.get("os"), wanted.get("architecture")) != ("linux", architecture()):
                continue
            named = _named(descriptor) or refs
            manifest = self._json(_blob(descriptor).member, _Manifest)
            if descriptor.get("mediaType") in _INDEXES or "manifests" in manifest:
                yield from self._laid_out(manifest, named, depth + 1)
            else:
                layers = tuple(_blob(layer) for layer in manifest.get("layers") or ())
                yield Found(config=_blob(manifest.get("config") or {}), layers=layers, refs=named)

    def _json(self, name: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(self.read(name), type=kind)
        except msgspec.ValidationError as error:
            raise Invalid(f"{name!r} in the image archive is malformed: {error}") from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise Invalid(f"{name!r} in the image archive is not JSON: {error}") from None


def _plain(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


def _needed(value: str | None, key: str) -> str:
    if value is None:
        raise Invalid(f"the image archive is damaged: an entry has no {key!r}")
    return value


def _blob(descriptor: _Descriptor) -> Part:
    digest = _needed(descriptor.get("digest"), "digest")
    algorithm, _, hexadecimal = digest.partition(":")
    if algorithm != "sha256":
        raise Invalid(f"digests of the kind {algorithm!r} can't be checked: only sha256")
    return Part(member=f"blobs/sha256/{hexadecimal}", digest=digest)


def _named(descriptor: _Descriptor) -> tuple[str, ...]:
    """The name an archive gives an image; a bare tag, as some tools write, is no name."""
    annotations = descriptor.get("annotations") or {}
    name = next((annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)), "")
    return (normalised(name),) if "/" in name or ":" in name else ()
