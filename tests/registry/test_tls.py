"""Certificates: a private authority, one of our own, and no way down from https."""

from pathlib import Path

import pytest
from aiohttp import web

from swarmd.runtime.errors import Unavailable
from swarmd.runtime.registry import Credentials, Registries, Settings
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


async def test_what_is_no_http_is_explained(certificates: Certificates) -> None:
    async def greet(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        request.transport.close()
        return web.Response()

    runner = web.ServerRunner(web.Server(greet))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host = "{}:{}".format(*runner.addresses[0])
        async with Registries(Settings(patience=QUICK)) as registries:
            with pytest.raises(Unavailable, match=f"registry {host}"):
                await registries.repository(named(host, "x")).resolve("v1")
    finally:
        await runner.cleanup()
