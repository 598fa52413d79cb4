from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from swarmd.manager.ca.authority import Authority, Subject
from swarmd.proto import tls
from swarmd.proto.errors import Invalid

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = Subject("n1", "swarmd-worker", "c1", ("n1", "swarmd-worker"), ("10.0.0.1",))


def certified(validity: timedelta = timedelta(days=90)) -> tuple[x509.Certificate, x509.Certificate]:
    authority = Authority.create("root", "c1", NOW)
    leaf = authority.certify(tls.signing_request(tls.new_key()), SUBJECT, validity, NOW)
    return x509.load_pem_x509_certificate(leaf), x509.load_pem_x509_certificate(authority.certificate)


def test_a_certificate_is_signed_backdated_and_for_its_subject_only() -> None:
    leaf, root = certified()
    leaf.verify_directly_issued_by(root)
    assert leaf.not_valid_before_utc == NOW - timedelta(hours=1)
    assert leaf.not_valid_after_utc == NOW + timedelta(days=90)
    (name,) = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "n1"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1", "swarmd-worker"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_nothing_outlives_the_root() -> None:
    leaf, root = certified(timedelta(days=365 * 30))
    assert leaf.not_valid_after_utc == root.not_valid_after_utc


@pytest.mark.parametrize(
    "request_", [b"", b"-----BEGIN CERTIFICATE REQUEST-----\nx\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_a_broken_request_is_refused(request_: bytes) -> None:
    with pytest.raises(Invalid, match="signing request"):
        Authority.create("root", "c1").certify(request_, SUBJECT)


def test_only_p256_keys_are_certified() -> None:
    from cryptography.hazmat.primitives import hashes, serialization

    key = ec.generate_private_key(ec.SECP384R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    with pytest.raises(Invalid, match="P-256"):
        Authority.create("root", "c1").certify(request.public_bytes(serialization.Encoding.PEM), SUBJECT)
