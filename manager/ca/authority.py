"""A certificate authority: P-256, a self-signed root, and certificates that say who a node is.

The cluster has two: one for nodes (CN node id, OU role, O cluster id), one for etcd, so that a worker's certificate
opens nothing in etcd.  Certificates are backdated by an hour, for clocks that differ.
"""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmd.proto.errors import Invalid

ROOT_VALIDITY = timedelta(days=20 * 365)
BACKDATE = timedelta(hours=1)
DEFAULT_NODE_VALIDITY = timedelta(days=90)
MINIMUM_NODE_VALIDITY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is certified: names and addresses are what clients may verify the holder by."""

    common_name: str
    unit: str
    organization: str
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authority:
    certificate: bytes  # PEM
    key: bytes  # PEM

    @classmethod
    def create(cls, common_name: str, organization: str, now: datetime | None = None) -> "Authority":
        now = now or datetime.now(UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(Subject(common_name, "", organization))
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + ROOT_VALIDITY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(certificate, private)

    def certify(
        self,
        request: bytes,
        subject: Subject,
        validity: timedelta = DEFAULT_NODE_VALIDITY,
        now: datetime | None = None,
    ) -> bytes:
        """Certify the key of a PEM signing request for client and server use; the request's own subject is ignored."""
        now = now or datetime.now(UTC)
        issuer = x509.load_pem_x509_certificate(self.certificate)
        key = serialization.load_pem_private_key(self.key, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        names = [x509.DNSName(name) for name in subject.names]
        addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in subject.addresses]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(issuer.subject)
            .public_key(_public_key(request))
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(min(now + validity, issuer.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
            .add_extension(_issuer_identifier(issuer), critical=False)
        )
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _public_key(request: bytes) -> ec.EllipticCurvePublicKey:
    try:
        parsed = x509.load_pem_x509_csr(request)
    except ValueError:
        raise Invalid("the certificate signing request is not one: send it as PEM") from None
    key = parsed.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid("the certificate signing request must be for a P-256 key")
    if not parsed.is_signature_valid:
        raise Invalid("the certificate signing request is not signed by the key that it names")
    return key


def _name(subject: Subject) -> x509.Name:
    parts = (
        (NameOID.ORGANIZATION_NAME, subject.organization),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, subject.unit),
        (NameOID.COMMON_NAME, subject.common_name),
    )
    return x509.Name([x509.NameAttribute(part, text) for part, text in parts if text])


def _issuer_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
