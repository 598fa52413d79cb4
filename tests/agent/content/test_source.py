"""Content from node to node on virtual time: links that take their time, nodes that die, and damaged content."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

from swarmd.agent.content.peers import STALL, Busy, Lost
from swarmd.agent.content.places import Places
from swarmd.agent.content.source import ClusterSource
from swarmd.proto.dispatcher_pb2 import Holder
from swarmd.proto.objects_pb2 import HeldImage
from swarmd.runtime.errors import Exhausted, NotFound
from swarmd.runtime.images.manifests import Descriptor
from tests.simulation.virtual import VirtualClock, run

MIB = 1 << 20
RATE = 12.5 * MIB  # bytes/s, of each link in each direction
PIECE = 256 * 1024
CONTENT = bytes(PIECE)
SIZE = 100 * MIB
LATENCY = 0.001  # s
BLOB = Descriptor(digest=f"sha256:{'1' * 64}", size=SIZE)


@dataclass
class Node:
    """How much of the blob it has, and what it has sent, in bytes."""

    name: str
    size: int = 0
    sent: int = 0
    alive: bool = True
    uplink: asyncio.Lock = field(default_factory=asyncio.Lock)
    places: Places = field(default_factory=lambda: Places(VirtualClock().monotonic))
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def holder(self) -> Holder:
        image = HeldImage(coming=self.size < SIZE)
        return Holder(node_id=self.name, hostname=self.name, ready=True, image=image)

    def grow(self, size: int) -> None:
        self.size += size
        self.grown.set()
        self.grown = asyncio.Event()


class Network:
    """All nodes; satisfies Peers, for one of them."""

    def __init__(self, nodes: dict[str, Node], own: str) -> None:
        self._nodes = nodes
        self._own = own

    async def have(self, holder: Holder, digest: str) -> tuple[int, bool, int]:
        await asyncio.sleep(LATENCY)
        node = self._reached(holder)
        return node.size, node.size == SIZE, node.places.others(self._own)

    async def read(self, holder: Holder, digest: str, offset: int, sharing: int) -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(LATENCY)
        node = self._reached(holder)
        try:
            with node.places.taken(self._own, sharing):
                while offset < SIZE:
                    while node.size <= offset and node.alive:
                        await asyncio.wait_for(node.grown.wait(), STALL)
                    self._reached(holder)
                    length = min(PIECE, node.size - offset)
                    async with node.uplink:
                        await asyncio.sleep(length / RATE)
                    self._reached(holder)
                    node.sent += length
                    offset += length
                    yield CONTENT if length == PIECE else CONTENT[:length]
        except TimeoutError:
            raise Lost("it sends nothing") from None
        except Exhausted as full:
            raise Busy(str(full)) from None

    def _reached(self, holder: Holder) -> Node:
        node = self._nodes[holder.node_id]
        if not node.alive:
            raise Lost("it does not answer")
        return node


class World:
    def __init__(self, receivers: int, origins: int = 1) -> None:
        names = [f"n{number}" for number in range(receivers)]
        self.origins = [f"origin{number}" for number in range(origins)]
        self.nodes = {name: Node(name) for name in names} | {name: Node(name, SIZE) for name in self.origins}
        self.receivers = names
        self.at: dict[str, float] = {}

    async def bring(self, name: str, seed: int = 0, *, only_whole: bool = False) -> None:
        async def holders() -> Sequence[Holder]:
            await asyncio.sleep(LATENCY)
            return [node.holder() for node in self.nodes.values() if node.name != name]

        rng = random.Random(f"{name} {seed}")
        await asyncio.sleep(rng.uniform(0, 0.05))
        source = ClusterSource(holders, Network(self.nodes, name), VirtualClock(), rng, only_whole=only_whole)
        async for data in source.blob(BLOB):
            self.nodes[name].grow(len(data))
        self.at[name] = asyncio.get_running_loop().time()

    async def roll_out(self, seed: int = 0) -> float:
        async with asyncio.TaskGroup() as group:
            for name in self.receivers:
                group.create_task(self.bring(name, seed))
        assert all(self.nodes[name].size == SIZE for name in self.receivers)
        return max(self.at.values())

    def die(self, name: str) -> None:
        node = self.nodes[name]
        node.alive = False
        node.grow(0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("receivers", "most"), [(1, 1.02), (8, 1.2), (32, 1.4), (64, 2.6)])
def test_many_take_little_longer_than_one_and_the_origin_sends_at_most_two_copies(
    receivers: int, most: float, seed: int
) -> None:
    async def scene() -> None:
        world = World(receivers)
        took = await world.roll_out(seed)
        assert took <= most * SIZE / RATE, f"{took:.1f} s"
        assert world.nodes["origin0"].sent <= 2 * SIZE

    run(scene())


def test_several_origins_share_the_work() -> None:
    async def scene() -> None:
        world = World(8, origins=3)
        await world.roll_out()
        assert min(world.nodes[name].sent for name in world.origins) > SIZE // 4

    run(scene())


@pytest.mark.parametrize("seed", range(5))
def test_a_node_that_dies_in_the_middle_costs_those_behind_it_seconds_only(seed: int) -> None:
    async def scene() -> None:
        world = World(8)
        rolling = asyncio.ensure_future(world.roll_out(seed))
        await asyncio.sleep(4)
        serving = max((name for name in world.receivers), key=lambda name: world.nodes[name].sent)
        victim = world.nodes[serving]
        world.receivers.remove(serving)
        world.die(serving)
        assert await rolling <= 2 * SIZE / RATE + 3
        assert victim.size <= SIZE

    run(scene())


def test_when_the_origin_dies_what_nodes_have_together_is_not_enough_and_that_is_told() -> None:
    async def scene() -> None:
        world = World(3)
        rolling = [asyncio.ensure_future(world.bring(name)) for name in world.receivers]
        await asyncio.sleep(2)
        world.die("origin0")
        began = asyncio.get_running_loop().time()
        for result in await asyncio.gather(*rolling, return_exceptions=True):
            assert isinstance(result, NotFound)
        assert asyncio.get_running_loop().time() - began < 60

    run(scene())


def test_the_origin_may_die_once_another_node_has_all_of_it() -> None:
    async def scene() -> None:
        world = World(4)
        await world.bring("n0")
        world.die("origin0")
        world.receivers = ["n1", "n2", "n3"]
        await world.roll_out()

    run(scene())


def test_content_that_nobody_has_is_told_within_a_second() -> None:
    async def scene() -> None:
        world = World(3)
        world.nodes["origin0"].size = 0
        with pytest.raises(NotFound, match="is on no node that answers"):
            await world.bring("n0")
        assert asyncio.get_running_loop().time() < 1

    run(scene())


def test_those_that_have_all_of_it_can_be_asked_alone() -> None:
    async def scene() -> None:
        world = World(2)
        world.nodes["n1"].grow(SIZE // 2)
        await world.bring("n0", only_whole=True)
        assert world.nodes["n1"].sent == 0

    run(scene())
