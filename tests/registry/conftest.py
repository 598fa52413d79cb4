"""Registries for a whole run: one plain, one with TLS and a password."""

import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarmd.runtime.registry import Patience, Registries, Settings
from tests.registry.authorities import Authority
from tests.registry.distribution import password_file, registry
from tests.registry.faults import Proxy

QUICK = Patience(connect=2.0, silence=0.5, tries=4, first_wait=0.01, longest_wait=0.02, longest_retry_after=2.0)


@dataclass(frozen=True)
class Certificates:
    authority: Authority
    server: tuple[Path, Path]
    client: tuple[Path, Path]

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.server)
        return context

    def trusted_by(self, directory: Path, host: str, with_client: bool = False) -> Path:
        """Fill a certs.d for a host."""
        own = directory / host
        own.mkdir(parents=True)
        (own / "ca.crt").write_bytes(self.authority.path.read_bytes())
        if with_client:
            for path in self.client:
                (own / path.name).write_bytes(path.read_bytes())
        return directory


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority(directory)
    return Certificates(authority, authority.issue(directory, "server"), authority.issue(directory, "client"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("plain")) as host:
        yield host


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[str]:
    """With TLS, and for USER alone."""
    directory = tmp_path_factory.mktemp("guarded")
    with registry(directory, certificates.server, password_file(directory)) as host:
        yield host


@pytest.fixture
async def registries() -> AsyncIterator[Registries]:
    async with Registries(Settings(patience=QUICK)) as made:
        yield made


@pytest.fixture
async def proxy(plain: str) -> AsyncIterator[Proxy]:
    async with Proxy(plain) as made:
        yield made
