"""The store that this manager uses: an etcd member of its own and a client of all members, or an external etcd."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from swarmd.manager import external_etcd
from swarmd.manager.etcd_member import (
    ALONE,
    MAX_OPERATIONS,
    MAX_REQUEST,
    EtcdMember,
    EtcdMembers,
    MemberFiles,
    client_urls,
)
from swarmd.manager.roles import Members
from swarmd.manager.store.election import EtcdElection
from swarmd.manager.store.etcd import open_store
from swarmd.manager.store.etcd_client import EtcdClient, EtcdTLS
from swarmd.manager.store.interface import Election, Store
from swarmd.manager.store.transaction import Limits
from swarmd.proto.backoff import Backoff
from swarmd.proto.ca_pb2 import Identity
from swarmd.proto.clock import Clock
from swarmd.proto.errors import FailedPrecondition, SwarmdError, Unavailable
from swarmd.proto.identity import IdentityFiles
from swarmd.proto.objects_pb2 import ExternalEtcd

LOOK_AGAIN = 5.0  # s, between looks at who the members are, and at the certificate


@dataclass(frozen=True, slots=True)
class Backend:
    store: Store
    election: Election
    members: Members
    member_id: int  # 0 with an external etcd
    problem: Callable[[], Awaitable[str]]  # of this manager's own etcd, or of the external one; '' if there is none


class Place(Protocol):
    """Where and as what this manager runs: main.Config."""

    @property
    def directory(self) -> Path: ...

    @property
    def address(self) -> str: ...

    @property
    def bootstrap(self) -> object: ...

    @property
    def alone(self) -> bool: ...


@asynccontextmanager
async def opened(config: Place, files: IdentityFiles, identity: Identity, clock: Clock) -> AsyncIterator[Backend]:
    """Enter once the store can be read.

    Waits for a quorum of the managers' own members as long as it takes; raises Unavailable if an external etcd does
    not answer.
    """
    etcd = identity.external_etcd
    async with _external(config, etcd, clock) if etcd.endpoints else _own(config, files, identity, clock) as backend:
        yield backend


@asynccontextmanager
async def _external(config: Place, etcd: ExternalEtcd, clock: Clock) -> AsyncIterator[Backend]:
    tls = EtcdTLS(etcd.certificate, etcd.key, etcd.root_certificate)
    async with EtcdClient(etcd.endpoints, tls) as client:
        await external_etcd.check(client)
        if config.bootstrap is not None:
            await external_etcd.refuse_inhabited(client, etcd.prefix)
        # etcd's default limits: what this one was started with is not known.
        async with open_store(client, clock, prefix=etcd.prefix) as store:
            yield Backend(store, EtcdElection(client, etcd.prefix), external_etcd.NoMembers(), 0, _none)


@asynccontextmanager
async def _own(config: Place, files: IdentityFiles, identity: Identity, clock: Clock) -> AsyncIterator[Backend]:
    own = MemberFiles(files.etcd_certificate, files.etcd_key, files.etcd_root_certificate)
    member = EtcdMember(identity.node_id, identity.cluster_id, config.address, config.directory / "manager", own)
    tls = _tls(own)
    await member.prepare()
    if config.alone:
        await _make_alone(member, tls)
    known = member.others()
    others = [url for url in (identity.etcd_endpoints if known is None else known) if url != member.client_url]
    async with (
        # Our own may be the one that does not run: its disk is full, say.
        EtcdClient([member.client_url, *others], tls) as client,
        member.running(await _arguments(member, config, identity, tls)),
        asyncio.TaskGroup() as group,
    ):
        member_id = await _voting(member, others, tls)
        background = [group.create_task(member.upkeep(client)), group.create_task(_follow_members(member, client))]
        background.append(group.create_task(_follow_certificate(client, own, tls)))
        await _until_readable(client)
        async with open_store(client, clock, Limits(operations=MAX_OPERATIONS, size=MAX_REQUEST // 2)) as store:
            yield Backend(store, EtcdElection(client), EtcdMembers(client), member_id, partial(member.problem, client))
        for task in background:
            task.cancel()


async def _none() -> str:
    """The quorum of an external etcd is all there is to say of it."""
    return ""


async def _arguments(member: EtcdMember, config: Place, identity: Identity, tls: EtcdTLS) -> list[str]:
    if member.has_data:
        return []
    if config.bootstrap is not None:
        return await member.begin()
    if not identity.etcd_endpoints:
        raise Unavailable("the managers told this node of no member of the store to join: is their quorum lost?")
    async with EtcdClient(identity.etcd_endpoints, tls) as others:
        return await member.join(others)


async def _make_alone(member: EtcdMember, tls: EtcdTLS) -> None:
    """Make this member the only one, the others being lost for ever; after a crash it can be done again.

    The nodes of the others are made workers by roles.py, since their members are gone.
    """
    if not member.has_data:
        raise FailedPrecondition("this manager has no copy of the cluster's state yet: use another manager")
    member.remember(())
    async with EtcdClient([member.client_url], tls) as client, member.running(ALONE):
        await _until_readable(client)


async def _voting(member: EtcdMember, others: Sequence[str], tls: EtcdTLS) -> int:
    """A learner does not answer, so ask those that were there before; a restarted member may ask itself."""
    async with EtcdClient([*others, member.client_url], tls) as all_members:
        return await member.promoted(all_members)


async def _until_readable(client: EtcdClient) -> None:
    backoff = Backoff(base=0.1, cap=1.0)
    while True:
        try:
            await client.range(b"\0")
        except Unavailable:
            await asyncio.sleep(backoff.next())
        else:
            return


async def _follow_members(member: EtcdMember, client: EtcdClient) -> None:
    """Know all members, our own first: it is the nearest."""
    while True:
        with suppress(SwarmdError):
            others = [url for url in client_urls(await client.members()) if url != member.client_url]
            await client.use([member.client_url, *others])
            with suppress(OSError):  # a full disk; they are looked at again
                member.remember(others)
        await asyncio.sleep(LOOK_AGAIN)


def _tls(files: MemberFiles) -> EtcdTLS:
    return EtcdTLS(files.certificate.read_bytes(), files.key.read_bytes(), files.root.read_bytes())


async def _follow_certificate(client: EtcdClient, files: MemberFiles, shown: EtcdTLS) -> None:
    """Show etcd the certificate that the node daemon has renewed; etcd itself reads its files at each handshake."""
    while True:
        await asyncio.sleep(LOOK_AGAIN)
        with suppress(FileNotFoundError):  # demoted: this manager is about to end
            if (now := _tls(files)) != shown:
                await client.renew(now)
                shown = now
