"""`load`: an image archive as a source of content: what `docker save` writes, and OCI image layouts in a tar.

The archive is a file by then, since its parts come in any order.  What an old `docker save` wrote has no manifest: one
is made, of the layers as they are.
"""

import asyncio
import os
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from msgspec import structs

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.arrivals import Chunks, Report, all_or_none, fetch, receive, silent
from swarmd.runtime.images.blobs import digest_of, matches
from swarmd.runtime.images.config import from_oci
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import (
    LARGEST,
    OCI_LAYER,
    Configuration,
    Descriptor,
    Index,
    Manifest,
    Platform,
    check_digest,
    choose,
    images_in,
    is_index,
    not_nested,
    parse,
    suits,
)
from swarmd.runtime.images.references import normalised
from swarmd.runtime.images.store import ImageStore, Lease, in_thread
from swarmd.runtime.images.unpacking.compression import compression_of, decompressed

_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_CHUNK = 1 << 20
_MAGIC = 8  # bytes that tell a compression

T = TypeVar("T")


class _Saved(TypedDict, total=False):
    Config: str
    RepoTags: list[str] | None
    Layers: list[str] | None


async def load(
    store: ImageStore, content: Chunks, wanted: Platform | None = None, report: Report = silent
) -> Sequence[Image]:
    """Add all images of an archive; all of them or, on an error, none.

    wanted: of images for several platforms only this one; None: all that the archive has.  Each is returned with the
    names that the archive gives it, and no others.
    """
    with _about_archive(), store.lease() as lease:
        async with _spooled(store, content) as file:
            archive = await in_thread(lambda: Archive(file))
            bring = _laid_out if archive.has("index.json") else _saved
            found = await bring(store, lease, archive, wanted, report)
            if not found:
                raise Invalid("the image archive holds no image")
            for target, refs in found:
                _check_names(target, refs)
            return [structs.replace(await store.name(target, refs), refs=refs) for target, refs in found]


def _check_names(target: Descriptor, refs: Sequence[str]) -> None:
    """A name with a digest is a promise of that content, whatever an archive says."""
    for ref in refs:
        if "@" in ref and ref.partition("@")[2] != target.digest:
            raise Invalid(f"the image archive gives {target.digest} the name {ref}, which has another digest")


@contextmanager
def _about_archive() -> Iterator[None]:
    """Have every refusal say what it is about."""
    try:
        yield
    except Invalid as error:
        if "archive" not in str(error):
            raise Invalid(f"the image archive can't be loaded: {error}") from None
        raise


@asynccontextmanager
async def _spooled(store: ImageStore, content: Chunks) -> AsyncIterator[Path]:
    """The archive as an uncompressed file, which is removed afterwards."""
    raw, plain = store.blobs.temporary(), store.blobs.temporary()
    try:
        with raw.open("wb") as out:
            async for chunk in content:
                await in_thread(partial(out.write, chunk))
        await in_thread(partial(_decompress, raw, plain))
        yield plain
    finally:
        raw.unlink(missing_ok=True)
        plain.unlink(missing_ok=True)


def _decompress(raw: Path, plain: Path) -> None:
    with raw.open("rb") as file:
        if not compression_of(file.read(_MAGIC)):
            raw.rename(plain)
            return
        file.seek(0)
        _, pieces = decompressed(file.read)
        with plain.open("wb") as out:
            for piece in pieces:
                out.write(piece)


class Archive:
    """The members of a tar file by their names; a source for arrivals.fetch."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            with tarfile.open(file, "r:") as tar:
                self._members = {_plain(member.name): member for member in tar}
        except tarfile.TarError as error:
            raise Invalid(f"this is not a complete tar archive: {error}") from None
        if not {"manifest.json", "index.json"} & self._members.keys():
            raise Invalid("this is no image archive: it has neither a manifest.json nor an index.json")

    def has(self, name: str) -> bool:
        return _plain(name) in self._members

    def size(self, name: str) -> int:
        return self._place(name)[1]

    def read(self, name: str) -> bytes:
        start, size = self._place(name)
        if size > LARGEST:
            raise Invalid(f"{name!r} in the image archive is too large to be a description of an image")
        with self._file.open("rb") as file:
            return os.pread(file.fileno(), size, start)

    async def chunks(self, name: str) -> Chunks:
        start, size = self._place(name)
        with self._file.open("rb") as file:
            while size:
                data = await asyncio.to_thread(os.pread, file.fileno(), min(size, _CHUNK), start)
                if not data:
                    raise Invalid(f"the image archive is cut off in {name!r}")
                start, size = start + len(data), size - len(data)
                yield data

    async def document(self, descriptor: Descriptor) -> bytes:
        return self.read(_blob(descriptor.digest))

    def blob(self, descriptor: Descriptor) -> Chunks:
        return self.chunks(_blob(descriptor.digest))

    def _place(self, name: str) -> tuple[int, int]:
        """Where a file's bytes are; a link in the archive is what it leads to."""
        member = self._members.get(_plain(name))
        for _ in range(8):
            if member is None or member.isreg():
                break
            above = _plain(name).rpartition("/")[0]
            target = f"{above}/{member.linkname}" if member.issym() else member.linkname
            member = self._members.get(os.path.normpath(target))
        if member is None or not member.isreg():
            raise Invalid(f"the image archive is incomplete: it has no file {name!r}")
        return member.offset_data, member.size


async def _saved(
    store: ImageStore, lease: Lease, archive: Archive, wanted: Platform | None, report: Report
) -> list[tuple[Descriptor, tuple[str, ...]]]:
    """The images of `manifest.json`, each for one platform."""
    found = []
    for entry in _json(archive, "manifest.json", list[_Saved]):
        refs = tuple(normalised(ref) for ref in entry.get("RepoTags") or ())
        found.append((await _described(store, lease, archive, entry, wanted, report), refs))
    return found


async def _described(
    store: ImageStore, lease: Lease, archive: Archive, entry: _Saved, wanted: Platform | None, report: Report
) -> Descriptor:
    name = entry.get("Config")
    if not name:
        raise Invalid("the image archive is damaged: an entry of its manifest.json has no 'Config'")
    data = archive.read(name)
    stem = name.rpartition("/")[2].removesuffix(".json")
    if len(stem) == 64 and not matches(data, f"sha256:{stem}"):
        raise Invalid(f"{name!r} in the image archive is {digest_of(data)}, not sha256:{stem}")
    config = parse(data, Configuration, f"{name!r} in the image archive")
    from_oci(config.config or {})
    if wanted and not suits(config.platform, wanted):
        raise Invalid(f"the image archive has no image for {wanted}: {name!r} is for {config.platform}")
    names = entry.get("Layers") or []
    if len(names) != len(config.rootfs.diff_ids):
        raise Invalid(f"the image archive lists {len(names)} layers, its configuration {len(config.rootfs.diff_ids)}")
    layers: list[Descriptor] = [Descriptor(digest=id, size=0) for id in config.rootfs.diff_ids]

    async def bring(number: int, member: str, diff_id: str) -> None:
        layers[number] = await _layer(store, lease, archive, member, diff_id)

    await all_or_none(
        [bring(n, member, id) for n, (member, id) in enumerate(zip(names, config.rootfs.diff_ids, strict=True))]
    )
    return await store.create(lease, data, layers)


async def _layer(store: ImageStore, lease: Lease, archive: Archive, member: str, diff_id: str) -> Descriptor:
    """A layer of which only the diff id is known."""
    lease.layers.add(diff_id)
    async with store.only_one(f"unpacked {diff_id}"):
        arrival = await receive(store, archive.chunks(member))
        lease.blobs.add(arrival.digest)
        try:
            if arrival.diff_id != diff_id:
                raise Invalid(
                    f"{member!r} in the image archive is {arrival.diff_id}, but its configuration says {diff_id}"
                )
            arrival.adopt(store)
        finally:
            await in_thread(arrival.remove)
    return Descriptor(media_type=OCI_LAYER + arrival.suffix, digest=arrival.digest, size=arrival.size)


async def _laid_out(
    store: ImageStore, lease: Lease, archive: Archive, wanted: Platform | None, report: Report
) -> list[tuple[Descriptor, tuple[str, ...]]]:
    """The images of an OCI image layout, with what platforms it has of each."""
    listed = _json(archive, "index.json", Index).manifests
    named = _names_of_saved(archive)
    found: dict[str, tuple[Descriptor, tuple[str, ...]]] = {}
    passed_over: list[str] = []
    for descriptor in listed:
        what = f"image {_named(descriptor)[0] if _named(descriptor) else descriptor.digest} in the archive"
        if len(listed) > 1 and descriptor.platform and wanted and not suits(descriptor.platform, wanted):
            passed_over.append(str(descriptor.platform))
            continue
        if descriptor.digest not in found:
            await _bring(store, lease, archive, descriptor, what, wanted, report)
        refs = found.get(descriptor.digest, (descriptor, ()))[1] + _named(descriptor)
        config = _config_of(archive, descriptor)
        found[descriptor.digest] = (descriptor.bare, tuple(dict.fromkeys((*refs, *named.get(config, ())))))
    if passed_over and not found:
        offered = ", ".join(dict.fromkeys(passed_over))
        raise Invalid(f"the image archive has no image for {wanted}: there are {offered}")
    return [*found.values()]


async def _bring(
    store: ImageStore,
    lease: Lease,
    archive: Archive,
    descriptor: Descriptor,
    what: str,
    wanted: Platform | None,
    report: Report,
) -> None:
    """Of an index, those of its images that the archive has, or the one that is wanted."""
    document = await archive.document(descriptor)
    if not is_index(descriptor.media_type, document, what):
        if wanted:
            config = await archive.document(parse(document, Manifest, what).config)
            offered = parse(config, Configuration, f"the configuration of {what}").platform
            if not suits(offered, wanted):
                raise Invalid(f"{what} is for {offered}, not for {wanted}")
        await fetch(store, lease, archive, descriptor, what, wanted, report)
        return
    listed = parse(await archive.document(descriptor), Index, what).manifests
    held = [one for one in images_in(listed) if archive.has(_blob(one.digest))]
    if not held:
        raise Invalid(f"{what} lists images, and the archive has none of them")
    lease.blobs.add(descriptor.digest)
    data = await archive.document(descriptor)
    if not matches(data, descriptor.digest):
        raise Invalid(f"{what} is damaged: its index {descriptor.digest} is {digest_of(data)}")
    await in_thread(lambda: store.blobs.write(data, descriptor.media_type))
    for one in [choose(held, wanted, what)] if wanted else held:
        if is_index(one.media_type, await archive.document(one), what):
            raise not_nested(what)
        await _bring(store, lease, archive, one, what, wanted, report)


def _names_of_saved(archive: Archive) -> dict[str, tuple[str, ...]]:
    """Names by the configuration's file: `docker save` writes bare tags into index.json, and whole names here."""
    if not archive.has("manifest.json"):
        return {}
    saved = _json(archive, "manifest.json", list[_Saved])
    return {_plain(e.get("Config") or ""): tuple(normalised(ref) for ref in e.get("RepoTags") or ()) for e in saved}


def _config_of(archive: Archive, descriptor: Descriptor) -> str:
    fields: dict[str, Any] = parse(archive.read(_blob(descriptor.digest)), dict[str, Any], descriptor.digest)
    config = fields.get("config")
    digest = config.get("digest") if isinstance(config, dict) else None
    return _blob(digest) if isinstance(digest, str) and ":" in digest else ""


def _json(archive: Archive, name: str, kind: type[T]) -> T:
    return parse(archive.read(name), kind, f"{name!r} in the image archive")


def _blob(digest: str) -> str:
    try:
        check_digest(digest)
    except ValueError as error:
        raise Invalid(f"the image archive is damaged: {error}") from None
    return f"blobs/{digest.replace(':', '/', 1)}"


def _plain(name: str) -> str:
    return name.removeprefix("./").rstrip("/")


def _named(descriptor: Descriptor) -> tuple[str, ...]:
    """The name an archive gives an image; a bare tag, as some tools write, is no name."""
    annotations = descriptor.annotations or {}
    name = next((annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)), "")
    return (normalised(name),) if "/" in name or ":" in name else ()
