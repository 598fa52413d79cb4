"""What the engine needs of its neighbours; `network`, `seccomp` and `images` implement it, tests bring fakes."""

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.model import ContainerConfig, NetworkRequest, NetworkState, PortMapping
from swarmd.runtime.network.values import NetworkInfo


class Filter(NamedTuple):
    """A seccomp filter: classic BPF, and the profile it came from in the OCI specification's form."""

    program: bytes
    profile: Mapping[str, Any]


# (profile, capability names) -> filter; profile as in Security.seccomp, never "unconfined"
CompileSeccomp = Callable[[str, frozenset[str]], Filter]


class Sandbox(Protocol):
    """The network side of one container: there before its program starts."""

    @property
    def netns_path(self) -> str: ...  # "" is the host's
    @property
    def networks(self) -> tuple[NetworkState, ...]: ...
    @property
    def ports(self) -> tuple[PortMapping, ...]: ...
    @property
    def nameservers(self) -> tuple[str, ...]: ...
    @property
    def hosts(self) -> Sequence[tuple[str, Sequence[str]]]: ...


class Networks(Protocol):
    async def attach(self, container_id: str, name: str, config: ContainerConfig, netns: str = "") -> Sandbox:
        """netns: the file of a network namespace to use instead of a new one."""
        ...

    async def socket_inside(self, pidfd: int, family: int) -> socket.socket:
        """Return a stream socket in the network namespace of a process."""
        ...

    async def release(self, container_id: str) -> None: ...
    def rename(self, container_id: str, name: str) -> None:
        """Raises Conflict for a name by which another is known on the same network."""
        ...

    def inspect(self, ref: str) -> NetworkInfo: ...
    async def connect(self, container_id: str, request: NetworkRequest, config: ContainerConfig) -> Sandbox: ...
    async def disconnect(self, container_id: str, network_id: str, config: ContainerConfig) -> Sandbox: ...
    def sandboxes(self) -> Sequence[str]: ...  # ids of the containers that are attached


class Image(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def config(self) -> ImageConfig: ...
    @property
    def layers(self) -> tuple[Path, ...]: ...  # lowest first


class Images(Protocol):
    def get(self, ref: str) -> Image: ...
