"""Has a node fetch an image, from a manager's node: the calling side of Content.Fetch."""

from collections.abc import AsyncIterator, Callable

import grpc
from grpc import aio

from swarmd.agent.content.peers import GrpcPeers, is_silence
from swarmd.proto.content_pb2 import FetchProgress, FetchRequest
from swarmd.proto.objects_pb2 import Node
from swarmd.proto.rpc import mapped

ATTEMPTS = 3  # a connection may break on a node that has much to do


async def fetch_on(
    node: Node, image: str, name: str, registry_auth: str, credentials: Callable[[], grpc.ChannelCredentials]
) -> AsyncIterator[FetchProgress]:
    """image: by its digest; name: what it is called there besides, or ''. Raises what the node says, or Unavailable."""
    address = f"{node.description.addr}:{node.description.agent_port}"
    asked = FetchRequest(image=image, name=name, registry_auth=registry_auth)
    async with GrpcPeers(credentials) as peers:
        for attempt in range(1, ATTEMPTS + 1):
            call = peers.stub(node.id, address).Fetch(asked)
            try:
                async for progress in call:
                    yield progress
                return
            except aio.AioRpcError as error:
                if not is_silence(error) or attempt == ATTEMPTS:
                    raise mapped(error, "its agent") from None
            finally:
                call.cancel()
