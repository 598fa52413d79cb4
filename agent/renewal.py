"""Keeps this node's certificate fresh and in the role that the node has.

Renewed at a random moment between half and four fifths of its life, so that a fleet that joined together does not
renew together; at once when the node's role changes.
"""

import random
import time
from collections.abc import Iterable

import grpc
from grpc import aio

from swarmd.proto import ca_pb2_grpc
from swarmd.proto.ca_pb2 import Identity, RenewRequest
from swarmd.proto.dispatcher_pb2 import ManagerPeer
from swarmd.proto.errors import FailedPrecondition, SwarmdError, Unavailable
from swarmd.proto.identity import IdentityFiles
from swarmd.proto.rpc import mapped
from swarmd.proto.tls import channel_credentials, channel_options, validity

TIMEOUT = 10.0  # s


def due(certificate: bytes, rng: random.Random) -> float:
    """When to renew, in seconds since the epoch."""
    start, end = validity(certificate)
    return start + (end - start) * rng.uniform(0.5, 0.8)


def check_valid(identity: Identity) -> None:
    """Raise FailedPrecondition, with what to do, once the certificate has expired."""
    _, end = validity(identity.certificate)
    if time.time() > end:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(end))
        raise FailedPrecondition(
            f"this node's certificate expired on {when}: run 'swarmctl swarm leave --force' here, remove the node on a "
            "manager with 'swarmctl node rm', and join again"
        )


async def renew(files: IdentityFiles, managers: Iterable[ManagerPeer]) -> Identity:
    """Have the first manager that answers certify this node again, and keep what it gives."""
    request = RenewRequest()
    files.sign_requests(request)
    problem: SwarmdError = Unavailable("no manager is known to renew this node's certificate")
    for manager in managers:
        credentials = channel_credentials(files.credentials())
        async with aio.secure_channel(manager.addr, credentials, options=channel_options()) as channel:
            try:
                identity = await ca_pb2_grpc.CAStub(channel).Renew(request, timeout=TIMEOUT)
            except grpc.aio.AioRpcError as error:
                problem = mapped(error, f"manager {manager.addr}")
                continue
        files.save(identity)
        return identity
    raise problem
