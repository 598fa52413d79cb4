"""What every gRPC method of a manager has around it: our errors as status codes, and the caller's cluster checked."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from grpc import aio

from swarmd.proto.errors import Denied, SwarmdError
from swarmd.proto.rpc import MARK
from swarmd.proto.tls import peer_identity

Explain = Callable[[SwarmdError], Awaitable[str]]


class ErrorInterceptor(aio.ServerInterceptor):  # generic in the stubs only
    """`explain` makes the sentence of an error; it may look around, e.g. for how many managers answer."""

    def __init__(self, cluster_id: str, explain: Explain) -> None:
        self._cluster_id = cluster_id
        self._explain = explain

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else (grpc.unary_stream_rpc_method_handler)
            )
            wrapped = self._stream(handler.stream_stream or handler.unary_stream)
        else:
            make = grpc.unary_unary_rpc_method_handler
            wrapped = self._unary(handler.unary_unary)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _unary(self, method: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def call(request: Any, context: Any) -> Any:
            try:
                self._check(context)
                return await method(request, context)
            except SwarmdError as error:
                await self._abort(error, context)

        return call

    def _stream(self, method: Callable[[Any, Any], AsyncGenerator[Any, None]]) -> Any:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                self._check(context)
                async with aclosing(method(request, context)) as messages:
                    async for message in messages:
                        yield message
            except SwarmdError as error:
                await self._abort(error, context)

        return call

    def _check(self, context: Any) -> None:
        caller = peer_identity(context)
        if caller.cluster_id != self._cluster_id:
            raise Denied(f"node {caller.node_id} has a certificate of another cluster ({caller.cluster_id})")

    async def _abort(self, error: SwarmdError, context: Any) -> None:
        await context.abort(grpc.StatusCode[error.grpc_code], await self._explain(error), ((MARK, "1"),))
