"""The control API of this node's own manager; its errors are raised as ours."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc import aio

from swarmd.proto import control_pb2 as pb
from swarmd.proto import control_pb2_grpc
from swarmd.proto.objects_pb2 import Object
from swarmd.proto.rpc import mapped
from swarmd.proto.tls import Credentials, channel_credentials, channel_options

_WHOM = "this node's manager"


class ControlClient:
    """Has the methods of the stub."""

    TIMEOUT = 15.0  # s, for anything but logs

    def __init__(self, address: str, credentials: Credentials) -> None:
        self._channel = aio.secure_channel(address, channel_credentials(credentials), options=channel_options())
        self._stub = control_pb2_grpc.ControlStub(self._channel)

    async def close(self, grace: float) -> None:
        """End calls under way after so many seconds."""
        await self._channel.close(grace)

    async def Get(self, request: pb.GetRequest) -> Object:
        return await self._one(self._stub.Get, request)  # type: ignore[no-any-return]

    async def Create(self, request: pb.CreateRequest) -> pb.WriteResponse:
        return await self._one(self._stub.Create, request)  # type: ignore[no-any-return]

    async def Update(self, request: pb.UpdateRequest) -> pb.WriteResponse:
        return await self._one(self._stub.Update, request)  # type: ignore[no-any-return]

    async def Remove(self, request: pb.RemoveRequest) -> pb.RemoveResponse:
        return await self._one(self._stub.Remove, request)  # type: ignore[no-any-return]

    async def RotateJoinToken(self, request: pb.RotateJoinTokenRequest) -> Object:
        return await self._one(self._stub.RotateJoinToken, request)  # type: ignore[no-any-return]

    async def Status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        return await self._one(self._stub.Status, request)  # type: ignore[no-any-return]

    def List(self, request: pb.ListRequest) -> AsyncIterator[pb.ObjectBatch]:
        return self._many(self._stub.List, request, self.TIMEOUT)

    def Logs(self, request: pb.LogsRequest) -> AsyncIterator[pb.LogBatch]:
        return self._many(self._stub.Logs, request, None)

    @staticmethod
    async def _one(method: Callable[..., Any], request: Any) -> Any:
        try:
            return await method(request, timeout=ControlClient.TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise mapped(error, _WHOM) from None

    @staticmethod
    async def _many(method: Callable[..., Any], request: Any, timeout: float | None) -> AsyncIterator[Any]:
        call = method(request, timeout=timeout)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise mapped(error, _WHOM) from None
        finally:
            call.cancel()
