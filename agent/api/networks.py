"""Networks: this node's bridges, and on a manager the cluster's overlays, in one namespace of names."""

import contextlib
from typing import Any

from aiohttp import web

from swarmd.agent.api import objects, query
from swarmd.agent.api.container_config import endpoint
from swarmd.agent.api.fields import Fields, body
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.codec import encode, rfc3339
from swarmd.proto.errors import Invalid, NotFound
from swarmd.runtime import errors as runtime
from swarmd.runtime.model import ContainerState
from swarmd.runtime.network.values import NetworkInfo

_FILTERS = frozenset({"driver", "id", "label", "name", "scope", "type"})
_UNSUPPORTED = frozenset({"CheckDuplicate", "ConfigFrom", "ConfigOnly", "EnableIPv6"})


async def listing(request: web.Request) -> web.Response:
    wanted = query.filters(request)
    query.only(wanted, _FILTERS)
    overlays = {obj.network.id: _overlay(obj.network) for obj in await _overlays(request)}
    here = [network for network in services(request).engine.networks.list() if network.id not in overlays]
    shown = [*map(_local, here), *overlays.values()]
    return answer([network for network in shown if _is_wanted(network, wanted)])


async def _overlays(request: web.Request) -> list[pb.Object]:
    if not services(request).membership.info().control_available:
        return []
    return await objects.everything(request, control_pb.KIND_NETWORK)


def _is_wanted(network: dict[str, Any], wanted: dict[str, tuple[str, ...]]) -> bool:
    labels = network["Labels"].keys() | {f"{key}={value}" for key, value in network["Labels"].items()}
    builtin = network["Name"] in ("bridge", "host", "none")
    tests = {
        "driver": lambda value: value == network["Driver"],
        "id": lambda value: network["Id"].startswith(value),
        "label": lambda value: value in labels,
        "name": lambda value: value in network["Name"],
        "scope": lambda value: value == network["Scope"],
        "type": lambda value: value == ("builtin" if builtin else "custom"),
    }
    return all(any(map(tests[key], values)) for key, values in wanted.items())


async def create(request: web.Request) -> web.Response:
    with Fields(await body(request), unsupported=_UNSUPPORTED) as fields:
        fields.ignore("CheckDuplicate", True)  # names are unique in any case
        fields.ignore("EnableIPv4", True)
        spec = _spec(fields)
        scope = fields.text("Scope")
    if not spec.name:
        raise Invalid("field Name is required: name the network")
    if scope and scope != ("swarm" if spec.driver == "overlay" else "local"):
        raise Invalid(f"field Scope cannot be {scope} for a network with the driver {spec.driver}")
    make = _create_overlay if spec.driver == "overlay" else _create_bridge
    return answer({"Id": await make(request, spec), "Warning": ""}, status=201)


def _spec(fields: Fields) -> pb.NetworkSpec:
    spec = pb.NetworkSpec(
        name=fields.text("Name"),
        driver=fields.text("Driver") or "bridge",
        labels=fields.mapping("Labels"),
        options=fields.mapping("Options"),
        internal=fields.flag("Internal"),
        attachable=fields.flag("Attachable"),
        ingress=fields.flag("Ingress"),
    )
    with fields.part("IPAM", ("Options",)) as ipam:
        ipam.ignore("Driver", "default", "")
        for pool in ipam.parts("Config", ("AuxiliaryAddresses", "AuxAddress")):
            with pool:
                spec.ipam.add(subnet=pool.text("Subnet"), gateway=pool.text("Gateway"), ip_range=pool.text("IPRange"))
    return spec


async def _create_overlay(request: web.Request, spec: pb.NetworkSpec) -> str:
    written = await objects.create(request, pb.Object(network=pb.Network(spec=spec)))
    return written.object.network.id


async def _create_bridge(request: web.Request, spec: pb.NetworkSpec) -> str:
    # Attachable is what a bridge always is.
    for name, asked in (("Ingress", spec.ingress), ("Options", bool(spec.options))):
        if asked:
            raise Invalid(f"field {name} is not supported for a network with the driver {spec.driver}")
    if len(spec.ipam) > 1 or any(pool.ip_range for pool in spec.ipam):
        raise Invalid("field IPAM.Config: a bridge has one subnet, and no address range apart from it")
    pool = spec.ipam[0] if spec.ipam else pb.IPAMConfig()
    made = await services(request).engine.networks.create(
        spec.name,
        driver=spec.driver,
        subnet=pool.subnet,
        gateway=pool.gateway,
        internal=spec.internal,
        labels=dict(spec.labels),
    )
    services(request).engine.publish("network", "create", made.id, {"name": made.name, "type": made.driver})
    return made.id


async def inspect(request: web.Request) -> web.Response:
    ref, scope = request.match_info["id"], request.query.get("scope", "")
    if scope != "swarm":
        try:
            network = services(request).engine.networks.inspect(ref)
            if not (network.driver == "overlay" and services(request).membership.info().control_available):
                return answer(_local(network) | {"Containers": _connected(request, network)})
        except runtime.NotFound:
            if scope == "local":
                raise
    return answer(_overlay(await _find_overlay(request, ref)))


def _connected(request: web.Request, network: NetworkInfo) -> dict[str, Any]:
    shown = {}
    for state in services(request).engine.list():
        for one in state.networks:
            if one.id == network.id:
                addresses = {"MacAddress": one.mac, "IPv4Address": one.address, "IPv6Address": ""}
                shown[state.id] = {"Name": state.name, "EndpointID": f"{state.id[:32]}{network.id[:32]}", **addresses}
    return shown


async def remove(request: web.Request) -> web.Response:
    ref = request.match_info["id"]
    try:
        is_local = services(request).engine.networks.inspect(ref).driver != "overlay"
    except runtime.NotFound:
        is_local = False
    if is_local:
        await _remove_local(request, services(request).engine.networks.inspect(ref))
    else:
        overlay = await _find_overlay(request, ref)
        await objects.remove(request, control_pb.KIND_NETWORK, overlay.id)
    return web.Response(status=204)


async def _remove_local(request: web.Request, network: NetworkInfo) -> None:
    engine = services(request).engine
    await engine.networks.remove(network.id)
    engine.publish("network", "destroy", network.id, {"name": network.name, "type": network.driver})


async def connect(request: web.Request) -> web.Response:
    with Fields(await body(request)) as fields:
        container, wanted = _container(request, fields), fields.raw("EndpointConfig")
    asked = endpoint(_connectable(request).name, wanted, "EndpointConfig")
    await services(request).engine.connect(container, asked)
    return web.Response(status=200)


async def disconnect(request: web.Request) -> web.Response:
    with Fields(await body(request)) as fields:
        container = _container(request, fields)
        fields.flag("Force")  # there is nothing that it would have to overcome
    await services(request).engine.disconnect(container, _connectable(request).id)
    return web.Response(status=200)


def _container(request: web.Request, fields: Fields) -> str:
    ref = fields.text("Container")
    if not ref:
        raise Invalid("field Container is required: name the container")
    return services(request).engine.inspect(ref).id


def _connectable(request: web.Request) -> NetworkInfo:
    """One that containers can be connected to: bridges of this node, and the overlays that it has."""
    return services(request).engine.networks.inspect(request.match_info["id"])


async def prune(request: web.Request) -> web.Response:
    """Remove this node's own networks that no container is to use, but for the default one."""
    wanted = query.filters(request)
    query.only(wanted, frozenset({"label", "label!", "until"}))
    if "until" in wanted:
        raise Invalid("filter until is not supported for networks: when one was made is not kept")
    engine = services(request).engine
    used = {name for state in engine.list() for name in (state.config.network_mode, *_asked(state))}
    removed = []
    for network in list(engine.networks.list()):
        labels = network.labels.keys() | {f"{key}={value}" for key, value in network.labels.items()}
        kept = any(value not in labels for value in wanted.get("label", ()))
        kept = kept or any(value in labels for value in wanted.get("label!", ()))
        if network.driver == "overlay" or network.name == "bridge" or kept or {network.name, network.id} & used:
            continue
        with contextlib.suppress(runtime.Conflict):  # taken meanwhile
            await _remove_local(request, network)
            removed.append(network.name)
    return answer({"NetworksDeleted": removed or None})


def _asked(state: ContainerState) -> list[str]:
    return [wanted.network for wanted in state.config.networks]


async def _find_overlay(request: web.Request, ref: str) -> pb.Network:
    if not services(request).membership.info().control_available:
        raise NotFound(f"no network {ref} on this node: overlay networks are known to managers")
    return (await objects.get(request, control_pb.KIND_NETWORK, ref)).network


def _local(network: NetworkInfo) -> dict[str, Any]:
    pools = [{"Subnet": network.subnet, "Gateway": network.gateway}] if network.subnet else []
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": "0001-01-01T00:00:00Z",  # not recorded
        "Scope": "swarm" if network.driver == "overlay" else "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": pools},
        "Internal": network.internal,
        "Attachable": False,
        "Ingress": False,
        "Containers": {},
        "Options": {},
        "Labels": dict(network.labels),
    }


def _overlay(network: pb.Network) -> dict[str, Any]:
    spec = network.spec
    pools = [encode(pool) for pool in spec.ipam] or ([{"Subnet": network.subnet}] if network.subnet else [])
    return {
        "Name": spec.name,
        "Id": network.id,
        "Created": rfc3339(network.created_at),
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": pools},
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "Containers": None,
        "Options": dict(spec.options),
        "Labels": dict(spec.labels),
    }
