"""Other nodes' content, by gRPC: what the source asks them, and in which words they say no."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

import grpc
from grpc import aio

from swarmd.proto import content_pb2 as pb
from swarmd.proto import content_pb2_grpc
from swarmd.proto.dispatcher_pb2 import Holder
from swarmd.proto.rpc import unanswered
from swarmd.proto.tls import channel_options

ANSWER = 2.0  # s, for what a node has
_AGAIN = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000))
STALL = 10.0  # s without a byte: it is given up


class Busy(Exception):
    """As many nodes read there as may."""


class Lost(Exception):
    """It does not answer, or has not what it said: try another."""


class Peers(Protocol):
    async def have(self, holder: Holder, digest: str) -> tuple[int, bool, int]:
        """Bytes from the beginning, whether that is all, and how many other nodes read there; raises Lost."""
        ...

    def read(self, holder: Holder, digest: str, offset: int, sharing: int) -> AsyncGenerator[bytes, None]:
        """From offset to the end; raises Busy or Lost."""
        ...


class GrpcPeers:
    """A context: its channels, one to each node, end with it."""

    def __init__(self, credentials: Callable[[], grpc.ChannelCredentials]) -> None:
        self._credentials = credentials
        self._channels: dict[str, aio.Channel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close(0)

    def stub(self, node_id: str, address: str) -> "content_pb2_grpc.ContentAsyncStub":
        if node_id not in self._channels:
            options = (*channel_options(node_id), *_AGAIN)
            self._channels[node_id] = aio.secure_channel(address, self._credentials(), options=options)
        return content_pb2_grpc.ContentStub(self._channels[node_id])

    async def have(self, holder: Holder, digest: str) -> tuple[int, bool, int]:
        try:
            asked = pb.HaveRequest(digests=[digest])
            answer = await self.stub(holder.node_id, holder.addr).Have(asked, timeout=ANSWER)
        except aio.AioRpcError as error:
            raise Lost(_words(error)) from None
        (found,) = answer.extents
        return found.size, found.whole, answer.readers

    async def read(self, holder: Holder, digest: str, offset: int, sharing: int) -> AsyncGenerator[bytes, None]:
        asked = pb.ReadRequest(digest=digest, offset=offset, readers=sharing)
        call = self.stub(holder.node_id, holder.addr).Read(asked)
        messages = aiter(call)
        try:
            while True:
                async with asyncio.timeout(STALL):
                    piece = await anext(messages, None)
                if piece is None:
                    return
                yield piece.data
        except TimeoutError:
            raise Lost(f"it sent nothing for {STALL:g} s") from None
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise Busy(error.details()) from None
            raise Lost(_words(error)) from None
        finally:
            call.cancel()


def _words(error: aio.AioRpcError) -> str:
    return "it does not answer" if is_silence(error) else error.details() or error.code().name.lower()


def is_silence(error: aio.AioRpcError) -> bool:
    """The node did not say no: it could not be reached, or the connection broke."""
    return error.code() == grpc.StatusCode.DEADLINE_EXCEEDED or unanswered(error)


def reachable(holders: Sequence[Holder], own_id: str) -> list[Holder]:
    return [holder for holder in holders if holder.ready and holder.node_id != own_id]
