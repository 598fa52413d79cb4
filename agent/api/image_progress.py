"""Long work on images as a stream of JSON lines, in the words and forms that Docker's clients show.

An error before the first line is answered by its status, a later one by a line.  A client that goes ends the work.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from swarmd.agent.api.streams import json_line
from swarmd.proto.errors import SwarmdError
from swarmd.runtime.build.dockerfile import DockerfileError
from swarmd.runtime.errors import Denied, RuntimeFault, Unauthorized
from swarmd.runtime.images.arrivals import Progress

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0  # s, for whether the client is still there
_BAR = 50  # characters
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

Line = dict[str, Any]
Say = Callable[[Line], None]


def line(progress: Progress) -> Line:
    """What becomes of one piece of content; without an id it is about the whole."""
    shown: Line = {"status": progress.status}
    if progress.id:
        shown |= {"progressDetail": {}, "id": progress.id}
    if progress.current or progress.total:
        shown["progressDetail"] = {"current": progress.current, "total": progress.total}
        shown["progress"] = _bar(progress.current, progress.total)
    return shown


def _bar(current: int, total: int) -> str:
    if not total:
        return _amount(current)
    done = min(_BAR, current * _BAR // total)
    head = ">" if done < _BAR else ""
    return f"[{'=' * done}{head}{' ' * (_BAR - done - len(head))}]  {_amount(current):>8}/{_amount(total)}"


def _amount(size: float) -> str:
    """Four digits, as Docker has it: 1.234MB."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.4g}{_UNITS[unit]}"


async def streamed(request: web.Request, work: Callable[[Say], Coroutine[Any, Any, None]]) -> web.StreamResponse:
    """Run it, and send what it says at once."""
    lines: asyncio.Queue[Line | None] = asyncio.Queue()
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    task = asyncio.ensure_future(work(lines.put_nowait))
    task.add_done_callback(lambda _: lines.put_nowait(None))
    try:
        while (said := await _next(request, lines)) is not None:
            if not response.prepared:
                await response.prepare(request)
            await response.write(json_line(said))
        try:
            await task
        except Exception as error:
            if not response.prepared:
                raise denied(error) from error
            await response.write(json_line(_failure(request, error)))
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
    finally:
        task.cancel()
        await asyncio.wait([task])
    return response


def denied(error: Exception) -> Exception:
    """The same with another status than 401, at which Docker's command asks for a password, terminal or not."""
    return Denied(str(error)) if isinstance(error, Unauthorized) else error


async def _next(request: web.Request, lines: "asyncio.Queue[Line | None]") -> Line | None:
    while True:
        try:
            async with asyncio.timeout(_LOOK_EVERY):
                return await lines.get()
        except TimeoutError:
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client has gone") from None


def _failure(request: web.Request, error: Exception) -> Line:
    if not isinstance(error, RuntimeFault | SwarmdError):
        log.error("%s %s failed", request.method, request.path, exc_info=error)
    said = error.shown() if isinstance(error, DockerfileError) else str(error)
    code = {"code": error.code} if isinstance(error, DockerfileError) and error.code else {}
    return {"errorDetail": {**code, "message": said}, "error": said}
