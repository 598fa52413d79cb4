"""The join endpoint: HTTPS for callers without a certificate, and nothing but joining.

    GET  /v1/root    the root certificate, PEM; the token's digest tells the caller whether to trust it
    POST /v1/join    JoinRequest -> Identity, protobuf

An error is a sentence; the Swarmd-Error header has its gRPC code.  Addresses that keep failing are slowed down.
"""

import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from google.protobuf.message import DecodeError

from swarmd.manager.ca.certifier import Certifier
from swarmd.proto.ca_pb2 import JoinRequest
from swarmd.proto.errors import Denied, Exhausted, Invalid, SwarmdError

MAX_REQUEST = 64 * 1024
BURST = 10.0  # failed attempts an address has at once
REFILL = 0.5  # and per second
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Limiter:
    """Failed attempts per address: a bucket that fills with time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._spent: dict[str, tuple[float, float]] = {}  # address: attempts spent, at

    def check(self, address: str) -> None:
        """Raise Exhausted while the address has failed too often."""
        spent = self._level(address)
        if spent >= BURST:
            wait = (spent - BURST) / REFILL + 1
            raise Exhausted(f"too many failed attempts to join from {address}: try again in {wait:.0f} s")

    def failed(self, address: str) -> None:
        if len(self._spent) > 10_000:
            self._spent = {known: value for known, value in self._spent.items() if self._level(known) > 0}
        self._spent[address] = (self._level(address) + 1, self._monotonic())

    def _level(self, address: str) -> float:
        spent, at = self._spent.get(address, (0.0, 0.0))
        return max(0.0, spent - (self._monotonic() - at) * REFILL)


def join_app(certifier: Certifier) -> web.Application:
    limiter = Limiter()

    async def root(request: web.Request) -> web.Response:
        return web.Response(body=certifier.root_certificate(), content_type="application/x-pem-file")

    async def join(request: web.Request) -> web.Response:
        address = request.remote or "unknown"
        limiter.check(address)
        try:
            identity = await certifier.admit(_parsed(await request.read()))
        except (Denied, Invalid):
            limiter.failed(address)
            raise
        return web.Response(body=identity.SerializeToString(), content_type="application/x-protobuf")

    app = web.Application(middlewares=[_explain], client_max_size=MAX_REQUEST)
    app.add_routes([web.get("/v1/root", root), web.post("/v1/join", join)])
    return app


def _parsed(body: bytes) -> JoinRequest:
    try:
        return JoinRequest.FromString(body)
    except DecodeError:
        raise Invalid("the join request is not one: its body must be a protobuf JoinRequest") from None


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except SwarmdError as error:
        return web.Response(status=error.http_status, text=str(error), headers={"Swarmd-Error": error.grpc_code})
