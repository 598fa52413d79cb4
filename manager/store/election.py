"""Which manager leads: the one whose key, bound to a lease, is the oldest.

A lease alone is no lock: its holder may be paused past its end.  So leadership is also a `Fence`, which every write of
a leader compares, and `lost` fires by the local clock before the lease can have ended.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

from swarmd.manager.store.etcd import PREFIX
from swarmd.manager.store.etcd_client import EtcdClient, prefix_end
from swarmd.manager.store.interface import Fence, Leadership
from swarmd.proto import etcd_pb2 as rpc
from swarmd.proto.backoff import Backoff
from swarmd.proto.errors import Internal, SwarmdError, Unavailable

log = logging.getLogger(__name__)
TTL = 3  # s; etcd does not go below one and a half of its own election timeout
RENEWAL = 0.8  # s
SURE = 2.5  # s since the last renewal was *asked for*: until then the lease cannot have ended


@dataclass(eq=False)
class _Candidate:
    """Satisfies Leadership."""

    lease: int
    fence: Fence
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def lost(self) -> None:
        await self.gone.wait()


class EtcdElection:
    def __init__(self, client: EtcdClient, prefix: str = PREFIX) -> None:
        self._client = client
        self._candidates = f"{prefix}/election/".encode()

    @asynccontextmanager
    async def campaign(self, candidate: str) -> AsyncIterator[Leadership]:
        """Raises Unavailable when the candidacy ends before it won; campaign again."""
        mine = await self._stand(candidate)
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(mine))
                try:
                    await self._first_in_line(mine)
                    yield mine
                finally:
                    renewing.cancel()
        except* SwarmdError as problems:
            raise problems.exceptions[0] from None
        finally:
            with suppress(SwarmdError):
                await self._client.revoke(mine.lease)

    async def leader(self) -> str | None:
        queue = await self._queue()
        return queue[0].value.decode() if queue else None

    async def _stand(self, candidate: str) -> _Candidate:
        lease = await self._client.grant(TTL)
        key = self._candidates + f"{lease:x}".encode()
        request = rpc.TxnRequest()
        request.compare.add(key=key, target=rpc.Compare.CREATE, create_revision=0)
        request.success.add().request_put.CopyFrom(rpc.PutRequest(key=key, value=candidate.encode(), lease=lease))
        answer = await self._client.txn(request)
        if not answer.succeeded:
            raise Internal(f"election key {key.decode()} exists already")
        return _Candidate(lease, Fence(key.decode(), answer.header.revision))

    async def _queue(self) -> list[rpc.KeyValue]:
        _, found = await self._client.range(self._candidates, prefix_end(self._candidates))
        return sorted(found, key=lambda kv: kv.create_revision)

    async def _first_in_line(self, mine: _Candidate) -> None:
        backoff = Backoff(base=0.05, cap=0.5)
        while True:
            try:
                revision, found = await self._client.range(self._candidates, prefix_end(self._candidates))
                before = [kv for kv in found if kv.create_revision < mine.fence.create_revision]
                if not any(kv.key.decode() == mine.fence.key for kv in found):
                    raise _CandidacyLost(f"the candidacy {mine.fence.key} ended: its lease was not renewed in time")
                if not before:
                    return
                watch = self._client.watch(self._candidates, prefix_end(self._candidates), revision + 1)
                async with aclosing(watch) as responses:
                    async for response in responses:
                        if response.events:
                            break
                backoff.reset()
            except _CandidacyLost:
                raise
            except Unavailable as problem:
                log.debug("election: %s", problem)
                await asyncio.sleep(backoff.next())

    async def _renew(self, mine: _Candidate) -> None:
        """Keep the lease; say that leadership is lost while the lease, at the latest, still holds."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        try:
            while True:
                await asyncio.sleep(RENEWAL)
                asked = loop.time()
                with suppress(Unavailable, TimeoutError):
                    async with asyncio.timeout_at(renewed + SURE):
                        if await self._client.keep_alive(mine.lease, deadline=SURE) <= 0:
                            return
                        renewed = asked
                if loop.time() >= renewed + SURE:
                    log.warning("the leader's lease was not renewed for %.1f s: stepping down", SURE)
                    return
        finally:
            mine.gone.set()


class _CandidacyLost(Unavailable):
    pass
