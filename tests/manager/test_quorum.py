"""A store that can't be written is explained by how many managers answer."""

import asyncio
from typing import Any

from swarmd.manager.quorum import answering, explain_unavailable
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import AnyObject
from tests.manager.records import Records, node


def manager(id: str, port: int) -> AnyObject:
    made = edited(node(id, manager=True))
    made.manager_status.addr = f"127.0.0.1:{port}"
    return made


async def explained(*ports: int) -> str:
    records: Any = Records(*(manager(f"n{n}", port) for n, port in enumerate(ports)))
    return await explain_unavailable(records, "the store did not answer")


async def test_the_lost_quorum_is_counted() -> None:
    async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await answering([f"127.0.0.1:{port}", "127.0.0.1:1"]) == [True, False]
        assert "lost its quorum (1 of 3 managers answers; 2 are needed)" in await explained(port, 1, 1)
        assert await explained(port, port, 1) == "the store did not answer"
