"""A container's files: HEAD, GET and PUT of /archive, /export, and /changes."""

import asyncio
import base64
import json
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from swarmd.agent.api import query
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer, respond, stamp
from swarmd.proto.errors import Invalid
from swarmd.runtime.container_files import Found

_TAR = "application/x-tar"
_CHUNK = 1 << 18
# Go's io/fs.FileMode, which clients decode.
_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


async def head(request: web.Request) -> web.Response:
    found = await services(request).engine.file_stat(_id(request), _path(request))
    return web.Response(headers=_headers(found))


async def get(request: web.Request) -> web.StreamResponse:
    pieces = cast("Any", services(request).engine.file_archive(_id(request), _path(request)))
    async with aclosing(pieces):
        found = await anext(pieces)
        return await respond(request, _TAR, pieces, _headers(found))


async def put(request: web.Request) -> web.Response:
    await services(request).engine.file_unpack(
        _id(request),
        _path(request),
        request.content.iter_chunked(_CHUNK),
        own=query.flag(request, "copyUIDGID"),
        keep_kinds=query.flag(request, "noOverwriteDirNonDir"),
    )
    return web.Response()


async def export(request: web.Request) -> web.StreamResponse:
    pieces = cast("Any", services(request).engine.export(_id(request)))
    async with aclosing(pieces):
        first = await anext(pieces)  # what can't be exported at all is answered by a status
        return await respond(request, "application/octet-stream", _with(first, pieces))


async def _with(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece


async def changes(request: web.Request) -> web.Response:
    found = await asyncio.to_thread(services(request).engine.changes, _id(request))
    return answer([{"Path": change.path, "Kind": change.kind} for change in found])


def _id(request: web.Request) -> str:
    return services(request).engine.inspect(request.match_info["id"]).id


def _path(request: web.Request) -> str:
    path = request.query.get("path", "")
    if not path:
        raise Invalid("query parameter path is required: the path in the container")
    return path if path.startswith("/") else f"/{path}"


def _headers(found: Found) -> dict[str, str]:
    shown = {
        "name": found.name,
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": stamp(found.mtime),
        "linkTarget": found.link_target,
    }
    return {"X-Docker-Container-Path-Stat": base64.b64encode(json.dumps(shown).encode()).decode()}


def go_mode(mode: int) -> int:
    bits = sum(theirs for ours, theirs in _BITS.items() if mode & ours)
    return mode & 0o777 | _KINDS.get(stat.S_IFMT(mode), 0) | bits
