"""Lists that registries give in pages: each names the next in its Link header (RFC 8288)."""

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import TypeVar

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images import manifests
from swarmd.runtime.registry.client import Client, Request
from swarmd.runtime.registry.reading import read
from swarmd.runtime.registry.transport import authority

T = TypeVar("T")

_LINK = re.compile(r"\s*,?\s*<([^<>]*)>\s*((?:;\s*[\w*]+\s*=\s*(?:\"[^\"]*\"|[^\s\",;]*)\s*)*)")
_NEXT = re.compile(r";\s*rel\s*=\s*\"?next\"?\s*(?:;|$)", re.IGNORECASE)
_MOST = 1000


async def pages(client: Client, request: Request, what: str, kind: type[T]) -> AsyncIterator[T]:
    """Each page as a value of `kind`; raises as `Client.ask` does, and Invalid for a list without an end."""
    for _ in range(_MOST):
        response = await client.ask(request)
        link = following(response.headers.getall("Link", ()))
        yield manifests.parse(await read(client.transport, response, manifests.LARGEST, what), kind, what)
        if not link:
            return
        target = client.transport.joined(response.url, link)
        if authority(target) != authority(response.url):
            raise Invalid(f"{what} goes on at another host, {authority(target)}, which is not asked")
        request = replace(request, place=target)
    raise Invalid(f"{what} has more than {_MOST} pages")


def following(headers: Iterable[str]) -> str:
    """The address of the next page, empty if this is the last one."""
    for header in headers:
        at = 0
        while found := _LINK.match(header, at):
            if _NEXT.search(found[2]):
                return found[1]
            at = found.end()
    return ""
