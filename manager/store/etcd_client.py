"""etcd's v3 API over gRPC: which endpoint to ask, how long to wait, what its errors mean.

Every call has a deadline.  A call that an endpoint did not answer goes to the next one, if running it twice is harmless
(`idempotent`); else the caller is told that its outcome is unknown.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc
from grpc import aio

from swarmd.proto import etcd_pb2 as rpc
from swarmd.proto import etcd_pb2_grpc as stubs
from swarmd.proto.errors import Exhausted, SwarmdError, Unavailable
from swarmd.proto.rpc import unanswered

log = logging.getLogger(__name__)
R = TypeVar("R")

PATIENCE = 2.0  # s, for one endpoint to answer
DEADLINE = 4.0  # s, for any to answer
PAGE = 1000  # keys of one range request
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# etcd cancels a stream that a member without a leader serves, rather than keeping it silent.
REQUIRE_LEADER = (("hasleader", "true"),)


@dataclass(frozen=True, slots=True)
class EtcdTLS:
    certificate: bytes  # PEM
    key: bytes
    root: bytes

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.root, self.key, self.certificate)


class UnknownOutcome(Unavailable):
    """Nobody answered: what was sent may have been applied, or may yet be."""


class Endpoint:
    """One etcd member as a client sees it."""

    def __init__(self, url: str, tls: EtcdTLS | None) -> None:
        self.url = url
        target = url.partition("://")[2]
        self.channel = (
            aio.secure_channel(target, tls.credentials(), OPTIONS) if tls else aio.insecure_channel(target, OPTIONS)
        )
        self.kv = stubs.KVStub(self.channel)
        self.watch = stubs.WatchStub(self.channel)
        self.lease = stubs.LeaseStub(self.channel)
        self.cluster = stubs.ClusterStub(self.channel)
        self.maintenance = stubs.MaintenanceStub(self.channel)


Call = Callable[[Endpoint], Awaitable[R]]


class EtcdClient:
    def __init__(self, endpoints: Sequence[str], tls: EtcdTLS | None = None) -> None:
        self._tls = tls
        self._endpoints = [Endpoint(url, tls) for url in endpoints]

    async def close(self) -> None:
        for endpoint in self._endpoints:
            await endpoint.channel.close(None)

    async def __aenter__(self) -> "EtcdClient":
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.close()

    @property
    def urls(self) -> list[str]:
        return [endpoint.url for endpoint in self._endpoints]

    async def use(self, urls: Sequence[str]) -> None:
        """Talk to these endpoints from now on; those kept keep their connections and order."""
        kept = [endpoint for endpoint in self._endpoints if endpoint.url in urls]
        dropped = [endpoint for endpoint in self._endpoints if endpoint.url not in urls]
        known = {endpoint.url for endpoint in kept}
        self._endpoints = [*kept, *(Endpoint(url, self._tls) for url in urls if url not in known)]
        for endpoint in dropped:
            await endpoint.channel.close(None)

    async def renew(self, tls: EtcdTLS) -> None:
        """Show this certificate from now on: a channel shows the one it was made with.

        Calls under way get time to end; a watch ends, and its caller resumes it.
        """
        outdated, self._tls = self._endpoints, tls
        self._endpoints = [Endpoint(endpoint.url, tls) for endpoint in outdated]
        await asyncio.gather(*(endpoint.channel.close(PATIENCE) for endpoint in outdated))

    @property
    def current(self) -> Endpoint:
        return self._endpoints[0]

    def rotate(self, failed: Endpoint) -> None:
        """Ask another endpoint first."""
        if self._endpoints[0] is failed:
            self._endpoints.append(self._endpoints.pop(0))

    async def call(self, what: str, call: Call[R], *, idempotent: bool = True, deadline: float = DEADLINE) -> R:
        """Raises Unavailable; UnknownOutcome if sent and not idempotent; Exhausted when etcd's disk is full."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline
        while True:
            endpoint = self.current
            try:
                async with asyncio.timeout(min(PATIENCE, max(0.05, end - loop.time()))):
                    return await call(endpoint)
            except TimeoutError:
                problem: SwarmdError = UnknownOutcome(f"etcd did not answer in time ({what})")
            except aio.AioRpcError as error:
                problem = explained(error, what)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # grpc cancels the calls of a channel that is closed, those that were sent too
                problem = UnknownOutcome(f"the connection to etcd was closed ({what})")
            self.rotate(endpoint)
            unknown = isinstance(problem, UnknownOutcome) and not idempotent
            if unknown or not isinstance(problem, Unavailable) or loop.time() >= end:
                raise problem
            await asyncio.sleep(0.05)

    # ------------------------------------------------------------ keys

    async def range(self, key: bytes, end: bytes = b"", revision: int = 0) -> tuple[int, list[rpc.KeyValue]]:
        """All keys of a range as of one revision, fetched in pages; (that revision, key-values in key order)."""
        found: list[rpc.KeyValue] = []
        while True:
            request = rpc.RangeRequest(key=key, range_end=end, limit=PAGE, revision=revision)
            page = await self.call("range", lambda at, r=request: at.kv.Range(r))  # type: ignore[misc]
            revision = revision or page.header.revision
            found += page.kvs
            if not page.more:
                return revision, found
            key = page.kvs[-1].key + b"\0"

    async def txn(self, request: rpc.TxnRequest) -> rpc.TxnResponse:
        """Raises UnknownOutcome when nobody answered."""
        return await self.call("transaction", lambda at: at.kv.Txn(request), idempotent=False)

    async def watch(self, key: bytes, end: bytes, revision: int) -> AsyncGenerator[rpc.WatchResponse, None]:
        """Whole responses from `revision` on, on one endpoint; raises Unavailable when it ends.  The caller resumes."""
        endpoint = self.current
        create = rpc.WatchCreateRequest(
            key=key, range_end=end, start_revision=revision, progress_notify=True, fragment=True
        )
        call = endpoint.watch.Watch(None, metadata=REQUIRE_LEADER)
        parts: list[rpc.Event] = []
        try:
            await call.write(rpc.WatchRequest(create_request=create))
            async for response in call:
                parts += response.events
                if response.fragment:
                    continue
                del response.events[:]
                response.events.extend(parts)
                parts = []
                yield response
                if response.canceled:
                    break
        except aio.AioRpcError as error:
            self.rotate(endpoint)
            raise explained(error, "watch") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        finally:
            call.cancel()
        self.rotate(endpoint)
        raise Unavailable("etcd ended the watch")

    # ------------------------------------------------------------ leases

    async def grant(self, ttl: int) -> int:
        """A lease of ttl seconds; return its id."""
        answer = await self.call("lease", lambda at: at.lease.LeaseGrant(rpc.LeaseGrantRequest(TTL=ttl)))
        return answer.ID

    async def revoke(self, lease: int) -> None:
        await self.call("lease", lambda at: at.lease.LeaseRevoke(rpc.LeaseRevokeRequest(ID=lease)), deadline=1.0)

    async def keep_alive(self, lease: int, deadline: float) -> int:
        """Renew a lease; return its remaining seconds, 0 when it is gone."""

        async def renew(at: Endpoint) -> rpc.LeaseKeepAliveResponse:
            call = at.lease.LeaseKeepAlive(None, metadata=REQUIRE_LEADER)
            try:
                await call.write(rpc.LeaseKeepAliveRequest(ID=lease))
                answer = await call.read()
            finally:
                call.cancel()
            if not isinstance(answer, rpc.LeaseKeepAliveResponse):
                raise Unavailable("etcd ended the lease's stream")
            return answer

        return (await self.call("lease renewal", renew, deadline=deadline)).TTL

    # ------------------------------------------------------------ members

    async def members(self) -> list[rpc.Member]:
        answer = await self.call("member list", lambda at: at.cluster.MemberList(rpc.MemberListRequest()))
        return list(answer.members)

    async def add_learner(self, peer_url: str) -> list[rpc.Member]:
        """Add a member that does not vote yet; return all members."""
        request = rpc.MemberAddRequest(peerURLs=[peer_url], isLearner=True)
        answer = await self.call("member add", lambda at: at.cluster.MemberAdd(request), idempotent=False)
        return list(answer.members)

    async def promote(self, member_id: int) -> None:
        """Let a learner vote; refused while it lags."""
        request = rpc.MemberPromoteRequest(ID=member_id)
        await self.call("member promotion", lambda at: at.cluster.MemberPromote(request))

    async def remove_member(self, member_id: int) -> None:
        request = rpc.MemberRemoveRequest(ID=member_id)
        await self.call("member removal", lambda at: at.cluster.MemberRemove(request))

    async def move_leader(self, url: str, heir: int) -> None:
        """Have the raft leader, which is the member at this endpoint, hand over to another member."""
        endpoint = next(endpoint for endpoint in self._endpoints if endpoint.url == url)
        try:
            await endpoint.maintenance.MoveLeader(rpc.MoveLeaderRequest(targetID=heir), timeout=PATIENCE)
        except aio.AioRpcError as error:
            raise explained(error, "change of leader") from None

    async def defragment(self, url: str, patience: float) -> None:
        """Give a member's free space back to its disk; it answers nobody meanwhile."""
        endpoint = next(endpoint for endpoint in self._endpoints if endpoint.url == url)
        try:
            await endpoint.maintenance.Defragment(rpc.DefragmentRequest(), timeout=patience)
        except aio.AioRpcError as error:
            raise explained(error, "defragmentation") from None

    async def status(self, url: str) -> rpc.StatusResponse:
        """What the member at this endpoint says of itself."""
        endpoint = next(endpoint for endpoint in self._endpoints if endpoint.url == url)
        try:
            return await endpoint.maintenance.Status(rpc.StatusRequest(), timeout=PATIENCE)
        except aio.AioRpcError as error:
            raise explained(error, "status") from None


def explained(error: aio.AioRpcError, what: str) -> SwarmdError:
    details = error.details() or ""
    if "database space exceeded" in details or "no space" in details:
        return Exhausted("the cluster's store is full: free disk space on the managers, or remove what is not needed")
    if error.code() == grpc.StatusCode.UNAVAILABLE and "failed to connect" in details.lower():
        return Unavailable(f"no etcd member answers ({what})")
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED or unanswered(error):
        return UnknownOutcome(f"etcd did not answer: {details or error.code().name.lower()} ({what})")
    if error.code() == grpc.StatusCode.UNKNOWN and "leader" in details:
        return UnknownOutcome(f"etcd has no leader ({what})")
    if error.code() == grpc.StatusCode.UNKNOWN and "raft: stopped" in details:  # of a member that is on its way out
        return UnknownOutcome(f"the etcd member that was asked is stopping ({what})")
    return SwarmdError(f"etcd refused a {what}: {details}")


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that start with prefix."""
    for at in range(len(prefix) - 1, -1, -1):
        if prefix[at] < 0xFF:
            return prefix[:at] + bytes([prefix[at] + 1])
    return b"\0"
