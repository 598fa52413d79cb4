"""The runtime's face: containers by id or name, on one host.

Opening it adopts whatever runs; closing it leaves everything running.  It owns which containers there are and under
which names; what happens to one is `container.py`, what starts one is `stages/`.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from swarmd.runtime import cgroups, checks, committing, container_files, log_drivers, logs, names, spec
from swarmd.runtime.attach import Replay, Streams
from swarmd.runtime.build.builder import Builder
from swarmd.runtime.cgroups.interface import Stats
from swarmd.runtime.changes import Change, changes
from swarmd.runtime.container import Container
from swarmd.runtime.errors import Conflict, Invalid, NotFound
from swarmd.runtime.events import Events
from swarmd.runtime.exec import Command, Exec, ExecResult, Execs
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Platform
from swarmd.runtime.images.mending import mend
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.launch import Host
from swarmd.runtime.logs import Selection
from swarmd.runtime.model import ContainerConfig, ContainerState, Event, Exit, Limits, LogEntry, NetworkRequest, Phase
from swarmd.runtime.ports import Filter, Networks
from swarmd.runtime.records import Directory, Record, load_all, make_root
from swarmd.runtime.seccomp import compile_profile, default_profile, oci_profile
from swarmd.runtime.sizes import tree_size
from swarmd.runtime.spawner_client import Spawner
from swarmd.runtime.userns import UserNamespaces

if TYPE_CHECKING:
    from swarmd.runtime.network.manager import NetworkManager
    from swarmd.runtime.registry import Registries, Settings

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


@dataclass(frozen=True)
class EngineConfig:
    data_root: Path
    run_root: Path
    cgroup_parent: str = "swarmd"
    registries: "Settings | None" = None  # None: no mirrors, and Docker's ways


class Engine:
    """`networks`, `images` and `registries` are public parts of it; the containers' side is below."""

    def __init__(
        self,
        config: EngineConfig,
        images: ImageStore,
        networks: "NetworkManager",
        registries: "Registries",
        host: Host,
    ) -> None:
        self.config, self.images, self.networks, self.registries = config, images, networks, registries
        self.builder = Builder(config.data_root / "builds", config.run_root / "builds", images, self, host.spawner)
        self._host = host
        self._containers: dict[str, Container] = {}
        self._keepers: asyncio.TaskGroup
        self._keeping: set[asyncio.Task[None]] = set()
        self._execs = Execs()

    @classmethod
    def open(cls, config: EngineConfig, spawner: Spawner | None = None) -> "AbstractAsyncContextManager[Engine]":
        """Open with a spawner that was started before the process had threads, or start one here."""
        return _open(config, spawner)

    async def create(self, config: ContainerConfig, name: str = "", platform: Platform | None = None) -> str:
        """Return the new container's id. Raises Conflict for a name that is taken, NotFound for an image that isn't.

        platform: of an image for several the one to run; this host's if it is there and none is given.
        """
        image = self.images.get(config.image)
        if platform:
            image = image.of(platform)
        config = self._with_peers(config)
        checks.check(config, image)
        checks.check_sources(config)
        id = secrets.token_hex(32)
        name = name.removeprefix("/") or names.unused({c.state.name for c in self._containers.values()})
        self._check_name(name)
        now = time.time_ns()
        # By its manifest: other platforms of the image may come later. What a build lends has none.
        image_id = image.variant.manifest.digest if image.variants else image.id
        state = ContainerState(id=id, name=name, config=config, image_id=image_id, phase=Phase.CREATED, created=now)
        container = Container(Directory(self._root / id), Record(state=state), self._host, self._peer, self._forget)
        self._containers[id] = container  # first: from here on its name is taken, and its image in use
        await container.make()
        self.publish("container", "create", id, container.attributes())
        return id

    def _check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise Invalid(f"container name {name!r} must begin with a letter or digit, and hold those, _ . and - only")
        if holder := next((c for c in self._containers.values() if c.state.name == name), None):
            raise Conflict(f"the name {name} is taken by container {holder.id[:12]}: remove or rename that one")

    async def start(self, id: str) -> None:
        """Return once the program runs. Raises StartError naming the step that failed."""
        container = self._find(id)
        try:
            await container.start()
        except Exception:
            if container.state.config.auto_remove and not container.running:
                await self.remove(container.id)
            raise
        self._keep_running(container)

    async def stop(self, id: str, timeout: float | None = None, signal: int = 0) -> None:
        await self._find(id).stop(timeout, signal)

    async def restart(self, id: str, timeout: float | None = None, signal: int = 0) -> None:
        container = self._find(id)
        container.restarts += 1
        try:
            await container.stop(timeout, signal)
            await self.start(container.id)
        finally:
            container.restarts -= 1
        self.publish("container", "restart", container.id, container.attributes())

    async def pause(self, id: str) -> None:
        await self._find(id).pause()

    async def unpause(self, id: str) -> None:
        await self._find(id).unpause()

    async def rename(self, id: str, name: str) -> None:
        """Raises Conflict for a name that is taken, Invalid for one that can't be."""
        container, name = self._find(id), name.removeprefix("/")
        if name == container.state.name:
            raise Invalid(f"container {name} has this name already")
        self._check_name(name)
        await container.rename(name, self._check_name)

    async def connect(self, id: str, request: NetworkRequest) -> None:
        """Add a network to a container. Raises Conflict when it is on it already."""
        await self._find(id).connect(request)

    async def disconnect(self, id: str, network: str) -> None:
        """Take a network from a container. Raises NotFound when it is not on it."""
        await self._find(id).disconnect(self.networks.inspect(network))

    async def update(self, id: str, limits: Limits, policy: str) -> None:
        """Raises what setting the limits raises, and then changes nothing."""
        container = self._find(id)
        config = msgspec.structs.replace(container.state.config, limits=limits, restart=policy)
        checks.check(config, self.images.get(container.state.image_id))
        await container.update(limits, policy)

    def stats(self, id: str) -> Stats:
        return self._find(id).stats()

    def pids(self, id: str) -> Sequence[int]:
        """Its processes, as this host numbers them."""
        return self._find(id).pids()

    async def file_stat(self, id: str, path: str) -> container_files.Found:
        """What is at a path in the container, which need not run. Raises NotFound."""
        return await container_files.stat(self._host.spawner, self._find(id).place(), path)

    def file_archive(self, id: str, path: str) -> AsyncIterator[container_files.Found | bytes]:
        """What is there, then a tar archive of it."""
        return container_files.get(self._host.spawner, self._find(id).place(), path)

    async def file_unpack(
        self, id: str, path: str, content: AsyncIterator[bytes], *, own: bool = False, keep_kinds: bool = False
    ) -> None:
        """Unpack a tar archive into a directory; see `container_files.put`."""
        container = self._find(id)
        user = container.state.config.user
        async with container.place_to_write() as place:
            await container_files.put(
                self._host.spawner, place, path, content, own=own, keep_kinds=keep_kinds, user=user
            )

    def export(self, id: str) -> AsyncIterator[bytes]:
        """A tar archive of its whole root, without what is mounted on it."""
        return container_files.export(self._host.spawner, self._find(id).place())

    def changes(self, id: str) -> Sequence[Change]:
        """What it has changed of its image's files. Blocks: call it in a thread."""
        container = self._find(id)
        place = container.place()
        found = changes(place.directory / "upper", place.layers)
        if container.removed:
            raise NotFound(f"container {container.state.name} has been removed")
        return found

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
        """An image of what a container has changed; see committing.py."""
        return await committing.commit(
            self.images, self._find(id), refs, config, author=author, comment=comment, pause=pause
        )

    def sizes(self, id: str) -> tuple[int, int]:
        """Bytes that it has written, and those with its image's. Blocks: call it in a thread."""
        container = self._find(id)
        written = tree_size(container.directory.path / "upper")
        try:
            return written, written + self.images.get(container.state.image_id).size
        except NotFound:  # damaged
            return written, written

    def directory(self, id: str) -> Path:
        """Where its own files are."""
        return self._find(id).directory.path

    def publish(self, kind: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        """Tell those who listen of something that happened to what is not a container."""
        event = Event(type=kind, action=action, id=id, at=time.time_ns(), attributes=dict(attributes))
        self._host.events.publish(event)

    async def kill(self, id: str, signal: int = 9) -> None:
        await self._find(id).kill(signal)

    async def wait(self, id: str) -> Exit:
        """Return how the run that is going on ends, or how the last one ended."""
        return await self._find(id).wait()

    async def remove(self, id: str, force: bool = False) -> None:
        await self._find(id).remove(force)

    def _forget(self, container: Container) -> None:
        self._execs.forget(container.id)
        self._containers.pop(container.id, None)

    def inspect(self, ref: str) -> ContainerState:
        return self._find(ref).state

    def list(self) -> Sequence[ContainerState]:
        return [container.state for container in self._containers.values()]

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
    ) -> AsyncGenerator[LogEntry, None]:
        selection = Selection(since, until, tail, stdout, stderr)
        return logs.one_by_one(self.log_batches(id, selection, follow))

    def log_batches(
        self, id: str, selection: Selection, follow: bool = False
    ) -> AsyncGenerator[Sequence[LogEntry], None]:
        """What can be had at once comes at once: for those who read fast."""
        container = self._find(id)
        log = container.state.config.log
        if not log_drivers.keeps_file(log):
            why = "" if log.driver == "none" else " and its cache is disabled"
            raise Invalid(f"container {container.state.name} keeps no log: its log driver is {log.driver}{why}")
        path = container.directory.path / "container.log"
        return logs.read(path, selection, follow, lambda: container.running)

    async def gives_own_ids(self) -> bool:
        """Whether containers here can have user ids of their own, with every file where it is."""
        return await self._host.users.usable(self.config.data_root)

    async def exec(
        self,
        id: str,
        command: Sequence[str],
        *,
        env: Sequence[str] = (),
        user: str = "",
        workdir: str = "",
        timeout: float | None = None,
    ) -> ExecResult:
        """Run a program and return what it wrote, the first MiB of each stream."""
        wanted = Command(command=tuple(command), env=tuple(env), user=user, workdir=workdir)
        return await self._find(id).inside.exec(wanted, timeout)

    def exec_create(self, id: str, command: Command, streams: Streams) -> str:
        """Return the id of an exec to start. Raises Conflict when the container does not run."""
        return self._execs.add(self._find(id).inside.exec_create(command, streams)).id

    async def exec_start(
        self, id: str, connection: Callable[[], socket.socket] | None = None, size: tuple[int, int] = (0, 0)
    ) -> None:
        """Return once the program runs, its streams on the connection that is then asked for, or nowhere.

        It goes on when the client leaves, or this daemon. Raises StartError, which the client is told too.
        """
        made = self._execs.get(id)
        container = self._find(made.container)
        container.inside.check_exec(made)
        try:
            given = connection() if connection else None
        except BaseException:
            made.started = False  # its client has left: another may start it
            raise
        await container.inside.exec_start(made, given, size)
        self._keep_task(self._keep_exec(container, made))

    async def _keep_exec(self, container: Container, made: Exec) -> None:
        try:
            await container.inside.exec_keep(made)
        except Exception:  # as with containers
            _LOG.exception("exec %s is no longer followed", made.id)

    def exec_inspect(self, id: str) -> Exec:
        return self._execs.get(id)

    def exec_resize(self, id: str, height: int, width: int) -> None:
        made = self._execs.get(id)
        if made.running is None or made.running.answer:
            raise Conflict(f"exec {made.id[:12]} is not running")
        made.running.resize(height, width)

    async def attach(
        self, id: str, connection: Callable[[], socket.socket], streams: Streams, replay: Replay | None = None
    ) -> None:
        """Hand a client's connection over to the container; one that does not run yet serves it from its first byte.

        replay writes to the client what was logged until a time in ns, 0 for all: exactly what it would not be sent.
        """
        await self._find(id).inside.attach(connection(), streams, replay)

    async def resize(self, id: str, height: int, width: int) -> None:
        """Set the size of its terminal, in characters."""
        await self._find(id).inside.resize(height, width)

    def events(self, since: int = 0) -> AsyncIterator[Event]:
        """From now on, and with since (ns) those kept from then."""
        return self._host.events.listen(since)

    def listeners(self) -> int:
        """How many listen to events."""
        return self._host.events.listeners

    @property
    def spawner_pid(self) -> int:
        return self._host.spawner.pid

    @property
    def _root(self) -> Path:
        return self.config.data_root / "containers"

    def _find(self, ref: str) -> Container:
        """By id, name, or the beginning of one id only."""
        ref = ref.removeprefix("/")
        if found := self._containers.get(ref):
            return found
        containers = list(self._containers.values())  # a copy: some ask in threads
        matching = [c for c in containers if c.state.name == ref] or [
            c for c in containers if ref and c.id.startswith(ref)
        ]
        if len(matching) != 1:
            problem = f"{len(matching)} containers' ids begin with {ref}" if matching else f"no such container: {ref}"
            raise NotFound(problem)
        return matching[0]

    def _peer(self, ref: str) -> spec.Peer:
        return self._find(ref).as_peer()

    def _with_peers(self, config: ContainerConfig) -> ContainerConfig:
        """Name other containers by id: names change."""

        def by_id(mode: str) -> str:
            kind, _, ref = mode.partition(":")
            return f"container:{self._other(ref).id}" if kind == "container" and ref else mode

        if config.links:
            links = (msgspec.structs.replace(link, container=self._other(link.container).id) for link in config.links)
            config = msgspec.structs.replace(config, links=tuple(links))
        wanted = config.namespaces
        if not any(mode.startswith("container:") for mode in (wanted.pid, wanted.ipc, config.network_mode)):
            return config
        own = msgspec.structs.replace(wanted, pid=by_id(wanted.pid), ipc=by_id(wanted.ipc))
        return msgspec.structs.replace(config, namespaces=own, network_mode=by_id(config.network_mode))

    def _other(self, ref: str) -> Container:
        """One that a configuration names. Raises Invalid: NotFound would be the image's absence."""
        try:
            return self._find(ref)
        except NotFound as problem:
            raise Invalid(str(problem)) from None

    def _keep_running(self, container: Container) -> None:
        self._keep_task(self._keep(container, container.running))

    def _keep_task(self, keeping: Coroutine[None, None, None]) -> None:
        task = self._keepers.create_task(keeping)
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    def _leave(self) -> None:
        """Stop following; what runs goes on."""
        for task in self._keeping:
            task.cancel()

    async def _keep(self, container: Container, running: bool) -> None:
        try:
            await container.keep(running)
        except Exception:
            # One container's trouble must not take the others' keepers with it.
            _LOG.exception("container %s is no longer followed; it is adopted when swarmd starts again", container.id)
            return
        if container.state.config.auto_remove and not container.removed and not container.restarts:
            with contextlib.suppress(NotFound, Conflict):  # started again: its end will come
                await self.remove(container.id)

    async def _adopt(self, keepers: asyncio.TaskGroup) -> None:
        self._keepers = keepers
        make_root(self._root)
        to_keep = []
        for directory, record in load_all(self._root):
            container = Container(directory, record, self._host, self._peer, self._forget)
            self._containers[container.id] = container
            if await container.adopt() or (container.state.config.auto_remove and container.state.exit):
                to_keep.append(container)
        await self._release_strays()  # before anything is started, which would look like one
        for container in to_keep:
            self._keep_running(container)

    async def _release_strays(self) -> None:
        """Give back what belongs to no running container: a daemon before this one was killed between two steps."""
        running = {id for id, container in self._containers.items() if container.directory.run()}
        for id in set(self._host.cgroups.list()) - running:
            group = self._host.cgroups.load(id)
            await asyncio.to_thread(group.kill)
            await asyncio.to_thread(group.remove)
        for id in set(self._host.networks.sandboxes()) - running:
            await self._host.networks.release(id)
        for id in set(self._host.users.ids()) - running:
            self._host.users.release(id)


@asynccontextmanager
async def _open(config: EngineConfig, spawner: Spawner | None) -> AsyncIterator[Engine]:
    # Imported late: the spawner need not wait for it.
    from swarmd.runtime.network.manager import NetworkManager

    with contextlib.ExitStack() as stack:
        if spawner is None:
            spawner = Spawner()
            spawner.start()
        stack.callback(spawner.close)
        images = ImageStore(config.data_root / "images")
        async with (
            NetworkManager.open(config.data_root / "networks", config.run_root) as networks,
            opened(config, images, networks, spawner) as engine,
        ):
            yield engine


@asynccontextmanager
async def opened(
    config: EngineConfig, images: ImageStore, networks: "NetworkManager", spawner: Spawner
) -> AsyncIterator[Engine]:
    """An engine made of given parts."""
    from swarmd.runtime.registry import Registries, Settings  # late, as above

    hierarchy = cgroups.detect(config.cgroup_parent)
    attaching: Networks = networks
    users = UserNamespaces(spawner, config.run_root / "userns")
    users.adopt()
    host = Host(
        spawner,
        hierarchy,
        images,
        attaching,
        users,
        _compile_seccomp,
        Events(config.data_root / "events.jsonl"),
        config.cgroup_parent,
    )
    async with Registries(config.registries or Settings()) as registries, asyncio.TaskGroup() as keepers:
        await mend(images)
        engine = Engine(config, images, networks, registries, host)
        await engine._adopt(keepers)
        await engine.builder.clean()
        images.sweep()  # of what was coming when the daemon ended
        try:
            yield engine
        finally:
            engine._leave()
            await images.close()


def _compile_seccomp(profile: str, allowed: frozenset[str]) -> Filter:
    text = default_profile() if profile == "default" else profile
    return Filter(compile_profile(text, allowed), oci_profile(text, allowed))
