"""Asks managers which nodes hold an image: any of them, the one that answered last first."""

import random
from collections.abc import Callable, Sequence

import grpc
from grpc import aio

from swarmd.proto import dispatcher_pb2_grpc
from swarmd.proto.dispatcher_pb2 import Holder, HoldersRequest
from swarmd.proto.rpc import mapped
from swarmd.proto.tls import channel_options
from swarmd.runtime.errors import Unavailable

ANSWER = 3.0  # s


class Managers:
    def __init__(
        self, addresses: Callable[[], Sequence[str]], credentials: Callable[[], grpc.ChannelCredentials]
    ) -> None:
        self._addresses = addresses
        self._credentials = credentials
        self._last = ""

    async def holders(self, name: str, digest: str) -> Sequence[Holder]:
        """By its digest, or by its full name. Raises Unavailable if no manager answers."""
        return await self._ask(HoldersRequest(name=name, digest=digest), f"image {name or digest}")

    async def of_repository(self, repository: str) -> Sequence[Holder]:
        """Of any image with a name in it. Raises Unavailable if no manager answers."""
        return await self._ask(HoldersRequest(repository=repository), f"images of {repository}")

    async def _ask(self, asked: HoldersRequest, what: str) -> Sequence[Holder]:
        addresses = [*self._addresses()]
        random.shuffle(addresses)
        addresses.sort(key=lambda address: address != self._last)
        said = "none is known"
        for address in addresses:
            try:
                async with aio.secure_channel(address, self._credentials(), options=channel_options()) as channel:
                    answer = await dispatcher_pb2_grpc.DispatcherStub(channel).Holders(asked, timeout=ANSWER)
            except aio.AioRpcError as error:
                said = str(mapped(error, f"manager {address}"))
            else:
                self._last = address
                return list(answer.holders)
        raise Unavailable(f"no manager says which nodes hold {what}: {said}")
