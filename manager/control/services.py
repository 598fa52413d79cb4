"""Create, update and remove services: what of it needs the store.  The rules of the spec alone are in validate_service.

Transaction bodies: synchronous, and run again on conflict.
"""

from swarmd.manager.control.refs import resolve
from swarmd.manager.control.validate_service import validate_service
from swarmd.manager.orchestrator.update import revise, rolled_back
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import Tx
from swarmd.proto.errors import AlreadyExists, Conflict, FailedPrecondition, Invalid
from swarmd.proto.objects_pb2 import (
    PUBLISH_MODE_INGRESS,
    Network,
    NetworkAttachmentConfig,
    PortConfig,
    Service,
    ServiceSpec,
)


def create(tx: Tx, wanted: Service, new_id: str, now: int) -> Service:
    spec = _settled(tx, wanted.spec)
    if tx.find(Service, name=spec.name):
        raise AlreadyExists(f"service {spec.name} exists already: choose another name, or update it")
    _check_ports(tx, spec, "")
    service = Service(id=new_id, spec=spec, spec_version=1)
    tx.put(service)
    return service


def update(tx: Tx, wanted: Service, rollback: bool, now: int) -> Service:
    service = _at_version(tx, wanted)
    if rollback:
        if not service.HasField("previous_spec"):
            raise FailedPrecondition(f"service {service.spec.name} has no previous spec to roll back to")
        changed = rolled_back(service, now, "manually requested rollback")
    else:
        spec = _settled(tx, wanted.spec)
        if spec.name != service.spec.name:
            raise Invalid(f"service {service.spec.name} can't be renamed: create another, and remove this one")
        changed = revise(service, spec)
    _check_ports(tx, changed.spec, service.id)
    tx.put(changed)
    return changed


def remove(tx: Tx, ref: str, force: bool) -> str:
    """Name and published ports are free at once; the reaper ends the tasks, which keep their addresses till then."""
    service = resolve(tx, Service, ref)
    tx.delete(service)
    return service.id


def _at_version(tx: Tx, wanted: Service) -> Service:
    service = resolve(tx, Service, wanted.id)
    if wanted.version.index != service.version.index:
        raise Conflict(f"update out of sequence: service {service.spec.name} was changed meanwhile; read it again")
    return service


def _settled(tx: Tx, asked: ServiceSpec) -> ServiceSpec:
    """The spec as stored: checked, defaults that tell kinds apart filled in, networks by id and in one place."""
    spec = edited(asked)
    if not spec.mode.HasField("mode"):
        spec.mode.replicated.SetInParent()
    for port in spec.endpoint.ports:
        port.protocol = port.protocol or "tcp"
    validate_service(spec)
    attachments = [*spec.task.networks, *(() if spec.task.networks else spec.networks)]
    spec.ClearField("networks")
    spec.task.ClearField("networks")
    spec.task.networks.extend(_attachment(tx, attachment) for attachment in attachments)
    ids = [attachment.target for attachment in spec.task.networks]
    if len(set(ids)) < len(ids):
        raise Invalid(f"service {spec.name} names a network twice")
    return spec


def _attachment(tx: Tx, asked: NetworkAttachmentConfig) -> NetworkAttachmentConfig:
    network = resolve(tx, Network, asked.target)
    if network.spec.ingress:
        raise Invalid(f"network {network.spec.name} carries published ports: services can't be attached to it by name")
    if network.removing:
        raise FailedPrecondition(f"network {network.spec.name} is being removed")
    attachment = edited(asked)
    attachment.target = network.id
    return attachment


def _check_ports(tx: Tx, spec: ServiceSpec, service_id: str) -> None:
    wanted = {(port.published_port, port.protocol): port for port in spec.endpoint.ports if _is_ingress(port)}
    wanted.pop((0, "tcp"), None)
    wanted.pop((0, "udp"), None)
    if not wanted:
        return
    for other in tx.find(Service):
        if other.id == service_id:
            continue
        for port in (*other.spec.endpoint.ports, *other.endpoint.ports):
            if _is_ingress(port) and (port.published_port, port.protocol) in wanted:
                raise AlreadyExists(
                    f"port {port.published_port}/{port.protocol} is already published by service {other.spec.name}"
                )


def _is_ingress(port: PortConfig) -> bool:
    return port.publish_mode == PUBLISH_MODE_INGRESS
