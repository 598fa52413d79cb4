"""A host for engine tests: an image of busybox, networks that only make a namespace, a check that nothing is left."""

import asyncio
import io
import socket
import subprocess
import tarfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from swarmd.runtime import cgroups
from swarmd.runtime.engine import Engine, EngineConfig, opened
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.making import import_rootfs
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.model import ContainerConfig, Exit, NetworkState, PortMapping
from swarmd.runtime.network.netns import Kernel
from swarmd.runtime.network.values import NetworkInfo
from swarmd.runtime.spawner_client import Spawner

T = TypeVar("T")
BUSYBOX = Path("/bin/busybox")
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1000:\nextra:x:2000:app\n"


@dataclass(frozen=True)
class FakeSandbox:
    netns_path: str
    networks: tuple[NetworkState, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    nameservers: tuple[str, ...] = ("10.0.0.53",)
    hosts: Sequence[tuple[str, Sequence[str]]] = ()


class FakeNetworks:
    """A network namespace with nothing in it, whatever network was asked for."""

    async def attach(self, container_id: str, name: str, config: ContainerConfig, netns: str = "") -> FakeSandbox:
        if netns:
            return FakeSandbox(netns)
        if config.network_mode == "host":
            return FakeSandbox("")
        _ip("add", _netns(container_id))
        return FakeSandbox(f"/run/netns/{_netns(container_id)}")

    async def socket_inside(self, pidfd: int, family: int) -> socket.socket:
        kernel = Kernel()
        try:
            return await kernel.run(kernel.socket_inside, pidfd, family)
        finally:
            kernel.close()

    async def release(self, container_id: str) -> None:
        if Path(f"/run/netns/{_netns(container_id)}").exists():
            _ip("del", _netns(container_id))

    def rename(self, container_id: str, name: str) -> None:
        pass

    def sandboxes(self) -> Sequence[str]:
        return []

    def list(self) -> Sequence[NetworkInfo]:
        return []


def _ip(verb: str, netns: str) -> None:
    subprocess.run(["ip", "netns", verb, netns], check=True)


def _netns(container_id: str) -> str:
    return f"st-{container_id[:20]}"


def rootfs_tar() -> bytes:
    """A root file system: static busybox under every name it has, passwd and group."""
    names = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in ("bin", "etc", "tmp", "root", "home", "var", "dev", "proc", "sys"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, data, mode in (
            ("bin/busybox", BUSYBOX.read_bytes(), 0o755),
            ("etc/passwd", PASSWD.encode(), 0o644),
            ("etc/group", GROUP.encode(), 0o644),
            ("etc/not-a-program", b"", 0o644),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
    return buffer.getvalue()


async def chunks(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 1 << 18):
        yield data[start : start + (1 << 18)]


async def add_image(images: ImageStore, name: str = "busybox", **config: Any) -> None:
    await import_rootfs(images, chunks(rootfs_tar()), (name,), config=ImageConfig(**config))


@asynccontextmanager
async def engine_in(root: Path, parent: str) -> AsyncIterator[Engine]:
    """An engine on real cgroups, images and spawner; open it again with the same arguments to restart the daemon."""
    config = EngineConfig(root / "data", root / "run", parent)
    images = ImageStore(config.data_root / "images")
    spawner = Spawner()
    spawner.start()
    try:
        async with opened(config, images, cast("Any", FakeNetworks()), spawner) as engine:
            yield engine
    finally:
        spawner.close()


@dataclass
class Ran:
    exit: Exit
    out: str
    err: str


@dataclass
class Host:
    engine: Engine
    root: Path

    async def make(self, *command: str, name: str = "", **config: Any) -> str:
        defaults: dict[str, Any] = {"image": "busybox", "network_mode": "none", "stop_timeout": 0.2}
        return await self.engine.create(ContainerConfig(command=command, **(defaults | config)), name)

    async def start(self, *command: str, name: str = "", **config: Any) -> str:
        id = await self.make(*command, name=name, **config)
        await self.engine.start(id)
        return id

    async def run(self, script: str, **config: Any) -> Ran:
        id = await self.start("sh", "-c", script, **config)
        ended = await asyncio.wait_for(self.engine.wait(id), 20)
        text = {"stdout": "", "stderr": ""}
        async for entry in self.engine.logs(id):
            text[entry.stream] += entry.data.decode()
        await self.engine.remove(id)
        return Ran(ended, text["stdout"], text["stderr"])


async def until(what: str, found: Callable[[], T], seconds: float = 10.0) -> T:
    """Return the first true value of found; fails with what was last seen."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s, last seen {value!r}"
        await asyncio.sleep(0.01)
    return value


def leftovers(root: Path, parent: str) -> list[str]:
    """What a host has of an engine: processes that name its directories, cgroups, mounts and network namespaces."""
    found = [f"cgroup {id}" for id in cgroups.detect(parent).list()]
    found += [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]
    found += [f"netns {path.name}" for path in Path("/run/netns").glob("st-*")] if Path("/run/netns").is_dir() else []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
            mounts = (process / "mountinfo").read_text()
        except (OSError, ProcessLookupError):
            continue
        if str(root) in mounts:
            found.append(f"process {process.name} {title}")
    return found


def remove_parents(parent: str) -> None:
    mount = Path("/sys/fs/cgroup")
    for directory in (*mount.glob(f"*/{parent}"), *mount.glob(parent)):  # of cgroup v1, and of v2
        directory.rmdir()
