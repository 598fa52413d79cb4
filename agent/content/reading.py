"""Images of the whole cluster to read, content that other nodes hold included: for tools that know registries only."""

import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import grpc

from swarmd.agent.content.inventory import held
from swarmd.agent.content.managers import Managers
from swarmd.agent.content.peers import GrpcPeers, Lost, reachable
from swarmd.agent.content.source import ClusterSource
from swarmd.proto.clock import Clock
from swarmd.proto.dispatcher_pb2 import Holder
from swarmd.proto.objects_pb2 import HeldImage
from swarmd.runtime.errors import Corrupt, Invalid, NotFound
from swarmd.runtime.images.blobs import matches
from swarmd.runtime.images.manifests import LARGEST, Descriptor
from swarmd.runtime.images.serving import pieces
from swarmd.runtime.images.store import ImageStore


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a member of a cluster asks the others with."""

    managers: Managers
    node_id: str
    credentials: Callable[[], grpc.ChannelCredentials]
    clock: Clock


class Repository:
    """The images under one name, without its tags: those of this node, and of the cluster's if it is in one."""

    def __init__(self, store: ImageStore, name: str, cluster: Cluster | None) -> None:
        """name: in full, as docker.io/library/web."""
        self._store = store
        self._name = name
        self._cluster = cluster
        self._others: Sequence[Holder] | None = None

    async def images(self) -> list[HeldImage]:
        """Newest first."""
        own = [held(image) for image in self._store.list()]
        others = [holder.image for holder in await self._holders() if not holder.image.coming]
        found = [image for image in (*own, *others) if any(self._tag(name) is not None for name in image.names)]
        return sorted(found, key=lambda image: -image.updated)

    async def tags(self) -> list[str]:
        """NotFound if no node has an image of this name."""
        images = await self.images()
        if not images:
            raise NotFound(f"no node has an image of repository {self._name}")
        return sorted({tag for image in images for name in image.names if (tag := self._tag(name))})

    async def resolve(self, ref: str) -> Descriptor:
        """A tag, or a digest of whatever these images consist of. The media type may be empty."""
        for image in await self.images():
            if ref == image.digest or f"{self._name}:{ref}" in image.names:
                return Descriptor(media_type=image.media_type, digest=image.digest, size=image.target_size)
        if ":" not in ref:
            raise NotFound(f"no node has image {self._name}:{ref}")
        return Descriptor(digest=ref, size=await self._size(ref))

    async def document(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > LARGEST:
            raise Invalid(f"{descriptor.digest} has {descriptor.size} bytes: it describes no image")
        async with aclosing(self.blob(descriptor)) as found:
            data = b"".join([piece async for piece in found])
        if not matches(data, descriptor.digest):
            raise Corrupt(f"content {descriptor.digest} came damaged from another node: try again")
        return data

    async def blob(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """Checked where it is stored, and by whoever asked for it, but not on its way."""
        if self._store.blobs.has(descriptor.digest):
            async with aclosing(pieces(self._store, descriptor.digest)) as found:
                async for piece in found:
                    yield piece
            return
        if self._cluster is None:
            raise NotFound(f"content {descriptor.digest} is not on this node")
        async with GrpcPeers(self._cluster.credentials) as peers:
            source = ClusterSource(self._holders, peers, self._cluster.clock, random.Random(), only_whole=True)
            async with aclosing(source.blob(descriptor)) as found:
                async for piece in found:
                    yield piece

    async def _size(self, digest: str) -> int:
        if self._store.blobs.has(digest):
            return self._store.blobs.size(digest)
        if self._cluster is not None:
            async with GrpcPeers(self._cluster.credentials) as peers:
                for holder in await self._holders():
                    try:
                        size, whole, _ = await peers.have(holder, digest)
                    except Lost:
                        continue
                    if whole:
                        return size
        raise NotFound(f"no node that answers has content {digest} of repository {self._name}")

    async def _holders(self) -> Sequence[Holder]:
        """The other nodes, asked for once."""
        if self._others is None:
            found: Sequence[Holder] = ()
            if self._cluster is not None:
                found = await self._cluster.managers.of_repository(self._name)
                found = reachable(found, self._cluster.node_id)
            self._others = found
        return self._others

    def _tag(self, name: str) -> str | None:
        """'' for a digest; None for the name of another repository."""
        plain, at, _ = name.partition("@")
        if at:
            return "" if plain == self._name else None
        repository, _, tag = name.rpartition(":")
        return tag if repository == self._name else None
