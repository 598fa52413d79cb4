"""Certificates: a private authority, one of our own, and no way down from https."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from swarmd.runtime.errors import RuntimeFault, Unavailable
from swarmd.runtime.registry import Credentials, Patience, Registries, Settings
from tests.registry.conftest import QUICK, Certificates
from tests.registry.distribution import registry
from tests.registry.faults import Fault, Proxy
from tests.registry.images import collected, described, named, noise, opener, push_image

PUSH = ("pull", "push")


async def test_a_registry_that_wants_a_certificate_gets_it(certificates: Certificates, tmp_path: Path) -> None:
    with registry(tmp_path / "r", certificates.server, client_authority=certificates.authority.path) as host:
        without = certificates.trusted_by(tmp_path / "without", host)
        async with Registries(Settings(insecure=(), certificates=(without,), patience=QUICK)) as registries:
            with pytest.raises(Unavailable, match=f"it may want a certificate .*{without}/{host}/client.cert"):
                await registries.repository(named(host, "app"), actions=PUSH).resolve("v1")
        tops = (tmp_path / "none", certificates.trusted_by(tmp_path / "with", host, with_client=True))
        async with Registries(Settings(insecure=(), certificates=tops, patience=QUICK)) as registries:
            await push_image(registries.repository(named(host, "app"), actions=PUSH), "v1")


async def test_an_authority_that_is_added_later_is_trusted(
    certificates: Certificates, plain: str, tmp_path: Path
) -> None:
    settings = Settings(insecure=(), certificates=(tmp_path,), patience=QUICK)
    async with Proxy(plain, certificates.context()) as proxy, Registries(settings) as registries:
        repository = registries.repository(named(proxy.host, "later"), actions=PUSH)
        with pytest.raises(Unavailable, match="is not trusted"):
            await repository.resolve("v1")
        certificates.trusted_by(tmp_path, proxy.host)
        await push_image(repository, "v1")


async def test_locations_without_tls_are_asked_with_it(certificates: Certificates, plain: str, tmp_path: Path) -> None:
    """The registry knows nothing of the proxy that does TLS for it: its locations begin with http."""
    async with Proxy(plain, certificates.context()) as proxy:
        settings = Settings(insecure=(), certificates=(certificates.trusted_by(tmp_path, proxy.host),), patience=QUICK)
        async with Registries(settings) as registries:
            data = noise(3_000_000, 41)
            repository = registries.repository(named(proxy.host, "behind"), actions=PUSH)
            await repository.push_blob(described(data), opener(data))
            assert await collected(repository.blob(described(data))) == data


async def test_an_insecure_registry_may_change_over_to_tls(certificates: Certificates, plain: str) -> None:
    async with Registries(Settings(patience=QUICK)) as registries:
        async with Proxy(plain) as before:
            repository = registries.repository(named(before.host, "changed"), actions=PUSH)
            await push_image(repository, "v1")
            port = int(before.host.rpartition(":")[2])
        async with Proxy(plain, certificates.context(), port):
            await repository.resolve("v1")


@pytest.mark.parametrize("orderly", [True, False])
async def test_a_cut_over_tls_is_a_cut(certificates: Certificates, plain: str, orderly: bool) -> None:
    data = noise(3_000_000, 42)
    async with Proxy(plain, certificates.context()) as proxy, Registries(Settings(patience=QUICK)) as registries:
        repository = registries.repository(named(proxy.host, "cut"), actions=PUSH)
        proxy.faults.append(Fault("PATCH", "uploads", cut_request_after=1_000_000, orderly=orderly))
        await repository.push_blob(described(data), opener(data))
        proxy.faults.append(Fault("GET", "blobs/sha256", times=2, cut_after=1_000_000, orderly=orderly))
        assert await collected(repository.blob(described(data))) == data


async def test_a_redirect_from_https_to_http_is_refused(certificates: Certificates, plain: str, tmp_path: Path) -> None:
    async with Proxy(plain, certificates.context()) as proxy, Proxy(plain) as elsewhere:
        settings = Settings(insecure=(), certificates=(certificates.trusted_by(tmp_path, proxy.host),), patience=QUICK)
        async with Registries(settings) as registries:
            down = {"Location": f"http://{elsewhere.host}/v2/x"}
            proxy.faults.append(Fault("GET", "blobs", status=307, headers=down))
            with pytest.raises(Unavailable, match=f"from https to {elsewhere.host} without TLS, which is refused"):
                await collected(registries.repository(named(proxy.host, "x")).blob(described(b"x")))
            assert not elsewhere.seen


async def test_no_password_goes_without_tls_to_a_registry_that_should_have_it(plain: str) -> None:
    async with Proxy(plain) as proxy, Registries(Settings(insecure=(), patience=QUICK)) as registries:
        me = Credentials(username="me", password="secret", server=proxy.host)
        with pytest.raises(Unavailable, match="answers without TLS, where https is expected"):
            await registries.check_login(me)
        assert not proxy.seen


OK = b"HTTP/1.1 200 OK\r\n"
DIGEST = b"Docker-Content-Digest: " + described(b"x").digest.encode() + b"\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"\0" * 5000,
        b"HTTP/1.1 200 OK",
        b"HTTP/9.9 abc\r\n\r\n",
        b"HTTP/1.1 99 low\r\n\r\n",
        OK + b"A: " + b"x" * 100_000 + b"\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Content-Type: \xff\xfe\r\n" + DIGEST + b"Content-Length: 99999999999999999999\r\n\r\n",
        OK + b"Content-Type: a/b\r\nDocker-Content-Digest: ../../etc\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 307 X\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 X\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 X\r\nLocation: http://a b/\xff\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm="http://["\r\nContent-Length: 0\r\n\r\n',
        b'HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm="/relative"\r\nContent-Length: 0\r\n\r\n',
        b"HTTP/1.1 429 X\r\nRetry-After: 1e9\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_what_is_no_registry_is_explained(answer: bytes) -> None:
    """Whatever answers, one sentence names it; nothing else is raised."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read(65536)
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    patience = Patience(connect=2.0, silence=0.2, tries=2, first_wait=0.01, longest_retry_after=0.0)
    async with server, Registries(Settings(patience=patience)) as registries:
        repository = registries.repository(named(host, "x"), actions=PUSH)
        for asked in (
            repository.resolve("v1"),
            repository.manifest("v1"),
            collected(repository.blob(described(b"x" * 100))),
            repository.push_blob(described(b"x"), opener(b"x")),
            repository.tags(),
        ):
            with pytest.raises(RuntimeFault, match=host):
                await asked
        with suppress(RuntimeFault):  # one that serves everybody is no failure
            await registries.check_login(Credentials(username="me", password="secret", server=host))
