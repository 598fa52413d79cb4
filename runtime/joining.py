"""Which networks a container is on, as its configuration says: what connecting and disconnecting make of it.

A container that runs is changed at once by `network/manager.py`; one that does not finds it at its next start.
"""

from collections.abc import Callable

import msgspec

from swarmd.runtime.errors import Conflict, Invalid, NotFound
from swarmd.runtime.model import ContainerConfig, NetworkRequest
from swarmd.runtime.network.values import NetworkInfo

Find = Callable[[str], NetworkInfo]  # by name or id; raises NotFound


def requests(config: ContainerConfig) -> tuple[NetworkRequest, ...]:
    """The networks that a container joins at its start."""
    if config.networks:
        return config.networks
    own = config.network_mode not in ("none", "host") and not config.network_mode.startswith("container:")
    return (NetworkRequest(network=config.network_mode),) if own else ()


def with_network(name: str, config: ContainerConfig, request: NetworkRequest, find: Find) -> ContainerConfig:
    """name: the container's."""
    wanted = find(request.network)
    _refuse_shared(name, config)
    if wanted.driver == "overlay":
        raise Invalid(f"network {wanted.name} is an overlay: its addresses are given by the cluster, to tasks alone")
    if any(_is(one, wanted, find) for one in requests(config)):
        raise Conflict(f"container {name} is on network {wanted.name} already: disconnect it first")
    request = msgspec.structs.replace(request, network=wanted.name)
    return msgspec.structs.replace(config, networks=(*requests(config), request))


def without_network(name: str, config: ContainerConfig, network: NetworkInfo, find: Find) -> ContainerConfig:
    _refuse_shared(name, config)
    if network.driver == "overlay":
        raise Invalid(f"network {network.name} is an overlay: the cluster says which containers are on it")
    kept = tuple(one for one in requests(config) if not _is(one, network, find))
    if len(kept) == len(requests(config)):
        raise NotFound(f"container {name} is not on network {network.name}")
    mode = config.network_mode if kept else "none"
    return msgspec.structs.replace(config, networks=kept, network_mode=mode)


def _is(request: NetworkRequest, network: NetworkInfo, find: Find) -> bool:
    try:
        return find(request.network).id == network.id
    except NotFound:
        return False  # removed since


def _refuse_shared(name: str, config: ContainerConfig) -> None:
    shared = config.network_mode == "host" or config.network_mode.startswith("container:")
    if shared and not config.networks:
        whose = "the host's network" if config.network_mode == "host" else "another container's network"
        raise Invalid(f"container {name} uses {whose}: it can't be connected to others, or disconnected")
