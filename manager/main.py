"""The manager process: acquires, top to bottom, the store, the servers and the election; serves until its parent goes.

    stdin    closed by the parent: end
    stdout   `ready` once it answers; `error CODE SENTENCE`, before it or at the end
    2377     join, HTTPS; 2378 cluster gRPC: Control, Dispatcher, CA (mTLS)

What runs only on the leader is the list in `leader_parts`.  A lost quorum does not end the process.
"""

import asyncio
import json
import logging
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web
from grpc import aio

from swarmd.manager import bootstrap, external_etcd
from swarmd.manager.allocator import Allocator
from swarmd.manager.backend import Backend, opened
from swarmd.manager.ca.certifier import Certifier, host_port
from swarmd.manager.ca.join import join_app
from swarmd.manager.ca.service import CAService
from swarmd.manager.control import clusters
from swarmd.manager.control.logs import LogMerger
from swarmd.manager.control.service import ControlService
from swarmd.manager.dispatcher import Dispatcher, LivenessLoop
from swarmd.manager.etcd_member import Removed
from swarmd.manager.interceptor import ErrorInterceptor
from swarmd.manager.leader import MakePart, campaign, first
from swarmd.manager.orchestrator.enforcer import ConstraintEnforcer
from swarmd.manager.orchestrator.reaper import Reaper
from swarmd.manager.orchestrator.replicated import ReplicatedOrchestrator
from swarmd.manager.quorum import explain_unavailable
from swarmd.manager.roles import Roles
from swarmd.manager.scheduler import Scheduler
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Tx
from swarmd.proto import ca_pb2_grpc, control_pb2_grpc, dispatcher_pb2_grpc
from swarmd.proto.backoff import Backoff
from swarmd.proto.ca_pb2 import Identity
from swarmd.proto.clock import Clock, SystemClock
from swarmd.proto.errors import SwarmdError, Unavailable
from swarmd.proto.identity import IdentityFiles
from swarmd.proto.ids import new_id
from swarmd.proto.objects_pb2 import REACHABILITY_REACHABLE, ClusterSpec, ExternalEtcd, Node
from swarmd.proto.tls import SERVER_OPTIONS, https_server_context, peer_identity, server_credentials

log = logging.getLogger(__name__)
JOIN_PORT = 2377
CLUSTER_PORT = 2378
RELOAD = 30.0  # s, between looks at whether the certificate was renewed


@dataclass(frozen=True, slots=True)
class Config:
    """What the node daemon writes for its manager."""

    directory: Path  # the node's identity; `manager/` in it is ours
    address: str
    hostname: str
    bootstrap: dict[str, Any] | None  # make a new cluster
    alone: bool = False  # the other managers are lost for ever: go on without them

    @classmethod
    def load(cls, path: Path) -> "Config":
        fields = json.loads(path.read_text())
        return cls(**{**fields, "directory": Path(fields["directory"])})


class ParentGone(Exception):
    """Our stdin was closed: end in order."""


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s manager: %(message)s")
    code = 0
    try:
        uvloop.run(run(Config.load(Path(sys.argv[1]))))
    except* ParentGone:
        log.info("ended with the node daemon")
    except* Removed as removed:
        code = 1
        log.info("ended: %s", first(removed))
        print(f"error REMOVED {first(removed)}", flush=True)
    except* (SwarmdError, OSError) as problem:
        code = 1
        log.error("%s", first(problem))
        kind = getattr(first(problem), "grpc_code", "UNAVAILABLE")
        print(f"error {kind} {first(problem)}", flush=True)
    sys.exit(code)


async def run(config: Config) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_watch_parent())
        await serve(config, SystemClock())


async def _watch_parent() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    raise ParentGone


async def serve(config: Config, clock: Clock) -> None:
    files = IdentityFiles(config.directory)
    begin = _prepared(config, files) if config.bootstrap is not None else []
    identity = files.load()
    if identity is None:
        raise Unavailable(f"{config.directory} has no identity: this node is not a member of a cluster")
    async with opened(config, files, identity, clock) as backend:
        await bootstrap.settle(backend.store, begin) if begin else None
        async with (
            _join_server(config, files, Certifier(backend.store, new_id)),
            _cluster_server(config, files, backend, identity, clock) as dispatcher,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(dispatcher.run())
            await _announce(backend, identity.node_id, config)  # the leader will look whether it answers
            print("ready", flush=True)
            parts = leader_parts(backend, identity.node_id, clock)
            group.create_task(campaign(backend.store, backend.election, identity.node_id, clock, parts))


def _prepared(config: Config, files: IdentityFiles) -> list[bootstrap.Begin]:
    asked = config.bootstrap or {}
    spec = ClusterSpec.FromString(bytes.fromhex(asked["spec"]))
    clusters.validate(spec)
    return bootstrap.prepare(
        files,
        new_id,
        spec,
        config.hostname,
        config.address,
        asked["availability"],
        tuple(asked["pools"]),
        asked["subnet_size"],
        ExternalEtcd.FromString(bytes.fromhex(asked["etcd"])) if asked["etcd"] else None,
    )


def leader_parts(backend: Backend, node_id: str, clock: Clock) -> list[MakePart]:
    """What the leader runs, and only the leader."""
    return [
        lambda store: Allocator(store, clock),
        lambda store: Scheduler(store, clock),
        lambda store: ReplicatedOrchestrator(store, clock, new_id),
        lambda store: ConstraintEnforcer(store, clock, new_id),
        lambda store: Reaper(store, clock, new_id),
        lambda store: LivenessLoop(store, clock),
        lambda store: Roles(store, clock, node_id, backend.members),
    ]


async def _announce(backend: Backend, node_id: str, config: Config) -> None:
    """Say where this manager is reached, and which member is its."""

    def note(tx: Tx) -> None:
        node = tx.get(Node, node_id)
        if node is None:
            raise Unavailable(f"node {node_id} was removed from the cluster")
        changed = edited(node)
        changed.manager_status.addr = host_port(config.address, CLUSTER_PORT)
        changed.manager_status.reachability = REACHABILITY_REACHABLE
        changed.etcd_member_id = backend.member_id
        if changed != node:
            tx.put(changed)

    backoff = Backoff(base=0.2, cap=2.0)
    while True:
        try:
            return await backend.store.transact(note)
        except Unavailable as error:
            log.warning("not ready: %s", error)
            await asyncio.sleep(backoff.next())


@asynccontextmanager
async def _join_server(config: Config, files: IdentityFiles, certifier: Certifier) -> AsyncIterator[None]:
    context = https_server_context(files.certificate, files.key)
    runner = web.AppRunner(join_app(certifier), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, config.address, JOIN_PORT, ssl_context=context).start()
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise Unavailable(f"can't listen on {host_port(config.address, JOIN_PORT)}: {reason}") from None
        async with asyncio.TaskGroup() as group:
            reloading = group.create_task(_reload(context, files))
            yield
            reloading.cancel()
    finally:
        await runner.cleanup()


async def _reload(context: ssl.SSLContext, files: IdentityFiles) -> None:
    """Follow the renewal of the certificate; new connections get the new one."""
    loaded = files.certificate.stat().st_mtime_ns
    while True:
        await asyncio.sleep(RELOAD)
        if (now := files.certificate.stat().st_mtime_ns) != loaded:
            context.load_cert_chain(files.certificate, files.key)
            loaded = now


@asynccontextmanager
async def _cluster_server(
    config: Config, files: IdentityFiles, backend: Backend, identity: Identity, clock: Clock
) -> AsyncIterator[Dispatcher]:
    store = backend.store

    async def explain(error: SwarmdError) -> str:
        if not isinstance(error, Unavailable):
            return str(error)
        if identity.external_etcd.endpoints:
            return external_etcd.unreachable(identity.external_etcd.endpoints, str(error))
        return await explain_unavailable(store, str(error))

    server = aio.server(interceptors=(ErrorInterceptor(identity.cluster_id, explain),), options=SERVER_OPTIONS)
    logs = LogMerger(store, clock, files.credentials)
    control = ControlService(store, backend.election, clock, new_id, logs, backend.problem)
    control_pb2_grpc.add_ControlServicer_to_server(control, server)
    ca_pb2_grpc.add_CAServicer_to_server(CAService(Certifier(store, new_id)), server)
    dispatcher = Dispatcher(store, clock, identity.node_id, peer_identity, identity.root_certificate)
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(dispatcher, server)
    address = host_port(config.address, CLUSTER_PORT)
    try:
        server.add_secure_port(address, server_credentials(files.credentials))
    except RuntimeError:
        raise Unavailable(f"can't listen on {address}: is another program using the port?") from None
    await server.start()
    try:
        yield dispatcher
    finally:
        await server.stop(0.2)
