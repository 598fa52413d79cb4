"""What a registry says: logins tried out, images looked at without pulling them, and searches."""

from typing import Any

import msgspec
from aiohttp import web

from swarmd.agent.api import cluster_images, query
from swarmd.agent.api.image_progress import denied
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer
from swarmd.runtime.errors import Unauthorized
from swarmd.runtime.images.manifests import Configuration, Index, Manifest, Platform, is_index, parse
from swarmd.runtime.images.pulling import Registry
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import Repository, credentials_from_header, credentials_from_json


async def login(request: web.Request) -> web.Response:
    credentials = credentials_from_json(await request.read())
    token = await services(request).engine.registries.check_login(credentials)
    return answer({"Status": "Login Succeeded", "IdentityToken": token})


async def distribution(request: web.Request) -> web.Response:
    """The descriptor of an image as the cluster, else its registry has it, and the platforms it is for.

    Docker's client asks this before it creates a service, and pins the service's image to the answer.
    """
    name = Reference.parse(request.match_info["name"])
    if services(request).membership.info().control_available and (meant := await cluster_images.held(request, name)):
        held = meant.target
        descriptor = {"mediaType": held.media_type, "digest": held.digest, "size": held.target_size}
        return answer({"Descriptor": descriptor, "Platforms": []})
    credentials = credentials_from_header(request.headers.get("X-Registry-Auth"))
    repository = services(request).engine.registries.repository(name, credentials)
    data, media_type, digest = await repository.manifest(name.digest or name.tag)
    found = await platforms(repository, data, media_type, name.familiar)
    return answer(
        {
            "Descriptor": {"mediaType": media_type, "digest": digest, "size": len(data)},
            "Platforms": [msgspec.to_builtins(platform) for platform in found],
        }
    )


async def platforms(repository: Repository, data: bytes, media_type: str, what: str) -> list[Platform]:
    """What a manifest, or all that an index lists, is for."""
    if is_index(media_type, data, what):
        return [listed.platform for listed in parse(data, Index, what).manifests if listed.platform]
    config = await Registry(repository).document(parse(data, Manifest, what).config)
    return [parse(config, Configuration, f"the configuration of {what}").platform]


async def search(request: web.Request) -> web.Response:
    term, limit = request.query.get("term", ""), query.number(request, "limit")
    credentials = credentials_from_header(request.headers.get("X-Registry-Auth"))
    wanted = query.filters(request)
    try:
        found = await services(request).engine.registries.search(term, limit, wanted, credentials)
    except Unauthorized as error:
        raise denied(error) from error
    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "description": entry.description,
            "star_count": entry.stars,
            "is_official": entry.official,
            "is_automated": entry.automated,
        }
        for entry in found
    ]
    return answer(rows)
