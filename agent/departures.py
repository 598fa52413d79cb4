"""Managers that go for ever: this one, which leaves by force, or all the others, whose quorum is lost."""

import asyncio
from contextlib import suppress

from swarmd.agent.control_client import ControlClient
from swarmd.agent.member import Member
from swarmd.proto import control_pb2 as pb
from swarmd.proto.errors import Conflict, SwarmdError
from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER, NODE_ROLE_WORKER, Node, Object

ANSWER = 8.0  # s, for a quorum to answer; a manager that starts has to be given time
STEP_DOWN = 15.0  # s, for a demoted manager to be taken out of the store and to become a worker
POLL = 0.1  # s


async def managers(control: ControlClient) -> list[Node]:
    filters = {"role": pb.Values(values=["manager"])}
    request = pb.ListRequest(kind=pb.KIND_NODE, filters=filters)
    return [found.node async for batch in control.List(request) for found in batch.objects]


async def step_down(member: Member, node_id: str) -> str:
    """Make this manager a worker, whose leaving takes no member of the store along.

    Returns '' or a sentence that says what stays behind; the last manager leaves nobody behind whom that matters to.
    """
    try:
        async with asyncio.timeout(ANSWER):
            assert member.control is not None
            if len(await managers(member.control)) == 1:
                return ""
            await _demote(member.control, node_id)
    except TimeoutError:
        return _left_behind(node_id, f"no quorum of managers answered within {ANSWER:g} s")
    except SwarmdError as refusal:
        return _left_behind(node_id, str(refusal))
    with suppress(TimeoutError):
        async with asyncio.timeout(STEP_DOWN):
            await member.until_role_changes()
    return ""


async def _demote(control: ControlClient, node_id: str) -> None:
    while True:
        node = Node()
        node.CopyFrom((await control.Get(pb.GetRequest(kind=pb.KIND_NODE, ref=node_id))).node)
        if node.spec.role != NODE_ROLE_MANAGER:
            return
        node.spec.role = NODE_ROLE_WORKER
        try:
            await control.Update(pb.UpdateRequest(object=Object(node=node)))
        except Conflict:  # the leader writes to nodes too
            await asyncio.sleep(POLL)
        else:
            return


def _left_behind(node_id: str, reason: str) -> str:
    return (
        f"this node's member of the cluster's store stays behind ({reason}): on a manager that stays, "
        f"run 'swarmctl node demote {node_id}' and 'swarmctl node rm {node_id}'"
    )


async def has_quorum(control: ControlClient) -> bool:
    """Whether the managers answer, as a majority, within some seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(ANSWER):
            while True:
                with suppress(SwarmdError):
                    if (await control.Status(pb.StatusRequest())).quorum:
                        return True
                await asyncio.sleep(POLL)
    return False
