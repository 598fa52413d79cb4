"""A registry of blobs that can be resumed as the specification says; docker-registry forgets an upload that was cut."""

import hashlib
import itertools
import re
from typing import Self

from aiohttp import ClientConnectionError, web


class Keeper:
    """cuts: after how many bytes of a PATCH to end its connection, one for each in turn.

    keeps_parts: whether what a cut PATCH brought is kept; if not, whole ones are.
    """

    def __init__(self, keeps_parts: bool = True) -> None:
        self._keeps_parts = keeps_parts
        self.uploads: dict[str, bytearray] = {}
        self.blobs: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges: list[str] = []
        self.lengths: list[int] = []
        self._names = itertools.count()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v2/{name}/blobs/uploads/", self._begin)
        app.router.add_get("/v2/{name}/blobs/uploads/{id}", self._state)
        app.router.add_patch("/v2/{name}/blobs/uploads/{id}", self._part)
        app.router.add_put("/v2/{name}/blobs/uploads/{id}", self._end)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.host = "{}:{}".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    async def _begin(self, request: web.Request) -> web.Response:
        ident = str(next(self._names))
        self.uploads[ident] = bytearray()
        return web.Response(status=202, headers={"Location": f"/v2/{request.match_info['name']}/blobs/uploads/{ident}"})

    async def _state(self, request: web.Request) -> web.Response:
        return self._standing(request, 204)

    async def _part(self, request: web.Request) -> web.Response:
        upload = self.uploads[request.match_info["id"]]
        text = request.headers.get("Content-Range", "")
        self.ranges.append(text)
        self.lengths.append(request.content_length or 0)
        found = re.fullmatch(r"(\d+)-(\d+)", text)
        if (int(found[1]) if found else 0) != len(upload):
            return self._standing(request, 416)
        cut = self.cuts.pop(0) if self.cuts else None
        got = bytearray()
        async for piece in request.content.iter_any():
            got += piece
            if cut is not None and len(got) >= cut:
                if self._keeps_parts:
                    upload += got[:cut]
                assert request.transport is not None
                request.transport.abort()
                raise ClientConnectionError("cut")
        upload += got
        return self._standing(request, 202)

    async def _end(self, request: web.Request) -> web.Response:
        data = bytes(self.uploads[request.match_info["id"]]) + await request.read()
        digest = request.query["digest"]
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            return web.Response(status=400)
        self.blobs[digest] = data
        return web.Response(status=201)

    def _standing(self, request: web.Request, status: int) -> web.Response:
        size = len(self.uploads[request.match_info["id"]])
        return web.Response(status=status, headers={"Range": f"0-{max(0, size - 1)}", "Location": request.path})
