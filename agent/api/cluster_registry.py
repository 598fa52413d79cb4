"""The cluster's images for tools that read registries: the distribution specification 1.1, to read only, below /v2/.

Content that is on other nodes is fetched from them while it is served.  Names are as everywhere: web is
docker.io/library/web.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import wraps

from aiohttp import web

from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer, respond
from swarmd.agent.content.reading import Repository
from swarmd.runtime.errors import Invalid, NotFound, RuntimeFault, Unavailable
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry.repository import checked_type

_VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
_BINARY = "application/octet-stream"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _in_its_words(unknown: str) -> Callable[[Handler], Handler]:
    """Errors in the specification's form; unknown: its code for what is not there."""

    def around(handler: Handler) -> Handler:
        @wraps(handler)
        async def handled(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except (NotFound, Invalid) as fault:
                code, status = (unknown, 404) if isinstance(fault, NotFound) else ("NAME_INVALID", 400)
                return _refusal(code, str(fault), status)
            except Unavailable as fault:
                return _refusal("UNAVAILABLE", str(fault), 503)

        return handled

    return around


def _refusal(code: str, message: str, status: int) -> web.Response:
    return answer({"errors": [{"code": code, "message": message}]}, status=status)


async def version(request: web.Request) -> web.Response:
    return web.json_response({}, headers=_VERSION)


@_in_its_words("NAME_UNKNOWN")
async def tags(request: web.Request) -> web.StreamResponse:
    return answer({"name": request.match_info["name"], "tags": await _repository(request).tags()})


@_in_its_words("MANIFEST_UNKNOWN")
async def manifest(request: web.Request) -> web.StreamResponse:
    repository, ref = _repository(request), request.match_info["ref"]
    descriptor = await repository.resolve(ref)
    data = await repository.document(descriptor)
    try:
        media_type = checked_type(descriptor.media_type, data, descriptor.digest)
    except RuntimeFault:
        raise NotFound(f"{descriptor.digest} is neither an image nor an index of images") from None
    headers = _VERSION | {"Content-Type": media_type, "Docker-Content-Digest": descriptor.digest}
    if request.method == "HEAD":
        return web.Response(headers=headers | {"Content-Length": str(len(data))})
    return web.Response(body=data, headers=headers)


@_in_its_words("BLOB_UNKNOWN")
async def blob(request: web.Request) -> web.StreamResponse:
    repository, digest = _repository(request), request.match_info["digest"]
    descriptor = await repository.resolve(digest)
    headers = _VERSION | {"Content-Length": str(descriptor.size), "Docker-Content-Digest": digest}
    if request.method == "HEAD":
        return web.Response(headers=headers | {"Content-Type": _BINARY})
    async with aclosing(repository.blob(descriptor)) as pieces:
        first = await anext(pieces, b"")  # what is to be had nowhere is answered by a status
        return await respond(request, _BINARY, _with(first, pieces), headers)


async def _with(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece


def _repository(request: web.Request) -> Repository:
    given = services(request)
    name = Reference.parse(request.match_info["name"])
    return Repository(given.engine.images, name.repository, given.membership.cluster_content())
