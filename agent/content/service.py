"""Serves this node's content to the nodes of its cluster, and fetches images when managers say so: gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, nullcontext
from typing import Any

import grpc

from swarmd.agent.content.images import ClusterImages
from swarmd.agent.content.places import SMALL, Places
from swarmd.proto import content_pb2 as pb
from swarmd.proto import content_pb2_grpc
from swarmd.proto.errors import SwarmdError
from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER
from swarmd.proto.rpc import MARK
from swarmd.proto.tls import Identity, peer_identity
from swarmd.runtime.errors import Exhausted, Invalid, NotFound, RuntimeFault
from swarmd.runtime.images.arrivals import Progress
from swarmd.runtime.images.serving import extent, pieces
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.registry import credentials_from_header

MOST_ASKED = 1000  # digests in one question


class ContentService(content_pb2_grpc.ContentServicer):
    def __init__(self, store: ImageStore, images: ClusterImages, cluster_id: str) -> None:
        self._store = store
        self._images = images
        self._cluster_id = cluster_id
        self._places = Places()

    async def Have(self, request: pb.HaveRequest, context: Any) -> pb.HaveResponse:
        caller = await self._caller(context)
        found = []
        try:
            for digest in request.digests[:MOST_ASKED]:
                size, whole = extent(self._store, digest)
                found.append(pb.Extent(digest=digest, size=size, whole=whole))
        except Invalid as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return pb.HaveResponse(extents=found, readers=self._places.others(caller.node_id))

    async def Read(self, request: pb.ReadRequest, context: Any) -> AsyncIterator[pb.Piece]:
        caller = await self._caller(context)
        try:
            size, whole = extent(self._store, request.digest)
            is_small = whole and size <= SMALL
            with nullcontext() if is_small else self._places.taken(caller.node_id, request.readers):
                async with aclosing(pieces(self._store, request.digest, request.offset, request.length)) as found:
                    async for data in found:
                        yield pb.Piece(data=data)
        except RuntimeFault as fault:
            await _abort(fault, context)

    async def Fetch(self, request: pb.FetchRequest, context: Any) -> AsyncIterator[pb.FetchProgress]:
        caller = await self._caller(context)
        if caller.role != NODE_ROLE_MANAGER:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "only managers may have a node fetch images")
        said: asyncio.Queue[Progress | None] = asyncio.Queue()
        credentials = credentials_from_header(request.registry_auth)
        # Not a TaskGroup: a generator that is closed at a yield must not be met by a group's own exception.
        work = asyncio.ensure_future(self._images.get(request.image, request.name, credentials, said.put_nowait))
        work.add_done_callback(lambda _: said.put_nowait(None))
        try:
            while (one := await said.get()) is not None:
                yield pb.FetchProgress(id=one.id, status=one.status, current=one.current, total=one.total)
            await work
        except RuntimeFault as fault:
            await _abort(fault, context)
        finally:
            work.cancel()
            await asyncio.wait([work])

    async def _caller(self, context: Any) -> Identity:
        try:
            caller = peer_identity(context)
        except SwarmdError as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        if caller.cluster_id != self._cluster_id:
            sentence = f"node {caller.node_id} has a certificate of another cluster ({caller.cluster_id})"
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, sentence)
        return caller


async def _abort(fault: RuntimeFault, context: Any) -> None:
    kinds = ((Exhausted, "RESOURCE_EXHAUSTED"), (NotFound, "NOT_FOUND"), (Invalid, "INVALID_ARGUMENT"))
    code = next((name for kind, name in kinds if isinstance(fault, kind)), "UNAVAILABLE")
    await context.abort(grpc.StatusCode[code], str(fault), ((MARK, "1"),))
