"""An engine and a cluster in memory, behind the protocols that the Engine API works on."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from swarmd.agent.api.interface import Connection
from swarmd.agent.api.streams import frame
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.clock import timestamp
from swarmd.proto.content_pb2 import FetchProgress
from swarmd.proto.errors import AlreadyExists, Conflict, FailedPrecondition, NotFound
from swarmd.proto.ids import new_id
from swarmd.runtime import errors, joining
from swarmd.runtime.attach import Replay, Streams
from swarmd.runtime.build.builder import Builder
from swarmd.runtime.cgroups.interface import Stats
from swarmd.runtime.changes import Change
from swarmd.runtime.container_files import Found
from swarmd.runtime.exec import Command, Exec, start_once
from swarmd.runtime.images import making
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Platform
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.logs import Selection
from swarmd.runtime.model import ContainerConfig, ContainerState, Event, Exit, Limits, LogEntry, NetworkRequest, Phase
from swarmd.runtime.network.values import NetworkInfo
from swarmd.runtime.registry import Registries, Settings
from tests.runtime.images.in_process import InProcess

NOW = 1_700_000_000_000_000_000


class FakeNetworks:
    def __init__(self) -> None:
        self._networks = [NetworkInfo(id="b" * 64, name="bridge", subnet="172.30.0.0/24", gateway="172.30.0.1")]

    async def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnet: str = "",
        gateway: str = "",
        internal: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> NetworkInfo:
        if any(network.name == name for network in self._networks):
            raise errors.Conflict(f"network {name} exists")
        made = NetworkInfo(id=secrets.token_hex(32), name=name, subnet=subnet, gateway=gateway, internal=internal)
        self._networks.append(made)
        return made

    async def remove(self, ref: str) -> None:
        self._networks.remove(self.inspect(ref))

    def list(self) -> Sequence[NetworkInfo]:
        return tuple(self._networks)

    def inspect(self, ref: str) -> NetworkInfo:
        for network in self._networks:
            if ref in (network.name, network.id):
                return network
        raise errors.NotFound(f"no network {ref}")


class FakeEngine:
    def __init__(self, root: Path) -> None:
        self.images = ImageStore(root / "images")
        self.images.workers = InProcess()
        self.builder = Builder(root / "builds", root / "private", self.images, cast("Any", self), cast("Any", None))
        # Nothing listens there: what is asked of Docker Hub is answered by a refusal, and leaves this host nowhere.
        self.registries = Registries(Settings(hosts={"docker.io": "127.0.0.1:1"}, index="127.0.0.1:1"))
        self.networks = FakeNetworks()
        self.lines: list[LogEntry] = []
        self.execs: dict[str, Exec] = {}
        self.resized: list[tuple[str, int, int]] = []
        self._states: dict[str, ContainerState] = {}
        self._listeners: set[asyncio.Queue[Event]] = set()

    async def create(self, config: ContainerConfig, name: str = "", platform: Platform | None = None) -> str:
        image = self.images.get(config.image)
        image = image.of(platform) if platform else image
        id = secrets.token_hex(32)
        if any(state.name == name for state in self._states.values()):
            raise errors.Conflict(f"the name {name} is taken")
        self._states[id] = ContainerState(
            id=id,
            name=name or id[:8],
            config=config,
            image_id=image.variant.manifest.digest,
            phase=Phase.CREATED,
            created=NOW,
        )
        self._tell(id, "create")
        return id

    async def start(self, id: str) -> None:
        self._set(id, "start", phase=Phase.RUNNING, pid=42, started=NOW, exit=None)

    async def restart(self, id: str, timeout: float | None = None, signal: int = 0) -> None:
        await self.stop(id, timeout, signal)
        await self.start(id)

    async def pause(self, id: str) -> None:
        self._set(id, "pause", paused=True)

    async def unpause(self, id: str) -> None:
        self._set(id, "unpause", paused=False)

    async def rename(self, id: str, name: str) -> None:
        self._set(id, "rename", name=name)

    async def connect(self, id: str, request: NetworkRequest) -> None:
        config = joining.with_network(id, self.inspect(id).config, request, self.networks.inspect)
        self._set(id, "update", config=config)

    async def disconnect(self, id: str, network: str) -> None:
        found = self.networks.inspect(network)
        config = joining.without_network(id, self.inspect(id).config, found, self.networks.inspect)
        self._set(id, "update", config=config)

    async def update(self, id: str, limits: Limits, policy: str) -> None:
        config = msgspec.structs.replace(self.inspect(id).config, limits=limits, restart=policy)
        self._set(id, "update", config=config)

    def stats(self, id: str) -> Stats:
        return Stats(cpu_usage=5, memory_usage=7)

    def pids(self, id: str) -> Sequence[int]:
        return [os.getpid()]

    async def file_stat(self, id: str, path: str) -> Found:
        if path == "/missing":
            raise errors.NotFound(f"{path}: no such file or directory")
        return Found(name="f", size=3, mode=0o100644, mtime=NOW, link_target="")

    async def file_archive(self, id: str, path: str) -> AsyncIterator[Found | bytes]:
        yield await self.file_stat(id, path)
        yield b"tar"

    async def file_unpack(
        self, id: str, path: str, content: AsyncIterator[bytes], *, own: bool = False, keep_kinds: bool = False
    ) -> None:
        self.unpacked = path, b"".join([chunk async for chunk in content])

    async def export(self, id: str) -> AsyncIterator[bytes]:
        yield b"tar"

    def changes(self, id: str) -> Sequence[Change]:
        return [Change("/f", 1)]

    async def commit(
        self,
        id: str,
        refs: Sequence[str],
        config: ImageConfig,
        *,
        author: str = "",
        comment: str = "",
        pause: bool = True,
    ) -> Image:
        upper = self.images.root.parent / "upper"
        upper.mkdir(exist_ok=True)
        base = self.images.get(self.inspect(id).image_id)
        return await making.commit(self.images, base, upper, refs, config, author=author, comment=comment)

    def sizes(self, id: str) -> tuple[int, int]:
        return 1, 2

    def directory(self, id: str) -> Path:
        return Path("/containers") / id

    def publish(self, kind: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        pass

    async def stop(self, id: str, timeout: float | None = None, signal: int = 0) -> None:
        self._set(id, "die", phase=Phase.EXITED, pid=0, exit=Exit(code=143, at=NOW))

    async def kill(self, id: str, signal: int = 9) -> None:
        self._set(id, "die", phase=Phase.EXITED, pid=0, exit=Exit(code=128 + signal, at=NOW))

    async def wait(self, id: str) -> Exit:
        with self._listening() as events:
            while (end := self._states[id].exit) is None:
                await events.get()
        return end

    async def remove(self, id: str, force: bool = False) -> None:
        state = self.inspect(id)
        if state.phase is Phase.RUNNING and not force:
            raise errors.Conflict(f"container {state.name} is running: stop it first, or force")
        self._tell(id, "destroy")
        del self._states[id]

    def inspect(self, ref: str) -> ContainerState:
        for state in self._states.values():
            if ref == state.name or state.id.startswith(ref):
                return state
        raise errors.NotFound(f"no container {ref}")

    def list(self) -> Sequence[ContainerState]:
        return tuple(self._states.values())

    async def logs(
        self,
        id: str,
        *,
        follow: bool = False,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> AsyncIterator[LogEntry]:
        wanted = {"stdout": stdout, "stderr": stderr}
        for entry in [line for line in self.lines if wanted[line.stream]][-(tail or 0) :]:
            yield entry

    async def log_batches(
        self, id: str, selection: Selection, follow: bool = False
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        stdout, stderr = selection.stdout, selection.stderr
        yield [entry async for entry in self.logs(id, tail=selection.tail, stdout=stdout, stderr=stderr)]

    async def attach(self, id: str, connection: Connection, streams: Streams, replay: Replay | None = None) -> None:
        """Says what was asked, then repeats the client's input until its end."""
        with connection() as client:
            if replay:
                await replay(0)
            await _echo(client, f"{streams.stdin} {streams.stdout} {streams.stderr}\n".encode(), streams)

    async def resize(self, id: str, height: int, width: int) -> None:
        self.resized.append((id, height, width))

    def exec_create(self, id: str, command: Command, streams: Streams) -> str:
        made = Exec(id, command, streams)
        self.execs[made.id] = made
        return made.id

    async def exec_start(self, id: str, connection: Connection | None = None, size: tuple[int, int] = (0, 0)) -> None:
        """It writes its arguments to stdout and "oops" to stderr, and ends with 3."""
        made = self.exec_inspect(id)
        start_once(made)
        made.failed = 3
        if connection:
            with connection() as client:
                # As long as a command takes at the least: docker-py loses what comes together with the headers.
                await asyncio.sleep(0.05)
                written = " ".join(made.command.command).encode()
                client.sendall(written if made.command.tty else frame("stdout", written) + frame("stderr", b"oops"))

    def exec_inspect(self, id: str) -> Exec:
        if id not in self.execs:
            raise errors.NotFound(f"no exec {id}")
        return self.execs[id]

    def exec_resize(self, id: str, height: int, width: int) -> None:
        self.resized.append((id, height, width))

    async def events(self, since: int = 0) -> AsyncIterator[Event]:
        with self._listening() as queue:
            while True:
                yield await queue.get()

    def listeners(self) -> int:
        return len(self._listeners)

    def _listening(self) -> "_Listening":
        return _Listening(self._listeners)

    def _set(self, id: str, action: str, **values: object) -> None:
        self._states[id] = msgspec.structs.replace(self._states[id], **values)
        self._tell(id, action)

    def _tell(self, id: str, action: str) -> None:
        for queue in self._listeners:
            state = self._states[id]
            attributes = {"name": state.name} | ({"exitCode": str(state.exit.code)} if state.exit else {})
            queue.put_nowait(Event(type="container", action=action, id=id, at=NOW, attributes=attributes))


async def _echo(client: socket.socket, first: bytes, streams: Streams) -> None:
    def framed(data: bytes) -> bytes:
        return data if streams.raw else frame("stdout", data)

    loop = asyncio.get_running_loop()
    client.setblocking(False)
    await loop.sock_sendall(client, framed(first))
    while data := await loop.sock_recv(client, 65536):
        await loop.sock_sendall(client, framed(data))


class _Listening:
    def __init__(self, listeners: set[asyncio.Queue[Event]]) -> None:
        self._listeners = listeners
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def __enter__(self) -> asyncio.Queue[Event]:
        self._listeners.add(self._queue)
        return self._queue

    def __exit__(self, *_: object) -> None:
        self._listeners.discard(self._queue)


_FIELDS = {
    control_pb.KIND_CLUSTER: "cluster",
    control_pb.KIND_NODE: "node",
    control_pb.KIND_SERVICE: "service",
    control_pb.KIND_TASK: "task",
    control_pb.KIND_NETWORK: "network",
    control_pb.KIND_HOLDINGS: "holdings",
}


class FakeControl:
    """Keeps objects as a manager would: names are unique, versions are compared."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], pb.Object] = {}
        self.entries: list[control_pb.LogEntry] = []
        self.wanted_logs: control_pb.LogsRequest | None = None
        self.lists = 0
        self._index = 10

    def put(self, obj: pb.Object) -> pb.Object:
        field = obj.WhichOneof("of")
        assert field is not None
        part = getattr(obj, field)
        part.id = part.id or new_id()
        self._index += 1
        part.version.index = self._index
        part.created_at.CopyFrom(timestamp(NOW))
        part.updated_at.CopyFrom(timestamp(NOW))
        if field == "service":
            part.endpoint.spec.CopyFrom(part.spec.endpoint)
            part.endpoint.ports.MergeFrom(part.spec.endpoint.ports)
        self.objects[field, part.id] = obj
        return obj

    async def Get(self, request: control_pb.GetRequest) -> pb.Object:
        field = _FIELDS[request.kind]
        for (kind, id), obj in self.objects.items():
            name = "" if kind == "task" else getattr(obj, kind).spec.name
            if kind == field and (id.startswith(request.ref) or name == request.ref):
                return obj
        raise NotFound(f"no {field} {request.ref}")

    async def List(self, request: control_pb.ListRequest) -> AsyncIterator[control_pb.ObjectBatch]:
        field = _FIELDS[request.kind]
        self.lists += 1
        for (kind, _), obj in self.objects.items():
            names = request.filters["service"].values if "service" in request.filters else ()
            if kind == field and (not names or kind != "task" or obj.task.service_id in names):
                yield control_pb.ObjectBatch(objects=[obj])

    async def Create(self, request: control_pb.CreateRequest) -> control_pb.WriteResponse:
        field = request.object.WhichOneof("of")
        assert field is not None
        name = getattr(request.object, field).spec.name
        if any(kind == field and getattr(obj, kind).spec.name == name for (kind, _), obj in self.objects.items()):
            raise AlreadyExists(f"{field} {name} exists already")
        return control_pb.WriteResponse(object=self.put(request.object), warnings=["beware"])

    async def Update(self, request: control_pb.UpdateRequest) -> control_pb.WriteResponse:
        field = request.object.WhichOneof("of")
        assert field is not None
        given = getattr(request.object, field)
        kept = pb.Object()
        kept.CopyFrom(self.objects[field, given.id])
        part = getattr(kept, field)
        if given.version != part.version:
            raise Conflict(f"{field} {part.id} has changed: read it again")
        wanted = type(part.spec)()
        wanted.CopyFrom(part.previous_spec if request.rollback else given.spec)
        if field == "service":
            part.previous_spec.CopyFrom(part.spec)
        part.spec.CopyFrom(wanted)
        return control_pb.WriteResponse(object=self.put(kept))

    async def Remove(self, request: control_pb.RemoveRequest) -> control_pb.RemoveResponse:
        obj = await self.Get(control_pb.GetRequest(kind=request.kind, ref=request.ref))
        field = _FIELDS[request.kind]
        del self.objects[field, getattr(obj, field).id]
        return control_pb.RemoveResponse(id=getattr(obj, field).id)

    async def RotateJoinToken(self, request: control_pb.RotateJoinTokenRequest) -> pb.Object:
        obj = await self.Get(control_pb.GetRequest(kind=control_pb.KIND_CLUSTER))
        field = "manager_token" if request.role == pb.NODE_ROLE_MANAGER else "worker_token"
        setattr(obj.cluster.root_ca, field, f"new-{field}")
        return obj

    async def Status(self, request: control_pb.StatusRequest) -> control_pb.StatusResponse:
        return control_pb.StatusResponse(quorum=True)

    async def Logs(self, request: control_pb.LogsRequest) -> AsyncIterator[control_pb.LogBatch]:
        self.wanted_logs = request
        yield control_pb.LogBatch(entries=self.entries)


@dataclass(frozen=True)
class FakeInfo:
    state: str = "inactive"
    error: str = ""
    node_id: str = ""
    node_addr: str = ""
    control_available: bool = False
    remote_managers: Sequence[tuple[str, str]] = ()


class FakeMembership:
    def __init__(self) -> None:
        self.fetched: list[tuple[str, str, str]] = []  # node, image, name
        self.cluster = FakeControl()
        self.joined: list[tuple[Sequence[str], str]] = []
        self.left_behind = ""
        self.cluster_made_anew = False
        self._info = FakeInfo()

    def info(self) -> FakeInfo:
        return self._info

    def cluster_content(self) -> None:
        return None

    async def fetch_on(self, node: pb.Node, image: str, name: str, registry_auth: str) -> AsyncIterator[FetchProgress]:
        self.fetched.append((node.id, image, name))
        yield FetchProgress(id="0123456789ab", status="Pull complete")

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
    ) -> str:
        if self._info.state != "inactive":
            raise FailedPrecondition("this node is already part of a swarm")
        root = pb.RootCA(key=b"secret", worker_token="SWMTKN-worker", manager_token="SWMTKN-manager")
        self.cluster.put(pb.Object(cluster=pb.Cluster(spec=spec or pb.ClusterSpec(name="default"), root_ca=root)))
        node = pb.Node(
            spec=pb.NodeSpec(role=pb.NODE_ROLE_MANAGER, availability=availability),
            description=pb.NodeDescription(
                hostname="host1",
                platform=pb.Platform(architecture="x86_64", os="linux"),
                engine=pb.EngineDescription(engine_version="0.1.0"),
            ),
            status=pb.NodeStatus(state=pb.NODE_STATE_READY, addr="10.0.0.1"),
            manager_status=pb.ManagerStatus(leader=True, reachability=pb.REACHABILITY_REACHABLE, addr="10.0.0.1:2378"),
        )
        id = self.cluster.put(pb.Object(node=node)).node.id
        self._info = FakeInfo("active", "", id, "10.0.0.1", True, ((id, "10.0.0.1:2378"),))
        return id

    async def join(
        self,
        remote_addrs: Sequence[str],
        token: str,
        *,
        listen_addr: str = "",
        advertise_addr: str = "",
        availability: pb.NodeAvailability.ValueType = pb.NODE_AVAILABILITY_ACTIVE,
    ) -> str:
        self.joined.append((tuple(remote_addrs), token))
        self._info = FakeInfo("active", "", "joined", "10.0.0.2", False, (("x", "10.0.0.1:2378"),))
        return "joined"

    async def init_alone(self) -> str:
        if not self._info.control_available:
            raise FailedPrecondition("this node is not a swarm manager")
        self.cluster_made_anew = True
        return self._info.node_id

    async def leave(self, force: bool = False) -> str:
        if self._info.control_available and not force:
            raise FailedPrecondition("this node is the last manager: use --force")
        self._info = FakeInfo()
        return self.left_behind

    def control(self) -> FakeControl:
        if not self._info.control_available:
            raise FailedPrecondition("this node is not a swarm manager")
        return self.cluster
