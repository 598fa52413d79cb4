"""How many managers answer: for the sentence of a lost quorum, and for `node ls`."""

import asyncio
from collections.abc import Iterable

from swarmd.manager.store.interface import Store
from swarmd.proto.objects_pb2 import Node

PATIENCE = 0.7  # s


async def answers(address: str, patience: float = PATIENCE) -> bool:
    """Whether something listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(patience):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True


async def answering(addresses: Iterable[str]) -> list[bool]:
    return await asyncio.gather(*(answers(address) for address in addresses))


async def explain_unavailable(store: Store, reason: str) -> str:
    """The sentence for a store that can't be written: that the quorum is lost and by how much, if that is why."""
    managers = [node.manager_status.addr for node in store.view().find(Node) if node.manager_status.addr]
    up = sum(await answering(managers))
    if managers and up <= len(managers) // 2:
        return (
            f"the cluster has lost its quorum ({up} of {len(managers)} managers answers; "
            f"{len(managers) // 2 + 1} are needed): running tasks go on, changes have to wait until more are back"
        )
    return reason
