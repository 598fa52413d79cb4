"""Acquires what a run holds on this host, in order, and writes what its init reads; `release` gives all of it back.

cgroup, user namespace, network    each found again by the container's id alone: a crash between two leaks nothing
config.json, hosts, ...            made anew at each start: nothing depends on their being durable
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from swarmd.runtime import cdi, checks, devices, effective, etc_files, spec
from swarmd.runtime.cgroups.interface import Hierarchy
from swarmd.runtime.errors import Conflict, Invalid, NotFound
from swarmd.runtime.events import Events
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import passing
from swarmd.runtime.model import BindMount, ContainerConfig, ContainerState, ImageMount, NetworkState, PortMapping
from swarmd.runtime.ports import CompileSeccomp, Filter, Image, Images, Networks, Sandbox
from swarmd.runtime.spawner_client import Spawner
from swarmd.runtime.stages import files
from swarmd.runtime.userns import UserNamespaces, wanted_size


@dataclass(frozen=True)
class Host:
    """What all containers share."""

    spawner: Spawner
    cgroups: Hierarchy
    images: Images
    networks: Networks
    users: UserNamespaces
    compile_seccomp: CompileSeccomp
    events: Events
    cgroup_parent: str = "swarmd"

    def image_of(self, state: ContainerState) -> Image:
        """One that says nothing where there is none any more: of a build that was cut off, or damaged on the disk."""
        try:
            return self.images.get(state.image_id)
        except NotFound:
            return passing(ImageConfig(), ())


# A container that runs, by id or name; raises NotFound or Conflict.
FindPeer = Callable[[str], spec.Peer]


@dataclass(frozen=True, slots=True)
class BorrowedSandbox:
    """The network of another container."""

    netns_path: str
    networks: tuple[NetworkState, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    nameservers: tuple[str, ...] = ()
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()


async def prepare(
    state: ContainerState, directory: Path, host: Host, find_peer: FindPeer
) -> tuple[Sandbox, Mapping[str, Any]]:
    """Return the network, and what the spawner is to be asked. After an error the caller releases what was acquired."""
    config, image = state.config, host.images.get(state.image_id)
    peers = _peers(config, find_peer)
    for mount in config.mounts:
        if isinstance(mount, BindMount) and mount.create_source:
            _make_source(mount.source)
    edits = cdi.edits(config.cdi_devices)
    cgroup = host.cgroups.create(state.id, config.limits, devices.rules(config, cdi.rules(edits)))
    size = wanted_size(config.namespaces.user)
    user = await host.users.take(state.id, size) if size else None
    if "network" in peers:
        sandbox: Sandbox = BorrowedSandbox(f"/proc/{peers['network'].pid}/ns/net")
        theirs = (peers["network"].directory / "hostname").read_text().strip()  # that its address has in /etc/hosts
        config = msgspec.structs.replace(config, hostname=theirs)
    else:
        config = msgspec.structs.replace(config, ports=effective.ports(config, image))
        sandbox = await host.networks.attach(state.id, state.name, config, user.network if user else "")
    seccomp = _filter(config, host)
    empty = directory / "empty"
    layers = {m.image: host.images.get(m.image).layers for m in config.mounts if isinstance(m, ImageMount)}
    if layers:
        empty.mkdir(exist_ok=True)
    given = spec.Given(
        sandbox=sandbox,
        procs=cgroup.procs_files(),
        name=state.name,
        cgroup_path=f"/{host.cgroup_parent.strip('/')}/{state.id}",
        user=user,
        peers=peers,
        layers=layers,
        seccomp=seccomp.profile if seccomp else None,
        device_edits=edits,
        runtime=checks.runtime_path(config.runtime),
        empty=empty,
    )
    document = spec.build(state.id, directory, config, image, given)
    contents = {
        **etc_files.contents(state.id, config, sandbox),
        "seccomp.bpf": seccomp.program if seccomp else b"",
        "config.json": msgspec.json.encode(document),
    }
    for name, content in contents.items():
        files.put_new(f"{directory}/{name}", content)
    return sandbox, {"op": "start", "directory": str(directory), "terminal": config.tty, **_for_keeper(document)}


def _for_keeper(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the config what every keeper reads, so that few have to read all of it."""
    wanted = ("swarmd.cgroup.procs", "swarmd.log", "swarmd.runtime", "swarmd.stdin")
    return {"annotations": {key: value for key, value in document["annotations"].items() if key in wanted}}


def _make_source(path: str) -> None:
    """A directory, unless something is there."""
    try:
        Path(path).mkdir(parents=True)
    except FileExistsError:
        return
    except OSError as error:
        why = (error.strerror or "it failed").lower()
        raise Invalid(f"the source {path} of a mount can't be made: {why}") from None


async def release(id: str, host: Host) -> None:
    """Kill what is left of a run and give back what it held; in reverse, by id alone, and again without harm."""
    with contextlib.suppress(NotFound):
        cgroup = host.cgroups.load(id)
        await asyncio.to_thread(_empty, cgroup.kill, cgroup.remove)
    await host.networks.release(id)
    host.users.release(id)


def _empty(kill: Callable[[], None], remove: Callable[[], None]) -> None:
    kill()
    remove()


def _filter(config: ContainerConfig, host: Host) -> Filter | None:
    if config.security.privileged or config.security.seccomp == "unconfined":
        return None
    return host.compile_seccomp(config.security.seccomp, effective.capabilities(config))


def _peers(config: ContainerConfig, find_peer: FindPeer) -> Mapping[str, spec.Peer]:
    modes = {"pid": config.namespaces.pid, "ipc": config.namespaces.ipc, "network": config.network_mode}
    found: dict[str, spec.Peer] = {}
    for kind, mode in modes.items():
        if not mode.startswith("container:"):
            continue
        try:
            found[kind] = find_peer(mode.removeprefix("container:"))
        except (NotFound, Conflict) as problem:
            raise Conflict(f"the {kind} namespace of another container can't be shared: {problem}") from None
    return found
