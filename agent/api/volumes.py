"""Volumes, of which there are none yet: clients that ask for them before and after other things hear so."""

from aiohttp import web

from swarmd.agent.api.streams import answer
from swarmd.proto.errors import Invalid, NotFound


async def listing(request: web.Request) -> web.Response:
    return answer({"Volumes": [], "Warnings": None})


async def prune(request: web.Request) -> web.Response:
    return answer({"VolumesDeleted": [], "SpaceReclaimed": 0})


async def create(request: web.Request) -> web.Response:
    raise Invalid("volumes are not available yet: bind a directory of the host, -v /here:/inside")


async def absent(request: web.Request) -> web.Response:
    raise NotFound(f"no such volume: {request.match_info['name']}")
