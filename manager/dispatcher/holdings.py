"""Which images nodes hold: one object for each node, as its agent says it on every session and whenever it changes.

Nobody here acts on it: agents ask, and fetch from one another.
"""

from collections.abc import Iterator

from swarmd.manager.ca.certifier import host_port
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Store, Tx, View
from swarmd.proto.dispatcher_pb2 import Holder, HoldersRequest
from swarmd.proto.objects_pb2 import NODE_STATE_READY, HeldImage, Holdings, Node


async def note(store: Store, node_id: str, told: Holdings) -> None:
    def write(tx: Tx) -> None:
        if tx.get(Node, node_id) is None:
            return
        known = tx.get(Holdings, node_id)
        if known is not None and list(known.images) == list(told.images):
            return
        holdings = edited(known) if known is not None else Holdings(id=node_id)
        holdings.ClearField("images")
        holdings.images.extend(told.images)
        tx.put(holdings)

    await store.transact(write)


def holders(view: View, asked: HoldersRequest) -> Iterator[Holder]:
    """Who has what was asked for, or is receiving it."""
    for holdings in view.find(Holdings):
        node = view.get(Node, holdings.id)
        if node is None:
            continue
        for image in holdings.images:
            if _is_meant(image, asked):
                yield Holder(
                    node_id=node.id,
                    hostname=node.description.hostname,
                    addr=host_port(node.description.addr, node.description.agent_port),
                    ready=node.status.state == NODE_STATE_READY,
                    image=image,
                )


def _is_meant(image: HeldImage, asked: HoldersRequest) -> bool:
    if asked.digest:
        return image.digest == asked.digest
    if asked.name:
        return asked.name in image.names
    below = (f"{asked.repository}:", f"{asked.repository}@")
    return any(name.startswith(below) and "/" not in name.removeprefix(asked.repository) for name in image.names)
