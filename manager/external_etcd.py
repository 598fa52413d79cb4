"""An etcd that exists apart from the cluster: whether it may be its store, and how to say that it does not answer.

It holds the cluster's keys and secrets, so it is reached by TLS only, and tells managers from others by certificate.
"""

import logging
import re
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from swarmd.manager.departures import StoreMember
from swarmd.manager.etcd_member import refuse_version
from swarmd.manager.store.etcd_client import EtcdClient, prefix_end
from swarmd.proto.errors import AlreadyExists, Invalid, SwarmdError, Unavailable
from swarmd.proto.objects_pb2 import ExternalEtcd

log = logging.getLogger(__name__)


def validate(etcd: ExternalEtcd) -> None:
    """Raises Invalid, naming what is wrong."""
    if not etcd.endpoints:
        raise Invalid("an external etcd needs endpoints, such as https://10.0.0.1:2379")
    for url in etcd.endpoints:
        if not re.fullmatch(r"https://([\w.-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}", url):
            raise Invalid(
                f"etcd endpoint {url!r} must be https://HOST:PORT: etcd holds the cluster's keys and secrets, "
                "so it is only reached by TLS"
            )
    if not re.fullmatch(r"(/[\w.-]+)+", etcd.prefix):
        raise Invalid(f"etcd prefix {etcd.prefix!r} must be like /swarmd: names, each after a slash")
    for what, pem in (("CA certificate", etcd.root_certificate), ("certificate", etcd.certificate)):
        try:
            x509.load_pem_x509_certificates(pem)
        except ValueError:
            raise Invalid(f"the {what} of the external etcd is missing or not PEM") from None
    try:
        load_pem_private_key(etcd.key, None)
    except (ValueError, TypeError):
        raise Invalid("the key of the external etcd is missing, has a password, or is not PEM") from None


async def check(client: EtcdClient) -> None:
    """Raises Unavailable if no endpoint answers, FailedPrecondition if one is of a version that can't be used."""
    problems = []
    for url in client.urls:
        try:
            status = await client.status(url)
        except SwarmdError as problem:
            log.warning("external etcd %s does not answer: %s", url, problem)
            problems.append(str(problem))
        else:
            refuse_version(status.version)
    if len(problems) == len(client.urls):
        raise Unavailable(unreachable(client.urls, problems[0]))


def unreachable(urls: Iterable[str], reason: str) -> str:
    return (
        f"the cluster's external etcd does not answer at {', '.join(urls)}: {reason}; see that it runs, has a leader, "
        "and accepts the certificate"
    )


async def refuse_inhabited(client: EtcdClient, prefix: str) -> None:
    """Raises AlreadyExists: two clusters in one place would destroy each other."""
    within = f"{prefix}/".encode()
    _, found = await client.range(within, prefix_end(within))
    if not found:
        return
    clusters = f"{prefix}/v1/cluster/"
    ids = [kv.key.decode().removeprefix(clusters) for kv in found if kv.key.decode().startswith(clusters)]
    holds = f"cluster {ids[0]}" if ids else f"{len(found)} keys"
    raise AlreadyExists(
        f"the etcd at {client.urls[0]} already holds {holds} under {prefix}: join that cluster, choose another "
        f"--etcd-prefix, or delete what is there with 'etcdctl del --prefix {prefix}/'"
    )


class NoMembers:
    """The members of an external etcd are none of ours; satisfies roles.Members."""

    async def present(self) -> Sequence[StoreMember]:
        return ()

    async def remove(self, member_id: int) -> None:
        raise SwarmdError(f"member {member_id:x} is not of this cluster")
