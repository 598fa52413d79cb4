"""The documents of an image: descriptor, manifest, index and configuration, in the forms of OCI and of Docker.

See the OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md, config.md) and Docker's schema 2.
Whatever comes from outside is read here, bounded in size and checked before anything is done with it.
"""

import platform
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from swarmd.runtime.errors import Invalid

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPTED = (OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST)

LARGEST = 4 << 20  # bytes of one document: what registries take at most
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_DIGEST_LENGTHS = {"sha256": 64, "sha512": 128}
_HEXADECIMAL = frozenset("0123456789abcdef")
# Of 32-bit ARM, what runs where: a newer processor runs what was made for an older one.
_ARM_VARIANTS = ("v8", "v7", "v6", "v5")

T = TypeVar("T")


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """JSON keys are in camelCase; unknown ones are passed over, as the specification wants."""


class Platform(Document, frozen=True, kw_only=True):
    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(Document, frozen=True, kw_only=True):
    """Content by its digest; size in bytes."""

    media_type: str = ""
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    artifact_type: str | None = None

    def __post_init__(self) -> None:
        check_digest(self.digest)
        if self.size < 0:
            raise ValueError(f"size {self.size} of {self.digest} is negative")

    @property
    def bare(self) -> "Descriptor":
        """Without what a particular index says about it."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)


def _always(value: T) -> T:
    """A default that is written too: registries refuse documents without these."""
    found: T = msgspec.field(default_factory=lambda: value)
    return found


class Manifest(Document, frozen=True, kw_only=True):
    schema_version: int = _always(2)
    media_type: str = _always(OCI_MANIFEST)
    artifact_type: str | None = None
    config: Descriptor
    layers: tuple[Descriptor, ...] = ()
    annotations: dict[str, str] | None = None


class Index(Document, frozen=True, kw_only=True):
    schema_version: int = _always(2)
    media_type: str = _always(OCI_INDEX)
    manifests: tuple[Descriptor, ...] = ()
    annotations: dict[str, str] | None = None


class RootFS(msgspec.Struct, frozen=True):
    type: str = "layers"
    diff_ids: tuple[str, ...] = ()


class HistoryEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class Configuration(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An image's configuration; `config` is read by config.py."""

    created: str | None = None
    author: str | None = None
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    config: dict[str, Any] | None = None
    rootfs: RootFS
    history: tuple[HistoryEntry, ...] | None = ()

    @property
    def platform(self) -> Platform:
        return Platform(os=self.os or "linux", architecture=self.architecture, variant=self.variant or "")


def check_digest(digest: str) -> str:
    """Return the hexadecimal part; ValueError for anything that could name another file."""
    algorithm, _, value = digest.partition(":")
    if len(value) != _DIGEST_LENGTHS.get(algorithm, -1) or not _HEXADECIMAL.issuperset(value):
        raise ValueError(f"{digest[:200]!r} is no digest: sha256: or sha512: and lower-case hexadecimal digits")
    return value


def parse(data: bytes, kind: type[T], what: str) -> T:
    """Read a document; Invalid naming `what` if it is too large, no JSON, or not of its form."""
    if len(data) > LARGEST:
        raise Invalid(f"{what} has {len(data)} bytes: more than the {LARGEST} that a description of an image may have")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"{what} is malformed: {error}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid(f"{what} is not JSON: {error}") from None


def is_index(media_type: str, data: bytes, what: str) -> bool:
    """Whether a document lists manifests; Invalid for the ancient form that nothing can check."""
    if media_type.startswith(_SCHEMA_1):
        raise Invalid(f"{what} is of Docker's manifest schema 1, which can't be verified: have it pushed again")
    if media_type in INDEXES or media_type in MANIFESTS:
        return media_type in INDEXES
    fields = parse(data, dict[str, Any], what)
    if fields.get("schemaVersion") == 1:
        raise Invalid(f"{what} is of Docker's manifest schema 1, which can't be verified: have it pushed again")
    if "manifests" in fields:
        return True
    if "layers" in fields and "config" in fields:
        return False
    raise Invalid(f"{what} is neither an image nor an index of images: its media type is {media_type or 'not given'!r}")


def host_platform() -> Platform:
    machine = platform.machine()
    architecture = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}.get(machine, machine)
    return Platform(os="linux", architecture=architecture, variant="v7" if machine == "armv7l" else "")


def parse_platform(text: str) -> Platform:
    """os[/architecture[/variant]], or an architecture alone; Invalid if it can't be one."""
    parts = text.lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.replace("-", "").isalnum() for part in parts):
        raise Invalid(f"platform {text!r} is not of the form os/architecture[/variant], like linux/arm64")
    if len(parts) == 1:
        parts = [parts[0], host_platform().architecture] if parts[0] == "linux" else ["linux", parts[0]]
    architecture = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
    parts[1] = architecture.get(parts[1], parts[1])
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")


def suits(offered: Platform, wanted: Platform) -> int:
    """How well an image for one platform runs on another: 0 not at all, more is better."""
    if (offered.os or "linux", offered.architecture) != (wanted.os, wanted.architecture):
        return 0
    if wanted.architecture == "arm":
        variants = _ARM_VARIANTS[
            _ARM_VARIANTS.index(wanted.variant or "v7") if wanted.variant in _ARM_VARIANTS else 1 :
        ]
        given = offered.variant or "v7"
        return len(variants) - variants.index(given) if given in variants else 0
    default = "v8" if wanted.architecture == "arm64" else ""
    if (offered.variant or default) == (wanted.variant or default):
        return 2
    return 0 if wanted.variant else 1


def images_in(manifests: Iterable[Descriptor]) -> list[Descriptor]:
    """What an index lists, without attestations: what builders say of its images, which nothing here reads."""
    return [one for one in manifests if not (one.platform and one.platform.os == "unknown")]


def not_nested(what: str) -> Invalid:
    return Invalid(f"{what} is an index in which there are indexes: name one of its images by its digest")


def choose(manifests: Iterable[Descriptor], wanted: Platform, what: str) -> Descriptor:
    """The manifest of an index for a platform; Invalid, with what there is, if it has none."""
    offered = images_in(manifests)
    scored = [(suits(d.platform or wanted, wanted), -n, d) for n, d in enumerate(offered)]
    best = max(scored, key=lambda entry: entry[:2], default=None)
    if best is None or not best[0]:
        there = ", ".join(sorted({str(d.platform) for d in offered if d.platform})) or "none"
        raise Invalid(f"{what} has no image for {wanted}: there are {there}")
    return best[2]
