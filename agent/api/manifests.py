"""Manifests in registries as they are, and lists of them: swarmctl's own calls, below /swarmd."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from swarmd.agent.api import query
from swarmd.agent.api.fields import Fields, body
from swarmd.agent.api.interface import services
from swarmd.agent.api.registry import platforms
from swarmd.agent.api.streams import answer
from swarmd.proto.errors import Invalid
from swarmd.runtime.images.lists import push_index
from swarmd.runtime.images.manifests import INDEXES, is_index
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import Registries, credentials_from_header


async def inspect(request: web.Request) -> web.Response:
    """One manifest or index, as the text that its digest is of."""
    name = Reference.parse(request.match_info["name"])
    credentials = credentials_from_header(request.headers.get("X-Registry-Auth"))
    async with _registries(request, name) as registries:
        repository = registries.repository(name, credentials)
        data, media_type, digest = await repository.manifest(name.digest or name.tag)
        # Of an index its own entries say it.
        found = (
            [] if is_index(media_type, data, str(name)) else await platforms(repository, data, media_type, str(name))
        )
    return answer(
        {
            "Ref": str(name),
            "Descriptor": {"mediaType": media_type, "digest": digest, "size": len(data)},
            "Platform": msgspec.to_builtins(found[0]) if found else None,
            "Content": data.decode(),
        }
    )


async def push(request: web.Request) -> web.Response:
    """Push a list: {"MediaType": ..., "Content": its text, "From": ["host/name@digest", ...]}."""
    name = Reference.parse(request.match_info["name"])
    credentials = credentials_from_header(request.headers.get("X-Registry-Auth"))
    if name.digest:
        raise Invalid(f"list {name.familiar} can't be pushed by its digest: name it with a tag")
    with Fields(await body(request)) as fields:
        media_type, content = fields.text("MediaType"), fields.text("Content")
        sources = [Reference.parse(text) for text in fields.texts("From")]
    if media_type not in INDEXES:
        raise Invalid(f"field MediaType is none of {', '.join(sorted(INDEXES))}: {media_type!r}")
    async with _registries(request, name) as registries:
        digest = await push_index(registries, name, content.encode(), media_type, sources, credentials)
    return answer({"Digest": digest}, status=201)


@asynccontextmanager
async def _registries(request: web.Request, name: Reference) -> AsyncIterator[Registries]:
    """The daemon's; with `insecure`, one for which this registry's certificate isn't checked."""
    ours = services(request).engine.registries
    if not query.flag(request, "insecure"):
        yield ours
        return
    settings = msgspec.structs.replace(ours.settings, insecure=(*ours.settings.insecure, name.domain))
    async with Registries(settings) as others:
        yield others
