"""The control API of this node's own manager; its errors are raised as ours."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc
from grpc import aio

from swarmd.agent.manager_process import ManagerState
from swarmd.proto import control_pb2 as pb
from swarmd.proto import control_pb2_grpc
from swarmd.proto.errors import Unavailable
from swarmd.proto.objects_pb2 import Object
from swarmd.proto.rpc import mapped, unanswered
from swarmd.proto.tls import Credentials, channel_credentials, channel_options

_WHOM = "this node's manager"


class _Unanswered(Unavailable):
    """The manager was there, and gone before it answered."""


class ControlClient:
    """Has the methods of the stub."""

    TIMEOUT = 15.0  # s, for anything but logs
    CONNECT = 5.0  # s, for a manager that runs, on a host that has little time for it
    START = 15.0  # s since its start, for one that is being started: it may wait for others, which may be away

    def __init__(self, address: str, credentials: Credentials, manager: ManagerState) -> None:
        self._manager = manager
        self._channel = aio.secure_channel(address, channel_credentials(credentials), options=channel_options())
        self._stub = control_pb2_grpc.ControlStub(self._channel)

    async def close(self, grace: float) -> None:
        """End calls under way after so many seconds."""
        await self._channel.close(grace)

    async def Get(self, request: pb.GetRequest) -> Object:
        return await self._read(self._stub.Get, request)  # type: ignore[no-any-return]

    async def Create(self, request: pb.CreateRequest) -> pb.WriteResponse:
        return await self._call(self._stub.Create, request)  # type: ignore[no-any-return]

    async def Update(self, request: pb.UpdateRequest) -> pb.WriteResponse:
        return await self._call(self._stub.Update, request)  # type: ignore[no-any-return]

    async def Remove(self, request: pb.RemoveRequest) -> pb.RemoveResponse:
        return await self._call(self._stub.Remove, request)  # type: ignore[no-any-return]

    async def RotateJoinToken(self, request: pb.RotateJoinTokenRequest) -> Object:
        return await self._call(self._stub.RotateJoinToken, request)  # type: ignore[no-any-return]

    async def Status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        return await self._read(self._stub.Status, request)  # type: ignore[no-any-return]

    def List(self, request: pb.ListRequest) -> AsyncIterator[pb.ObjectBatch]:
        return self._many(self._stub.List, request, self.TIMEOUT)

    def Logs(self, request: pb.LogsRequest) -> AsyncIterator[pb.LogBatch]:
        return self._many(self._stub.Logs, request, None)

    async def _connected(self) -> None:
        """What is sent before the manager is reached fails at once, though it may be there in a moment."""
        called = asyncio.get_running_loop().time()
        while True:
            before = self._manager.start
            try:
                async with asyncio.timeout(self.CONNECT):
                    return await self._channel.channel_ready()
            except aio.UsageError:  # the channel is closed when this node gets another certificate
                raise Unavailable(self._silence()) from None
            except TimeoutError:
                start = self._manager.start if before is None else before
                if start is None or asyncio.get_running_loop().time() > min(start, called) + self.START:
                    raise Unavailable(self._silence()) from None

    def _silence(self) -> str:
        why = self._manager.problem
        if not why and self._manager.start is not None:
            why = "it is still starting, and has to wait while most managers are away"
        return f"{_WHOM} does not answer{f' ({why})' if why else ''}: try again in a moment"

    async def _read(self, method: Callable[..., Any], request: Any) -> Any:
        """Asked again where the manager ends in the middle, as it is started again."""
        try:
            return await self._call(method, request)
        except _Unanswered:
            with suppress(_Unanswered):
                return await self._call(method, request)
        raise Unavailable(self._silence())

    async def _call(self, method: Callable[..., Any], request: Any) -> Any:
        await self._connected()
        try:
            return await method(request, timeout=self.TIMEOUT)
        except grpc.aio.AioRpcError as error:
            problem = mapped(error, _WHOM)  # which logs why there is no answer
            if unanswered(error):
                raise _Unanswered(f"{_WHOM} ended before it answered: what was asked may or may not be done") from None
            raise problem from None

    async def _many(self, method: Callable[..., Any], request: Any, timeout: float | None) -> AsyncIterator[Any]:
        for attempt in range(2):
            await self._connected()
            call, begun = method(request, timeout=timeout), False
            try:
                async for message in call:
                    begun = True
                    yield message
                return
            except grpc.aio.AioRpcError as error:
                if attempt or begun or not unanswered(error):
                    raise mapped(error, _WHOM) from None
            finally:
                call.cancel()
