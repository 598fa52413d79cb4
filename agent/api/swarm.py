"""The cluster as a whole: made, joined, left, configured, and its join tokens."""

from aiohttp import web

from swarmd.agent.api import objects, query
from swarmd.agent.api.fields import Fields, body
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.codec import decode, encode
from swarmd.proto.errors import Invalid

_INIT_UNSUPPORTED = frozenset({"AutoLockManagers", "DataPathAddr", "DataPathPort"})
_AVAILABILITY: dict[str, pb.NodeAvailability.ValueType] = {
    "": pb.NODE_AVAILABILITY_ACTIVE,
    "active": pb.NODE_AVAILABILITY_ACTIVE,
    "pause": pb.NODE_AVAILABILITY_PAUSE,
    "drain": pb.NODE_AVAILABILITY_DRAIN,
}


async def inspect(request: web.Request) -> web.Response:
    cluster = (await objects.get(request, control_pb.KIND_CLUSTER, "")).cluster
    tokens = {"Worker": cluster.root_ca.worker_token, "Manager": cluster.root_ca.manager_token}
    return answer(encode(cluster) | {"JoinTokens": tokens})


async def init(request: web.Request) -> web.Response:
    """Returns the id of this node, its first manager.

    ForceNewCluster goes on with the cluster there is: its state, not what else is asked here, says how it is.
    """
    with Fields(await body(request), unsupported=_INIT_UNSUPPORTED) as fields:
        fields.ignore("DataPathPort", 4789)
        listen_addr, advertise_addr = fields.text("ListenAddr"), fields.text("AdvertiseAddr")
        availability = _availability(fields)
        spec = decode(pb.ClusterSpec, fields.raw("Spec"), "Spec")
        pools, subnet_size = fields.texts("DefaultAddrPool"), fields.number("SubnetSize")
        etcd = _external_etcd(fields.part("SwarmdEtcd")) if fields.has("SwarmdEtcd") else None
        alone = fields.flag("ForceNewCluster")
    if alone:
        return answer(await services(request).membership.init_alone())
    node_id = await services(request).membership.init(
        listen_addr=listen_addr,
        advertise_addr=advertise_addr,
        spec=spec,
        availability=availability,
        default_addr_pool=pools,
        # Docker's clients send 24 with no pools; it speaks of pools only.
        subnet_size=subnet_size if pools else 0,
        etcd=etcd,
    )
    return answer(node_id)


def _external_etcd(part: Fields) -> pb.ExternalEtcd:
    """Not Docker's: where the cluster's state is kept, if not by etcd members of the managers' own."""
    with part as fields:
        return pb.ExternalEtcd(
            endpoints=fields.texts("Endpoints"),
            root_certificate=fields.text("CACert").encode(),
            certificate=fields.text("Cert").encode(),
            key=fields.text("Key").encode(),
            prefix=fields.text("Prefix") or "/swarmd",
        )


async def join(request: web.Request) -> web.Response:
    with Fields(await body(request), unsupported=("DataPathAddr",)) as fields:
        listen_addr, advertise_addr = fields.text("ListenAddr"), fields.text("AdvertiseAddr")
        availability = _availability(fields)
        token, remote_addrs = fields.text("JoinToken"), fields.texts("RemoteAddrs")
    if not token or not remote_addrs:
        raise Invalid(
            "fields JoinToken and RemoteAddrs are required: 'swarm join-token worker' on a manager shows both"
        )
    await services(request).membership.join(
        remote_addrs, token, listen_addr=listen_addr, advertise_addr=advertise_addr, availability=availability
    )
    return web.Response()


def _availability(fields: Fields) -> pb.NodeAvailability.ValueType:
    text = fields.text("Availability")
    if text not in _AVAILABILITY:
        raise Invalid(f"field Availability must be active, pause or drain, not {text!r}")
    return _AVAILABILITY[text]


async def leave(request: web.Request) -> web.Response:
    """Answers like Docker with nothing, unless there is something left to do elsewhere."""
    left_behind = await services(request).membership.leave(force=query.flag(request, "force"))
    return answer({"Warnings": [left_behind]}) if left_behind else web.Response()


async def update(request: web.Request) -> web.Response:
    """Change the cluster's spec, and issue new join tokens where asked; both from one request, as Docker has it."""
    if query.flag(request, "rotateManagerUnlockKey"):
        raise Invalid("query parameter rotateManagerUnlockKey is not supported: managers are not locked")
    spec = decode(pb.ClusterSpec, await body(request) or {})
    cluster = (await objects.get(request, control_pb.KIND_CLUSTER, "")).cluster
    # Docker's clients send back the spec they read, without the name if it is empty.
    spec.name = spec.name or cluster.spec.name
    if spec != cluster.spec:
        version = query.version(request)
        await objects.update(request, pb.Object(cluster=pb.Cluster(id=cluster.id, version=version, spec=spec)))
    for name, role in (("Worker", pb.NODE_ROLE_WORKER), ("Manager", pb.NODE_ROLE_MANAGER)):
        if query.flag(request, f"rotate{name}Token"):
            await objects.control(request).RotateJoinToken(control_pb.RotateJoinTokenRequest(role=role))
    return web.Response()
