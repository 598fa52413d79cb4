"""The store on etcd: a cache that follows one prefix, and transactions that compare what they expect.

    <prefix>/v1/<kind>/<id>         an object, serialised without its version, which is the key's mod_revision
    <prefix>/names/<kind>/<name>    the id of the object that has the name, so that a name is taken once
    <prefix>/election/<lease>       a candidate (election.py)

An answer that does not come leaves the outcome of a transaction unknown.  The same transaction is then sent again: if
it had been applied, its comparisons fail, and what is there is just what it wants to write.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from swarmd.manager.store.cache import Cache
from swarmd.manager.store.cached import CachedStore
from swarmd.manager.store.etcd_client import EtcdClient, UnknownOutcome, prefix_end
from swarmd.manager.store.interface import AnyObject, Fence, LeadershipLost
from swarmd.manager.store.tables import KINDS, Key, Kind, kind_name
from swarmd.manager.store.transaction import Limits, Transaction
from swarmd.proto import etcd_pb2 as rpc
from swarmd.proto.backoff import Backoff
from swarmd.proto.clock import Clock
from swarmd.proto.errors import SwarmdError, Unavailable

log = logging.getLogger(__name__)
PREFIX = "/swarmd"
PATIENCE = 5.0  # s, for a transaction whose outcome is unknown, and for the watch to bring what was committed


@asynccontextmanager
async def open_store(
    client: EtcdClient, clock: Clock, limits: Limits | None = None, prefix: str = PREFIX
) -> AsyncIterator[CachedStore]:
    """Enter once everything is in the cache; raises Unavailable if etcd does not answer."""
    follower = _Follower(client, Keys(prefix))
    revision = await follower.list()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(follower.follow(revision))
        yield CachedStore(follower.cache, follower, clock, limits or Limits())
        following.cancel()


class _Follower:
    """Keeps the cache what etcd holds, and commits: satisfies Committer."""

    def __init__(self, client: EtcdClient, keys: "Keys") -> None:
        self._keys = keys
        self.cache = Cache()
        self._client = client

    # ------------------------------------------------------------ following

    async def list(self) -> int:
        """Make the cache what etcd holds now; return the revision of that."""
        revision, found = await self._client.range(self._keys.objects, prefix_end(self._keys.objects))
        self.cache.replace(revision, [decoded(self._keys.parsed(kv.key), kv) for kv in found])
        return revision

    async def follow(self, revision: int) -> None:
        """Watch from the revision after the last one delivered; list again what was compacted away."""
        backoff = Backoff(base=0.05, cap=1.0)
        while True:
            try:
                objects = self._keys.objects
                async with aclosing(self._client.watch(objects, prefix_end(objects), revision + 1)) as responses:
                    async for response in responses:
                        backoff.reset()
                        if response.compact_revision:
                            log.info("revision %d is compacted: listing again", revision)
                            revision = await self.list()
                            break
                        for at, writes in by_revision(response, self._keys):
                            self.cache.apply(at, writes)
                            revision = at
            except SwarmdError as problem:
                log.debug("watch resumes after revision %d: %s", revision, problem)
                await asyncio.sleep(backoff.next())

    # ------------------------------------------------------------ committing

    async def commit(self, tx: Transaction, fence: Fence | None) -> bool:
        request = request_of(tx, fence, self._keys)
        if not request.success:  # what is deleted was never there
            return True
        response, resent = await self._sent(request)
        if response.succeeded:
            await self._caught_up(response.header.revision)
            return True
        found = {kv.key: kv for answer in response.responses for kv in answer.response_range.kvs}
        if resent and is_there(request, found):
            await self._caught_up(max(kv.mod_revision for kv in found.values()))
            return True
        if fence and (kv := found.get(fence.key.encode(), rpc.KeyValue())).create_revision != fence.create_revision:
            raise LeadershipLost(f"the leader's key {fence.key} is gone{f': {kv.value!r} has it' if kv.value else ''}")
        # Deleted keys have no revision to wait for: the caller runs again after a pause, and sees them gone by then.
        ours = [kv.mod_revision for kv in found.values() if kv.key.startswith(self._keys.objects)]
        await self._caught_up(max(ours, default=0))
        return False

    async def _sent(self, request: rpc.TxnRequest) -> tuple[rpc.TxnResponse, bool]:
        """(the answer, whether it was sent more than once)."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        resent = False
        while True:
            try:
                return await self._client.txn(request), resent
            except Unavailable as problem:
                resent |= isinstance(problem, UnknownOutcome)
                if loop.time() > end:
                    doubt = ": the change may or may not have been made" if resent else ""
                    raise Unavailable(f"{problem}{doubt}") from None
                await asyncio.sleep(0.05)

    async def _caught_up(self, revision: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self.cache.until(lambda: self.cache.revision >= revision)
        except TimeoutError:
            raise Unavailable("etcd made the change but does not tell of it: it may have lost its quorum") from None


@dataclass(frozen=True, slots=True)
class Keys:
    """Where things are under a prefix."""

    prefix: str

    @property
    def objects(self) -> bytes:
        return f"{self.prefix}/v1/".encode()

    def object(self, key: Key) -> bytes:
        kind, id = key
        return self.objects + f"{kind_name(kind)}/{id}".encode()

    def name(self, kind: Kind, name: str) -> bytes:
        return f"{self.prefix}/names/{kind_name(kind)}/{name}".encode()

    def parsed(self, key: bytes) -> Key:
        kind, _, id = key.removeprefix(self.objects).decode().partition("/")
        return _KINDS[kind], id


def request_of(tx: Transaction, fence: Fence | None, keys: Keys) -> rpc.TxnRequest:
    """Compare all that is expected, write all that is written; if anything differs, tell how it is."""
    request = rpc.TxnRequest()
    if fence:
        key = fence.key.encode()
        request.compare.add(key=key, target=rpc.Compare.CREATE, create_revision=fence.create_revision)
    for expected, version in tx.expected.items():
        request.compare.add(key=keys.object(expected), target=rpc.Compare.MOD, mod_revision=version)
    for written, obj in tx.writes.items():
        if obj is None and not tx.expected[written]:
            continue
        _write(request, keys.object(written), None if obj is None else obj.SerializeToString(deterministic=True))
    for (kind, name), taker in tx.name_claims().items():
        if taker is not None and tx.is_free(kind, name):
            request.compare.add(key=keys.name(kind, name), target=rpc.Compare.CREATE, create_revision=0)
        _write(request, keys.name(kind, name), None if taker is None else taker.encode())
    for one in request.compare:
        request.failure.add().request_range.key = one.key
    return request


def _write(request: rpc.TxnRequest, key: bytes, value: bytes | None) -> None:
    if value is None:
        request.success.add().request_delete_range.key = key
    else:
        put = request.success.add().request_put
        put.key, put.value = key, value


def is_there(request: rpc.TxnRequest, found: dict[bytes, rpc.KeyValue]) -> bool:
    """Whether what was found is what the request would have written."""
    compared = {one.key for one in request.compare}
    return bool(found) and all(
        found.get(op.request_put.key, rpc.KeyValue()).value == op.request_put.value
        if op.HasField("request_put")
        else op.request_delete_range.key not in found
        for op in request.success
        if (op.request_put.key or op.request_delete_range.key) in compared
    )


def by_revision(response: rpc.WatchResponse, keys: Keys) -> Iterator[tuple[int, list[tuple[Key, AnyObject | None]]]]:
    """The changes of each revision, in order."""
    writes: list[tuple[Key, AnyObject | None]] = []
    at = 0
    for event in response.events:
        if at and event.kv.mod_revision != at:
            yield at, writes
            writes = []
        at = event.kv.mod_revision
        key = keys.parsed(event.kv.key)
        writes.append((key, decoded(key, event.kv) if event.type == rpc.Event.PUT else None))
    if writes:
        yield at, writes


_KINDS: dict[str, Kind] = {kind_name(kind): kind for kind in KINDS}


def decoded(key: Key, kv: rpc.KeyValue) -> AnyObject:
    obj: AnyObject = key[0].FromString(kv.value)
    obj.version.index = kv.mod_revision
    return obj
