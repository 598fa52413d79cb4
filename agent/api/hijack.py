"""Takes a connection over from HTTP: after the answer's headers it carries bytes both ways, as with Docker.

The connection's own socket is what the caller gets; the daemon's HTTP side lets go of it.  One over TLS is no other:
`tls_listener.py` is between it and the client.
"""

import os
import socket
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web

from swarmd.agent.api.streams import MULTIPLEXED, RAW


def taking_over(request: web.Request, *, framed: bool) -> Callable[[], socket.socket]:
    """Return what, when called, answers and gives the connection; until then an error is an ordinary answer."""
    return lambda: _take_over(request, MULTIPLEXED if framed else RAW)


def taken(request: web.Request) -> web.Response:
    """What a handler returns whose connection has been taken over: it is not sent."""
    del request
    return web.Response(status=101)


def _take_over(request: web.Request, content_type: str) -> socket.socket:
    # uvloop's is none by type, only by its methods.
    transport = cast("Any", request.transport)
    if transport is None:
        raise ConnectionResetError("the client has left")
    transport.pause_reading()
    connection = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    connection.setblocking(False)
    try:
        connection.send(_headers(request, content_type))  # the first bytes of an answer: there is room for them
    except OSError:
        connection.close()
        raise ConnectionResetError("the client has left") from None
    finally:
        transport.abort()  # closes its own descriptor only
    return connection


def _headers(request: web.Request, content_type: str) -> bytes:
    if "upgrade" in request.headers.get("Connection", "").lower():
        lines = ["HTTP/1.1 101 UPGRADED", f"Content-Type: {content_type}", "Connection: Upgrade", "Upgrade: tcp"]
    else:
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {RAW}", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode()
