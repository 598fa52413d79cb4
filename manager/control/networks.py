"""Create and remove cluster networks; subnets and VNIs are the allocator's to give."""

from swarmd.manager.control.refs import resolve
from swarmd.manager.control.validate_network import subnet, validate_network
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Tx
from swarmd.proto.errors import AlreadyExists, FailedPrecondition, Invalid
from swarmd.proto.objects_pb2 import IPAMConfig, Network, NetworkSpec, Service


def create(tx: Tx, wanted: Network, new_id: str, now: int) -> Network:
    spec = edited(wanted.spec)
    spec.driver = spec.driver or "overlay"
    validate_network(spec)
    if tx.find(Network, name=spec.name):
        raise AlreadyExists(f"network {spec.name} exists already: choose another name")
    _check_ingress(tx, spec)
    _check_overlap(tx, spec)
    network = Network(id=new_id, spec=spec)
    tx.put(network)
    return network


def remove(tx: Tx, ref: str, force: bool) -> str:
    """Leave a tombstone: the allocator deletes the network once no task is attached."""
    network = edited(resolve(tx, Network, ref))
    users = [
        service.spec.name
        for service in tx.find(Service)
        if any(attachment.target == network.id for attachment in service.spec.task.networks)
        or (network.spec.ingress and service.spec.endpoint.ports)
    ]
    if users:
        raise FailedPrecondition(
            f"network {network.spec.name} is in use by service {', '.join(sorted(users))}: remove that first"
        )
    if not network.removing:
        network.removing = True
        tx.put(network)
    return network.id


def _check_ingress(tx: Tx, spec: NetworkSpec) -> None:
    if not spec.ingress:
        return
    for network in tx.find(Network):
        if network.spec.ingress:
            raise AlreadyExists(f"there is an ingress network already: {network.spec.name}; remove that first")


def _check_overlap(tx: Tx, spec: NetworkSpec) -> None:
    for config in spec.ipam:
        if not config.subnet:
            continue
        for network in tx.find(Network):
            if network.subnet and subnet(IPAMConfig(subnet=network.subnet)).overlaps(subnet(config)):
                raise Invalid(
                    f"subnet {config.subnet} overlaps with {network.subnet} of network {network.spec.name}: "
                    "choose another"
                )
