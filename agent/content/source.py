"""Content from other nodes of the cluster, as arrivals.fetch wants it.

A blob is read from one node, to its end; several blobs come from several.  Nodes that are receiving it themselves serve
as well, as far as they are: whoever begins later reads from one who began before, and the origin sends few copies.
**Invariant:** a node only reads from one that has more than itself, so they never wait for each other in a circle.
"""

import asyncio
import random
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from swarmd.agent.content.peers import Busy, Lost, Peers
from swarmd.agent.content.places import SMALL
from swarmd.proto.clock import Clock
from swarmd.proto.dispatcher_pb2 import Holder
from swarmd.runtime.errors import NotFound
from swarmd.runtime.images.manifests import Descriptor

ALONE = 2.0  # s, in which a node looks for one that it has to itself; then it shares
SHARED_BY = 2  # nodes
PAUSE = 0.06  # s, between looks, up to double
PASSES = 3  # in vain, one after another, are enough if all answer
PATIENCE = 5.0  # s, with those that don't
ASKED = (3, 12)  # nodes in one look, of those that have all of it and of those that are receiving it


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node has of a blob."""

    holder: Holder
    size: int
    whole: bool
    readers: int


class ClusterSource:
    """Satisfies arrivals.Source."""

    def __init__(
        self,
        holders: Callable[[], Awaitable[Sequence[Holder]]],
        peers: Peers,
        clock: Clock,
        rng: random.Random,
        *,
        only_whole: bool = False,
    ) -> None:
        """holders: whom to ask, this node not among them; only_whole: not those that are still receiving it."""
        self._holders = holders
        self._peers = peers
        self._clock = clock
        self._rng = rng
        self._only_whole = only_whole
        self.problems: dict[str, str] = {}  # by hostname, the last of each
        self.served: set[str] = set()  # hostnames

    async def document(self, descriptor: Descriptor) -> bytes:
        async with aclosing(self.blob(descriptor)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def blob(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """Raises NotFound when no node that answers has more of it."""
        offset, passes, since = 0, 0, self._clock.monotonic()
        while offset < descriptor.size:
            offers, all_answer = await self._offers(descriptor.digest, offset)
            passes = 0 if offers else passes + 1
            if passes >= PASSES and (all_answer or self._clock.monotonic() - since > PATIENCE):
                raise NotFound(f"content {descriptor.digest} is on no node that answers")
            sharing = 1 if self._clock.monotonic() - since < ALONE else SHARED_BY
            before = offset
            for offer in self._by_preference(offers, sharing if descriptor.size > SMALL else sys.maxsize):
                pieces = self._peers.read(offer.holder, descriptor.digest, offset, sharing)
                try:
                    async with aclosing(pieces):
                        async for data in pieces:
                            offset += len(data)
                            yield data
                    if offset > before:
                        self.served.add(offer.holder.hostname)
                        break
                except Busy:
                    continue
                except Lost as problem:
                    self.problems[offer.holder.hostname] = str(problem)
                    if offset > before:
                        break
            if offset > before:
                since = self._clock.monotonic()
            elif offset < descriptor.size:
                await self._clock.sleep(PAUSE * self._rng.uniform(1, 2))

    def _by_preference(self, offers: Sequence[Offer], readers: int) -> list[Offer]:
        """Those with fewer readers, the emptiest first."""
        free = [offer for offer in offers if offer.readers < readers]
        self._rng.shuffle(free)
        return sorted(free, key=lambda offer: offer.readers)

    async def _offers(self, digest: str, offset: int) -> tuple[list[Offer], bool]:
        """Of the nodes that have more than offset; and whether all that were asked have answered."""
        holders = list(await self._holders())
        self._rng.shuffle(holders)
        whole = [holder for holder in holders if not holder.image.coming][: ASKED[0]]
        coming = [holder for holder in holders if holder.image.coming][: ASKED[1]]
        asked = whole if self._only_whole else [*whole, *coming]
        answers = await asyncio.gather(*(self._offer(holder, digest) for holder in asked))
        ahead = [offer for offer in answers if offer and offer.size > offset and (offer.whole or not self._only_whole)]
        return ahead, None not in answers

    async def _offer(self, holder: Holder, digest: str) -> Offer | None:
        try:
            return Offer(holder, *await self._peers.have(holder, digest))
        except Lost as problem:
            self.problems[holder.hostname] = str(problem)
            return None
