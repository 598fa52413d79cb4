"""One repository of a registry, by the distribution specification 1.1: manifests and tags here, blobs beside.

Reading asks the mirrors first and whatever comes next when one fails; writing goes to the registry itself.
"""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from swarmd.runtime.errors import Corrupt, Invalid, RuntimeFault, Unavailable
from swarmd.runtime.images import manifests
from swarmd.runtime.images.manifests import Descriptor
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import downloads, uploads
from swarmd.runtime.registry.access import Access
from swarmd.runtime.registry.client import Client, Request
from swarmd.runtime.registry.credentials import Credentials
from swarmd.runtime.registry.failures import Broken
from swarmd.runtime.registry.pages import pages
from swarmd.runtime.registry.reading import read
from swarmd.runtime.registry.settings import Endpoint
from swarmd.runtime.registry.uploads import OpenAt

T = TypeVar("T")

_ACCEPT = ", ".join(manifests.ACCEPTED)
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_VAGUE = frozenset({"", "application/json", "application/octet-stream", "text/plain"})


class _Heading(msgspec.Struct, rename="camel"):
    media_type: str = ""
    manifests: msgspec.Raw = msgspec.Raw(b"")
    layers: msgspec.Raw = msgspec.Raw(b"")


class _Tags(msgspec.Struct):
    tags: tuple[str, ...] | None = None


class Repository:
    """Made by Registries.repository; every method raises a RuntimeFault that names registry and repository."""

    def __init__(
        self, client: Client, name: Reference, credentials: Credentials, actions: Sequence[str] = ("pull",)
    ) -> None:
        endpoints = client.transport.settings.endpoints(name.domain)
        scopes = frozenset({f"repository:{name.path}:{','.join(actions)}"})
        self.name = name
        self._access = Access(client, name, endpoints, credentials, scopes)

    async def resolve(self, ref: str) -> Descriptor:
        """What a tag or digest stands for now; one request without a body where the registry is as it should be."""
        return await self._anywhere(lambda endpoint: self._resolve(endpoint, ref))

    async def manifest(self, ref: str) -> tuple[bytes, str, str]:
        """A manifest or index with its media type and digest; Corrupt unless it is what its digest says."""
        return await self._anywhere(lambda endpoint: self._manifest(endpoint, ref))

    def blob(self, descriptor: Descriptor, offset: int = 0, verify: bool = True) -> AsyncGenerator[bytes, None]:
        """Its bytes from offset on, in pieces of 256 KiB or more; close it if you stop early. See downloads.py."""
        return downloads.download(self._access, descriptor, offset, verify)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        return await uploads.has(self._access, descriptor)

    async def mount(self, digest: str, from_repository: str) -> bool:
        """Have the registry take a blob from another repository of its own; False if it would rather be sent it."""
        return await uploads.mount(self._access, digest, from_repository)

    async def push_blob(
        self,
        descriptor: Descriptor,
        open_at: OpenAt,
        progress: Callable[[int], None] = lambda sent: None,
    ) -> None:
        """Send a blob; open_at gives its bytes from an offset on, progress hears how many are there; see uploads.py."""
        await uploads.push(self._access, descriptor, open_at, progress)

    async def put_manifest(self, ref: str, data: bytes, media_type: str) -> str:
        """Write a manifest under a tag or its digest, and return the digest."""
        digest = digest_like(ref, data)
        request = self._access.request(
            self._access.origin,
            "PUT",
            f"manifests/{quote(ref, safe=':')}",
            f"image {self._access.label(ref)}",
            headers={"Content-Type": media_type},
            body=data,
            good=frozenset({200, 201, 202}),
        )
        async with await self._access.ask(request) as response:
            given = response.headers.get("Docker-Content-Digest", digest)
        if given.partition(":")[0] == digest.partition(":")[0] and given != digest:
            text = f"registry {self._access.origin.host} has stored {self._access.label(ref)} as {given}"
            raise Corrupt(f"{text}, not as {digest} that was sent: something between changes it")
        return digest

    async def delete_manifest(self, digest: str) -> None:
        request = self._access.request(
            self._access.origin,
            "DELETE",
            f"manifests/{quote(digest, safe=':')}",
            f"image {self._access.label(digest)}",
            good=frozenset({200, 202}),
        )
        (await self._access.ask(request)).release()

    async def tags(self) -> list[str]:
        """All tags, in the registry's order; NotFound if there is no such repository."""
        place = f"/v2/{self.name.path}/tags/list?n=1000"
        request = self._access.request(self._access.origin, "GET", place, f"repository {self._access.familiar}")
        found: list[str] = []
        try:
            async for page in pages(
                self._access.client, request, f"the list of tags of {self._access.familiar}", _Tags
            ):
                found += page.tags or ()
        except Broken as broken:
            raise broken.fault from broken
        return found

    async def _anywhere(self, attempt: Callable[[Endpoint], Awaitable[T]]) -> T:
        """The first endpoint's success, or the registry's own failure: it is what the user named."""
        for endpoint in self._access.client.well(self._access.endpoints[:-1]):
            try:
                return await attempt(endpoint)
            except (Broken, Unavailable):
                self._access.client.shun(endpoint)
            except RuntimeFault:
                continue  # it may have but some images
        try:
            return await attempt(self._access.origin)
        except Broken as broken:
            raise broken.fault from broken

    async def _resolve(self, endpoint: Endpoint, ref: str) -> Descriptor:
        response = await self._access.client.ask(self._reading(endpoint, "HEAD", ref))
        response.release()
        digest, media_type = response.headers.get("Docker-Content-Digest", ""), _content_type(response)
        size = response.headers.get("Content-Length", "")
        if not digest or not size.isdigit() or media_type in _VAGUE:
            data, media_type, digest = await self._manifest(endpoint, ref)
            return Descriptor(media_type=media_type, digest=digest, size=len(data))
        if ":" in ref and digest != ref:
            raise Corrupt(
                f"registry {endpoint.host} gave {digest} for {self._access.label(ref)}: ask its administrator"
            )
        return _described(media_type, digest, int(size), f"{self._access.label(ref)} at registry {endpoint.host}")

    async def _manifest(self, endpoint: Endpoint, ref: str) -> tuple[bytes, str, str]:
        what = f"the manifest of {self._access.label(ref)} at registry {endpoint.host}"
        response = await self._access.client.ask(self._reading(endpoint, "GET", ref))
        data = await read(self._access.client.transport, response, manifests.LARGEST, what)
        given = response.headers.get("Docker-Content-Digest", "")
        if _content_type(response) in _PAGES:
            raise Unavailable(
                f"registry {endpoint.host} answered with a web page instead of the manifest of "
                f"{self._access.label(ref)}: check the host's name, and whether a proxy or a login page is before it"
            )
        digest = digest_like(ref if ":" in ref else given, data)
        for expected in (ref if ":" in ref else "", given):
            if expected and expected != (actual := digest_like(expected, data)):
                raise Corrupt(
                    f"{what} is {actual}, not {expected}: it was changed on its way, or the registry is broken"
                )
        return data, checked_type(_content_type(response), data, what), digest

    def _reading(self, endpoint: Endpoint, method: str, ref: str) -> Request:
        place = f"manifests/{quote(ref, safe=':')}"
        return self._access.request(
            endpoint, method, place, f"image {self._access.label(ref)}", headers={"Accept": _ACCEPT}
        )


def digest_like(pattern: str, data: bytes) -> str:
    """The digest of data by the algorithm of another digest; by sha256 when pattern is none."""
    algorithm = "sha512" if pattern.startswith("sha512:") else "sha256"
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def _content_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def checked_type(given: str, data: bytes, what: str) -> str:
    """The media type that header and document agree on; Invalid if they don't, or if it is none of an image."""
    heading = manifests.parse(data, _Heading, what)
    if all(bytes(part) not in (b"", b"null") for part in (heading.manifests, heading.layers)):
        raise Invalid(f"{what} is both an image and an index of images: its two readings would differ")
    if given not in _VAGUE and heading.media_type and heading.media_type != given:
        raise Invalid(f"{what} says that it is {heading.media_type}, but came as {given}")
    media_type = heading.media_type if given in _VAGUE else given
    index = manifests.is_index(media_type, data, what)
    if media_type in manifests.ACCEPTED:
        return media_type
    return manifests.OCI_INDEX if index else manifests.OCI_MANIFEST


def _described(media_type: str, digest: str, size: int, what: str) -> Descriptor:
    if size > manifests.LARGEST:
        raise Invalid(f"{what} has {size} bytes: more than the {manifests.LARGEST} that a description may have")
    try:
        return Descriptor(media_type=media_type, digest=digest, size=size)
    except ValueError as error:
        raise Invalid(f"{what} is described wrongly: {error}") from None
