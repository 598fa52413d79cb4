"""Reads answers of registries, bounded."""

import aiohttp

from swarmd.runtime.errors import Invalid
from swarmd.runtime.registry.transport import Transport


async def read(transport: Transport, response: aiohttp.ClientResponse, most: int, what: str) -> bytes:
    """The body and no more; Invalid naming `what` if it is larger than `most` bytes, Broken if it ends early."""
    parts: list[bytes] = []
    size = 0
    try:
        async with response:
            async for part in response.content.iter_any():
                size += len(part)
                if size > most:
                    response.close()
                    raise Invalid(f"{what} is larger than the {most} bytes that it may have")
                parts.append(part)
    except (aiohttp.ClientError, OSError) as error:
        raise transport.explained(error, response.url) from error
    return b"".join(parts)
