"""What the Engine API needs of the node: a container engine, and a membership in a cluster.

The handlers know these protocols only.  `agent/main.py` hands in the real ones, the tests their fakes.
"""

import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiohttp import web

from swarmd.agent.content.reading import Cluster
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.content_pb2 import FetchProgress
from swarmd.runtime.attach import Replay, Streams
from swarmd.runtime.build.builder import Builder
from swarmd.runtime.cgroups.interface import Stats
from swarmd.runtime.changes import Change
from swarmd.runtime.container_files import Found
from swarmd.runtime.exec import Command, Exec
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Platform
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.logs import Selection
from swarmd.runtime.model import ContainerConfig, ContainerState, Event, Exit, Limits, LogEntry, NetworkRequest
from swarmd.runtime.network.values import NetworkInfo
from swarmd.runtime.registry import Registries

# ---------------------------------------------------------------- the runtime's side


class Networks(Protocol):
    async def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnet: str = "",
        gateway: str = "",
        internal: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> NetworkInfo: ...
    async def remove(self, ref: str) -> None: ...
    def list(self) -> Sequence[NetworkInfo]: ...
    def inspect(self, ref: str) -> NetworkInfo: ...


# Gives the client's connection, once there is nothing left to refuse; whoever called it owns it.
Connection = Callable[[], socket.socket]


class Engine(Protocol):
    @property
    def images(self) -> ImageStore: ...
    @property
    def builder(self) -> Builder: ...
    @property
    def registries(self) -> Registries: ...
    @property
    def networks(self) -> Networks: ...
    async def create(self, config: ContainerConfig, name: str = "", platform: Platform | None = None) -> str: ...
    async def start(self, id: str) -> None: ...
    async def stop(self, id: str, timeout: float | None = None, signal: int = 0) -> None: ...
    async def restart(self, id: str, timeout: float | None = None, signal: int = 0) -> None: ...
    async def pause(self, id: str) -> None: ...
    async def unpause(self, id: str) -> None: ...
    async def rename(self, id: str, name: str) -> None: ...
    async def connect(self, id: str, request: NetworkRequest) -> None: ...
    async def disconnect(self, id: str, network: str) -> None: ...
    async def update(self, id: str, limits: Limits, policy: str) -> None: ...
    def stats(self, id: str) -> Stats: ...
    def pids(self, id: str) -> Sequence[int]: ...
    async def file_stat(self, id: str, path: str) -> Found: ...
    def file_archive(self, id: str, path: str) -> AsyncIterator[Found | bytes]: ...
    async def file_unpack(
        self, id: str, path: str, content: AsyncIterator[bytes], *, own: bool = False, keep_kinds: bool = False
    ) -> None: ...
    def export(self, id: str) -> AsyncIterator[bytes]: ...
    def changes(self, id: str) -> Sequence[Change]: ...
    async def commit(
        self,
        id: str,
        refs: Sequence[str],
        config: ImageConfig,
        *,
        author: str = "",
        comment: str = "",
        pause: bool = True,
    ) -> Image: ...
    def sizes(self, id: str) -> tuple[int, int]: ...
    def directory(self, id: str) -> Path: ...
    async def kill(self, id: str, signal: int = 9) -> None: ...
    async def wait(self, id: str) -> Exit: ...
    async def remove(self, id: str, force: bool = False) -> None: ...
    def inspect(self, ref: str) -> ContainerState: ...
    def list(self) -> Sequence[ContainerState]: ...
    def logs(
        self,
        id: str,
        *,
        follow: bool = False,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> AsyncIterator[LogEntry]: ...
    def log_batches(
        self, id: str, selection: Selection, follow: bool = False
    ) -> AsyncGenerator[Sequence[LogEntry], None]: ...
    async def attach(self, id: str, connection: Connection, streams: Streams, replay: Replay | None = None) -> None: ...
    async def resize(self, id: str, height: int, width: int) -> None: ...
    def exec_create(self, id: str, command: Command, streams: Streams) -> str: ...
    async def exec_start(
        self, id: str, connection: Connection | None = None, size: tuple[int, int] = (0, 0)
    ) -> None: ...
    def exec_inspect(self, id: str) -> Exec: ...
    def exec_resize(self, id: str, height: int, width: int) -> None: ...
    def events(self, since: int = 0) -> AsyncIterator[Event]: ...
    def listeners(self) -> int: ...  # to events, at the moment
    def publish(self, kind: str, action: str, id: str, attributes: Mapping[str, str]) -> None: ...


# ---------------------------------------------------------------- the cluster's side


class SwarmInfo(Protocol):
    @property
    def state(self) -> str: ...  # inactive, pending, active or error
    @property
    def error(self) -> str: ...
    @property
    def node_id(self) -> str: ...
    @property
    def node_addr(self) -> str: ...
    @property
    def control_available(self) -> bool: ...  # this node is a manager
    @property
    def remote_managers(self) -> Sequence[tuple[str, str]]: ...  # node id, host:port


class Control(Protocol):
    """The managers' API (proto/control.proto); every refusal is a SwarmdError."""

    async def Get(self, request: control_pb.GetRequest) -> pb.Object: ...
    async def Create(self, request: control_pb.CreateRequest) -> control_pb.WriteResponse: ...
    async def Update(self, request: control_pb.UpdateRequest) -> control_pb.WriteResponse: ...
    async def Remove(self, request: control_pb.RemoveRequest) -> control_pb.RemoveResponse: ...
    async def RotateJoinToken(self, request: control_pb.RotateJoinTokenRequest) -> pb.Object: ...
    async def Status(self, request: control_pb.StatusRequest) -> control_pb.StatusResponse: ...
    def List(self, request: control_pb.ListRequest) -> AsyncIterator[control_pb.ObjectBatch]: ...
    def Logs(self, request: control_pb.LogsRequest) -> AsyncIterator[control_pb.LogBatch]: ...


class Membership(Protocol):
    def info(self) -> SwarmInfo: ...
    async def init(
        self,
        *,
        listen_addr: str = "",
        advertise_addr: str = "",
        spec: pb.ClusterSpec | None = None,
        availability: pb.NodeAvailability.ValueType = pb.NODE_AVAILABILITY_ACTIVE,
        default_addr_pool: Sequence[str] = (),
        subnet_size: int = 0,
        etcd: pb.ExternalEtcd | None = None,
    ) -> str: ...
    async def join(
        self,
        remote_addrs: Sequence[str],
        token: str,
        *,
        listen_addr: str = "",
        advertise_addr: str = "",
        availability: pb.NodeAvailability.ValueType = pb.NODE_AVAILABILITY_ACTIVE,
    ) -> str: ...
    async def init_alone(self) -> str: ...
    async def leave(self, force: bool = False) -> str: ...
    def fetch_on(self, node: pb.Node, image: str, name: str, registry_auth: str) -> AsyncIterator[FetchProgress]:
        """Have a node fetch an image; a manager's node may."""
        ...

    def cluster_content(self) -> Cluster | None:
        """What other nodes' content is read with; None outside of a cluster."""
        ...

    def control(self) -> Control:
        """The managers' API; FailedPrecondition when this node is not a manager."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """What /info says of the machine."""

    name: str
    data_root: Path
    version: str


@dataclass(frozen=True, slots=True)
class Services:
    """All that handlers work on."""

    engine: Engine
    membership: Membership
    host: Host


SERVICES = web.AppKey("services", Services)


def services(request: web.Request) -> Services:
    return request.app[SERVICES]
