"""When to ask again, and how long to wait before."""

import asyncio
import random

import aiohttp
from yarl import URL

from swarmd.runtime.registry.failures import Broken, retry_after
from swarmd.runtime.registry.settings import Endpoint, Patience
from swarmd.runtime.registry.transport import Body, Transport

_TEMPORARY = frozenset({429, 500, 502, 503, 504})


class Waits:
    """Ever longer waits, part of each at random so that many clients don't come back at once."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.failed = 0  # in a row

    def progressed(self) -> None:
        self.failed = 0

    def exhausted(self) -> bool:
        """Count a failure; whether it was one too many."""
        self.failed += 1
        return self.failed >= self._patience.tries

    async def pause(self, at_least: float = 0.0) -> None:
        bound = min(self._patience.longest_wait, self._patience.first_wait * 2 ** (self.failed - 1))
        await asyncio.sleep(max(at_least, random.uniform(bound / 2, bound)))


async def persist(
    transport: Transport, endpoint: Endpoint, method: str, place: str | URL, headers: dict[str, str], body: Body = b""
) -> aiohttp.ClientResponse:
    """Ask until there is an answer that another try would not better; raises Broken when patience ends.

    A host that has never answered is asked once: it is more likely wrong than starting. So is one that is sent a
    stream, which can't be sent again.
    """
    patience = transport.settings.patience
    waits = Waits(patience)
    while True:
        try:
            answer = await transport.open(endpoint, method, place, headers, body)
        except Broken as broken:
            hopeless = not broken.again or not (broken.met or transport.known(endpoint.host))
            if hopeless or not isinstance(body, bytes) or waits.exhausted():
                raise
            await waits.pause()
            continue
        wanted = retry_after(answer.headers) or 0.0
        if (
            answer.status not in _TEMPORARY
            or not isinstance(body, bytes)
            or wanted > patience.longest_retry_after
            or waits.exhausted()
        ):
            return answer
        answer.release()
        await waits.pause(wanted)
