"""A node's identity on disk: what both the node daemon and its manager read, and the daemon renews.

    identity.pb        ca.proto Identity: who this node is, and the certificates as issued
    node.key           the key they certify; etcd.key: that of its etcd member
    root.crt node.crt etcd-root.crt etcd.crt      the same certificates, for programs that want files

**Invariant:** identity.pb is written last and makes the rest valid; keys never change while it lives.
"""

import os
from pathlib import Path

from swarmd.proto.ca_pb2 import Identity, JoinRequest, RenewRequest
from swarmd.proto.tls import Credentials, new_key, signing_request


class IdentityFiles:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root_certificate = directory / "root.crt"
        self.certificate = directory / "node.crt"
        self.key = directory / "node.key"
        self.etcd_root_certificate = directory / "etcd-root.crt"
        self.etcd_certificate = directory / "etcd.crt"
        self.etcd_key = directory / "etcd.key"
        self._identity = directory / "identity.pb"

    def load(self) -> Identity | None:
        try:
            return Identity.FromString(self._identity.read_bytes())
        except FileNotFoundError:
            return None

    def save(self, identity: Identity) -> None:
        write_atomically(self.root_certificate, identity.root_certificate)
        write_atomically(self.certificate, identity.certificate)
        if identity.etcd_certificate:
            write_atomically(self.etcd_root_certificate, identity.etcd_root_certificate)
            write_atomically(self.etcd_certificate, identity.etcd_certificate)
        write_atomically(self._identity, identity.SerializeToString())
        if not identity.etcd_certificate:  # a manager before: what opened the store must not lie around
            self.etcd_certificate.unlink(missing_ok=True)

    def credentials(self) -> Credentials:
        return Credentials(self.certificate.read_bytes(), self.key.read_bytes(), self.root_certificate.read_bytes())

    def sign_requests(self, request: JoinRequest | RenewRequest) -> None:
        """Put this node's signing requests into the request; makes the keys the first time."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (self.key, self.etcd_key):
            if not path.exists():
                write_atomically(path, new_key())
        request.csr = signing_request(self.key.read_bytes())
        request.etcd_csr = signing_request(self.etcd_key.read_bytes())


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file, readable by its owner only; after a crash it is the old one or the new one."""
    draft = path.with_name(f".{path.name}.tmp")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
