"""The images of one host: an OCI image layout, plus every layer unpacked once.

    index.json, oci-layout   which images there are and what they are called (replaced whole, by rename)
    blobs/sha256/            manifests, configurations and layers as they came
    layers/<hex of diff id>  layers ready for overlayfs
    tmp/                     what is being made; emptied on start

An image exists from the moment index.json names it, which is the last step: killed before, nothing shows.  Ids are
digests of configurations, so equal content has one id on every host.  Additions and removals wait for each other;
the work is done in threads.
"""

import asyncio
import shutil
import tarfile
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from swarmd.runtime.errors import Conflict, Invalid, NotFound
from swarmd.runtime.images import archive
from swarmd.runtime.images.blobs import Blobs, Descriptor, digest_of, hexadecimal, write_atomically
from swarmd.runtime.images.bundle import Bundle, Found, Part, architecture
from swarmd.runtime.images.config import ImageConfig, from_oci, to_oci
from swarmd.runtime.images.references import normalised
from swarmd.runtime.model import Struct

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_REF = "io.containerd.image.name"
_UNPACKED_SIZE = "swarmd.unpacked-size"
_SHORTEST_ID = 4
_NO_CONFIG = ImageConfig()

R = TypeVar("R")


class Image(Struct, frozen=True):
    id: str  # sha256:...
    manifest: Descriptor
    refs: tuple[str, ...]  # full names
    config: ImageConfig
    layers: tuple[Path, ...]  # unpacked, lowest first
    size: int  # of the layers, uncompressed
    created: str = ""  # RFC 3339, as the image says; empty if it does not
    architecture: str = ""


class ImageStore:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._layers, self._tmp = root / "layers", root / "tmp"
        self._blobs = Blobs(root)
        shutil.rmtree(self._tmp, ignore_errors=True)
        for directory in (self._layers, self._tmp):
            directory.mkdir(parents=True, exist_ok=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self._changing = asyncio.Lock()
        self._images: dict[str, Image] = self._read_index()
        self._prune()

    def get(self, ref: str) -> Image:
        """By name, id, or the beginning of an id; NotFound naming it."""
        try:
            name = normalised(ref)
        except Invalid:
            name = ""
        for image in self._images.values():
            if name in image.refs or ref in (image.id, image.id.removeprefix("sha256:")):
                return image
        prefix = ref.removeprefix("sha256:")
        if len(prefix) >= _SHORTEST_ID:
            matches = [image for image in self._images.values() if image.id.startswith(f"sha256:{prefix}")]
            if len(matches) > 1:
                raise Conflict(f"image id {ref} is the beginning of {len(matches)} ids: give more of it")
            if matches:
                return matches[0]
        raise NotFound(f"image {ref} is not on this node: load or import it here first (nothing is pulled)")

    def list(self) -> Sequence[Image]:
        return list(self._images.values())

    async def import_rootfs(
        self, source: Path | AsyncIterable[bytes], ref: str = "", *, config: ImageConfig = _NO_CONFIG
    ) -> str:
        """Make an image of one layer from a tar of a root file system; return its id.

        The id depends on the tar's uncompressed bytes, the config and this host's architecture only.
        """
        refs = (normalised(ref),) if ref else ()
        async with self._spooled(source) as file, self._changing:
            return await _in_thread(lambda: self._import(file, refs, config))

    async def load(self, source: Path | AsyncIterable[bytes]) -> Sequence[Image]:
        """Add all images of an archive of `docker save` or of an OCI layout; all of them or, on an error, none."""
        async with self._spooled(source) as file, self._changing:
            return await _in_thread(lambda: self._load(file))

    async def tag(self, ref: str, new: str) -> None:
        """Give an image another name; the name leaves the image that had it."""
        name = normalised(new)
        async with self._changing:
            image = self.get(ref)
            await _in_thread(lambda: self._commit([msgspec.structs.replace(image, refs=(name,))]))

    async def remove(self, ref: str, force: bool = False) -> tuple[Sequence[str], str]:
        """Take a name away, and with the last one (or by id) the image: the names taken, and the id if it is gone.

        Conflict if an id has several names and force is not given.  Whether containers use it is the caller's to know.
        """
        async with self._changing:
            image = self.get(ref)
            by_id = image.id.startswith(f"sha256:{ref.removeprefix('sha256:')}") and not _names(image, ref)
            if by_id and len(image.refs) > 1 and not force:
                raise Conflict(f"image {ref} has {len(image.refs)} names: remove them, or force")
            gone = image.refs if by_id else (normalised(ref),)
            kept = tuple(name for name in image.refs if name not in gone)
            await _in_thread(lambda: self._remove(image, kept))
            return gone, "" if kept else image.id

    # ------------------------------------------------------------ in a thread, one at a time

    def _import(self, file: Path, refs: tuple[str, ...], config: ImageConfig) -> str:
        diff_id, size = self._unpack(file)
        document = {
            "architecture": architecture(),
            "os": "linux",
            "config": to_oci(config),
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        layer = self._blobs.add(file, _LAYER)
        image = self._describe(msgspec.json.encode(document, order="sorted"), [layer], [size], refs)
        self._commit([image])
        return image.id

    def _load(self, file: Path) -> Sequence[Image]:
        plain = self._unique()
        with archive.decompressed(file) as content, plain.open("wb") as out:
            shutil.copyfileobj(content, out, 1 << 20)
        try:
            with tarfile.open(plain, "r:") as tar:
                bundle = Bundle(tar)
                loaded = [self._take(bundle, found) for found in bundle.images()]
        except tarfile.TarError as error:
            raise Invalid(f"this is not a complete tar archive: {error}") from None
        finally:
            plain.unlink()
        self._commit(loaded)
        return [self._images[image.id] for image in loaded]

    def _take(self, bundle: Bundle, found: Found) -> Image:
        config = bundle.read(found.config.member)
        _check(found.config, digest_of(config))
        try:
            diff_ids: list[str] = msgspec.json.decode(config)["rootfs"]["diff_ids"]
        except (msgspec.DecodeError, KeyError, TypeError):
            raise Invalid(f"{found.config.member!r} in the image archive is no image configuration") from None
        if len(diff_ids) != len(found.layers):
            raise Invalid(f"the image archive lists {len(found.layers)} layers, its configuration {len(diff_ids)}")
        layers, sizes = [], []
        for part, diff_id in zip(found.layers, diff_ids, strict=True):
            blob, size = self._take_layer(bundle, part, diff_id)
            layers.append(blob)
            sizes.append(size)
        return self._describe(config, layers, sizes, found.refs)

    def _take_layer(self, bundle: Bundle, part: Part, diff_id: str) -> tuple[Descriptor, int]:
        copy = self._unique()
        with bundle.open(part.member) as content, copy.open("wb") as out:
            shutil.copyfileobj(content, out, 1 << 20)
        try:
            known = self._layer(diff_id).exists()
            held, size = archive.digest(copy) if known else self._unpack(copy, diff_id)
            _check(Part(member=part.member, digest=diff_id), held)
            return self._blobs.add(copy, _LAYER, part.digest), size
        finally:
            copy.unlink(missing_ok=True)

    def _unpack(self, file: Path, expected: str = "") -> tuple[str, int]:
        """Unpack a layer beside its place and move it there whole."""
        making = self._unique()
        making.mkdir(mode=0o755)
        try:
            diff_id, size = archive.unpack(file, making)
            if expected and diff_id != expected:
                raise Invalid(f"a layer of the image archive is {diff_id}, but its configuration says {expected}")
            if not self._layer(diff_id).exists():
                archive.flush(making)
                making.rename(self._layer(diff_id))
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return diff_id, size

    def _describe(
        self, config: bytes, layers: Sequence[Descriptor], sizes: Sequence[int], refs: tuple[str, ...]
    ) -> Image:
        described = [
            {**layer.to_json(), "annotations": {_UNPACKED_SIZE: str(size)}}
            for layer, size in zip(layers, sizes, strict=True)
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._blobs.write(config, _CONFIG).to_json(),
            "layers": described,
        }
        return self._image(self._blobs.write(msgspec.json.encode(manifest), _MANIFEST), refs)

    def _remove(self, image: Image, refs: tuple[str, ...]) -> None:
        if refs:
            self._write_index({**self._images, image.id: msgspec.structs.replace(image, refs=refs)})
            return
        self._write_index({id: other for id, other in self._images.items() if id != image.id})
        self._prune()

    def _prune(self) -> None:
        """Drop content that no image needs: of an image removed, or of an addition that was cut short."""
        images = self._images.values()
        for layer in set(self._layers.iterdir()) - {layer for image in images for layer in image.layers}:
            doomed = self._unique()
            layer.rename(doomed)
            shutil.rmtree(doomed)
        self._blobs.keep_only(digest for image in images for digest in self._digests(image))

    # ------------------------------------------------------------ the index

    def _commit(self, added: Iterable[Image]) -> None:
        """Make images visible under their new names, which leave the images that had them."""
        images = dict(self._images)
        for image in added:
            for id, other in images.items():
                kept = tuple(ref for ref in other.refs if ref not in image.refs)
                images[id] = msgspec.structs.replace(other, refs=kept)
            had = images[image.id].refs if image.id in images else ()
            images[image.id] = msgspec.structs.replace(image, refs=(*had, *image.refs))
        self._write_index(images)

    def _write_index(self, images: dict[str, Image]) -> None:
        manifests = [
            {**image.manifest.to_json(), **({"annotations": {_REF: ref}} if ref else {})}
            for image in images.values()
            for ref in image.refs or ("",)
        ]
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}
        write_atomically(self._root / "index.json", msgspec.json.encode(index), self._tmp)
        self._images = images

    def _read_index(self) -> dict[str, Image]:
        try:
            index = msgspec.json.decode((self._root / "index.json").read_bytes())
        except FileNotFoundError:
            return {}
        images: dict[str, Image] = {}
        for entry in index["manifests"]:
            ref = entry.get("annotations", {}).get(_REF, "")
            image = self._image(Descriptor.from_json(entry), (ref,) if ref else ())
            had = images[image.id].refs if image.id in images else ()
            images[image.id] = msgspec.structs.replace(image, refs=(*had, *image.refs))
        return images

    def _image(self, descriptor: Descriptor, refs: tuple[str, ...]) -> Image:
        manifest: dict[str, Any] = msgspec.json.decode(self._blobs.read(descriptor.digest))
        config: dict[str, Any] = msgspec.json.decode(self._blobs.read(manifest["config"]["digest"]))
        return Image(
            id=manifest["config"]["digest"],
            refs=refs,
            config=from_oci(config.get("config") or {}),
            layers=tuple(self._layer(diff_id) for diff_id in config["rootfs"]["diff_ids"]),
            size=sum(int(layer["annotations"][_UNPACKED_SIZE]) for layer in manifest["layers"]),
            created=config.get("created") or "",
            architecture=config.get("architecture") or "",
            manifest=descriptor,
        )

    def _digests(self, image: Image) -> Iterable[str]:
        manifest = msgspec.json.decode(self._blobs.read(image.manifest.digest))
        return [image.manifest.digest, image.id, *(layer["digest"] for layer in manifest["layers"])]

    def _layer(self, diff_id: str) -> Path:
        return self._layers / hexadecimal(diff_id)

    def _unique(self) -> Path:
        return self._tmp / uuid.uuid4().hex

    @asynccontextmanager
    async def _spooled(self, source: Path | AsyncIterable[bytes]) -> AsyncIterator[Path]:
        """The source as a file of ours, which may be moved away."""
        file = self._unique()
        try:
            if isinstance(source, Path):
                await _in_thread(lambda: shutil.copyfile(source, file))
            else:
                with file.open("wb") as out:
                    async for chunk in source:
                        await asyncio.to_thread(out.write, chunk)
            yield file
        finally:
            file.unlink(missing_ok=True)


def _names(image: Image, ref: str) -> bool:
    try:
        return normalised(ref) in image.refs
    except Invalid:
        return False


def _check(part: Part, held: str) -> None:
    if part.digest and part.digest != held:
        raise Invalid(f"{part.member!r} in the image archive is {held}, not {part.digest}")


async def _in_thread(fn: Callable[[], R]) -> R:
    """Run fn to its end even when cancelled: a thread can't be stopped, and the lock must outlast it."""
    work = asyncio.get_running_loop().run_in_executor(None, fn)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
