"""Mutual TLS between nodes: who a certificate says its holder is, and credentials for gRPC and HTTPS.

A node's certificate says CN = node id, OU = role, O = cluster id.  **Invariant:** an identity is only ever read from a
certificate that TLS has verified against the cluster's root.  Certificates are issued in manager/ca/authority.py.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc

from swarmd.proto.errors import Denied
from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER, NODE_ROLE_WORKER, NodeRole

MANAGER_NAME = "swarmd-manager"  # a DNS name in every manager's certificate
WORKER_NAME = "swarmd-worker"
ROLES: dict[str, NodeRole.ValueType] = {MANAGER_NAME: NODE_ROLE_MANAGER, WORKER_NAME: NODE_ROLE_WORKER}
ROLE_NAMES = {role: name for name, role in ROLES.items()}
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 1500),
    ("grpc.keepalive_timeout_ms", 1500),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
)
# gRPC's own: 20 s for an attempt, and up to 120 s between two, in which who is back again counts as away.
_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3000),  # the time for an attempt
    ("grpc.max_reconnect_backoff_ms", 1000),
)
SERVER_OPTIONS = (
    *_KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.so_reuseport", 0),  # a second process on the port is a mistake, not load balancing
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who holds a certificate."""

    node_id: str
    role: NodeRole.ValueType
    cluster_id: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate, its key and the root that peers are verified against; all PEM."""

    certificate: bytes
    key: bytes
    root: bytes


def channel_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(credentials.root, credentials.key, credentials.certificate)


def channel_options(name: str = MANAGER_NAME) -> tuple[tuple[str, Any], ...]:
    """Options of a channel to the node that `name` is in the certificate of: any manager, or a node id."""
    return (("grpc.ssl_target_name_override", name), *_KEEPALIVE, *_RECONNECT)


def server_credentials(fetch: Callable[[], Credentials]) -> grpc.ServerCredentials:
    """Demand a client certificate; `fetch` is asked anew for each connection, so that a renewal needs no restart."""

    def configuration() -> Any:
        now = fetch()
        return grpc.ssl_server_certificate_configuration([(now.key, now.certificate)], now.root)

    return grpc.dynamic_ssl_server_credentials(configuration(), configuration, require_client_authentication=True)


def https_server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.3 without a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    return context


def https_client_context(root: bytes) -> ssl.SSLContext:
    """Trust one root and nothing else; the caller passes `server_hostname=MANAGER_NAME`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=root.decode())
    return context


def unverified_context() -> ssl.SSLContext:
    """For fetching a root whose digest is checked afterwards, and for nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def peer_identity(context: Any) -> Identity:
    """The caller of a gRPC method, from the certificate that its connection was verified by; Denied without one."""
    pems = context.auth_context().get("x509_pem_cert", ())
    if not pems:
        raise Denied("a certificate of this cluster is needed here: join the cluster first")
    return certificate_identity(bytes(pems[0]))


@lru_cache(maxsize=4096)
def certificate_identity(certificate: bytes) -> Identity:
    """Who a PEM certificate names; Denied unless it is a node's."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_pem_x509_certificate(certificate).subject
    parts = (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME)
    found = [[str(attribute.value) for attribute in subject.get_attributes_for_oid(part)] for part in parts]
    match found:
        case [[node_id], [role], [cluster_id]] if role in ROLES:
            return Identity(node_id, ROLES[role], cluster_id)
    raise Denied(f"the certificate of {subject.rfc4514_string() or 'nobody'} is not that of a node")


def validity(certificate: bytes) -> tuple[float, float]:
    """From when to when a PEM certificate is valid, in seconds since the epoch."""
    from cryptography import x509

    parsed = x509.load_pem_x509_certificate(certificate)
    return parsed.not_valid_before_utc.timestamp(), parsed.not_valid_after_utc.timestamp()


def new_key() -> bytes:
    """A P-256 private key, PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_request(key: bytes) -> bytes:
    """A PEM request to certify the key; its subject is empty, since the CA decides who we are."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = serialization.load_pem_private_key(key, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)
