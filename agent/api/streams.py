"""Streams of the Engine API: log frames, JSON lines, and answers that must start before their content is there.

A frame is one byte of stream (1 stdout, 2 stderr), three zero bytes, the length in four bytes, and the data.
"""

import json
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote_plus

from aiohttp import web

from swarmd.proto.errors import SwarmdError
from swarmd.runtime.errors import RuntimeFault

log = logging.getLogger(__name__)

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"
_NUMBERS = {"stdout": 1, "stderr": 2}


def frame(stream: str, data: bytes) -> bytes:
    return bytes((_NUMBERS[stream], 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def stamp(ns: int) -> str:
    """RFC 3339 with nanoseconds, as Docker writes it."""
    whole = datetime.fromtimestamp(ns // 10**9, UTC).replace(tzinfo=None)
    return f"{whole.isoformat()}.{ns % 10**9:09d}Z"


def details_of(attributes: Mapping[str, str]) -> str:
    """What is said of a line before it, as Docker writes it."""
    return ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(attributes.items()))


async def respond(
    request: web.Request, content_type: str, chunks: AsyncIterator[bytes], headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send chunks as they come; headers go first, so that a client that follows knows it is connected.

    What fails in the middle ends with the connection: nobody takes it for the whole, and there is no second answer.
    """
    response = web.StreamResponse(headers={"Content-Type": content_type, **(headers or {})})
    await response.prepare(request)
    try:
        async with aclosing(cast("Any", chunks)):
            async for chunk in chunks:
                await response.write(chunk)
        await response.write_eof()
    except Exception as problem:
        transport = request.transport
        if transport is not None and not transport.is_closing():  # else the client has gone, and that is all
            expected = isinstance(problem, RuntimeFault | SwarmdError)
            log.warning("%s %s was cut off: %s", request.method, request.path, problem, exc_info=not expected)
            transport.abort()
    return response


def answer(value: object, status: int = 200) -> web.Response:
    """JSON without a charset: Docker's clients read an error's message only under exactly this content type."""
    return web.Response(body=json.dumps(value).encode(), status=status, headers={"Content-Type": "application/json"})


def json_line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\r\n"


def progress(lines: Iterable[dict[str, Any]]) -> web.Response:
    return web.Response(body=b"".join(map(json_line, lines)), content_type="application/json")
