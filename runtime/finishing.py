"""Steps that come to their end once they have begun, even when whoever asked for them is gone meanwhile."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finished(work: Coroutine[Any, Any, T] | asyncio.Task[T]) -> T:
    """Return what work returns; being cancelled meanwhile, however often, is raised only after its end."""
    cancelled: asyncio.CancelledError | None = None
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        if not task.cancelled():
            task.exception()  # asked for, so that nobody is told that it was lost
        raise cancelled
    return task.result()
