"""The token flow, against a docker-registry that believes our token server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from swarmd.runtime.errors import Denied, Unauthorized, Unavailable
from swarmd.runtime.registry import Credentials, Registries, Settings
from tests.registry.conftest import QUICK, Certificates
from tests.registry.distribution import PASSWORD, USER, registry
from tests.registry.faults import Fault, Proxy
from tests.registry.images import collected, described, named, noise, opener, push_image
from tests.registry.tokens import IDENTITY, SERVICE, TokenServer

ME = Credentials(username=USER, password=PASSWORD)
PUSH = ("pull", "push")


@pytest.fixture
async def tokens(certificates: Certificates) -> AsyncIterator[TokenServer]:
    async with TokenServer(certificates.server) as made:
        yield made


@pytest.fixture
async def host(tokens: TokenServer, tmp_path: Path) -> AsyncIterator[str]:
    with registry(tmp_path / "registry", auth=tokens.settings()) as address:
        yield address


async def test_one_token_serves_all_requests_of_a_repository(
    host: str, tokens: TokenServer, registries: Registries
) -> None:
    repository = registries.repository(named(host, "team/app"), ME, PUSH)
    data, _ = await push_image(repository, "v1", noise(2_000_000))
    assert (await repository.manifest("v1"))[0] == data
    assert tokens.scopes == [("repository:team/app:pull,push",)]
    assert tokens.asked[0]["service"] == SERVICE
    assert tokens.asked[0]["account"] == USER


async def test_requests_at_once_share_one_fetch(host: str, tokens: TokenServer, registries: Registries) -> None:
    repository = registries.repository(named(host, "team/app"), ME, PUSH)
    data, _ = await push_image(repository, "v1")
    tokens.asked.clear()
    again = registries.repository(named(host, "team/app"), ME)
    answers = await asyncio.gather(*(again.manifest("v1") for _ in range(8)))
    assert {answer[0] for answer in answers} == {data}
    assert len(tokens.asked) == 1


async def test_rights_are_explained(host: str, tokens: TokenServer, registries: Registries) -> None:
    await push_image(registries.repository(named(host, "open/app"), ME, PUSH), "v1")
    await registries.repository(named(host, "open/app")).resolve("v1")
    with pytest.raises(Unauthorized, match=f"registry {host} wants a login for {host}/team/app"):
        await registries.repository(named(host, "team/app")).resolve("v1")
    with pytest.raises(Unauthorized, match="wants a login"):
        await push_image(registries.repository(named(host, "open/app"), actions=PUSH), "v2", b"another")
    wrong = Credentials(username=USER, password="wrong")
    with pytest.raises(Unauthorized, match=f"registry {host} refused user {USER}: the username or password is wrong"):
        await registries.repository(named(host, "team/app"), wrong).resolve("v1")


async def test_a_token_without_the_right_is_denied(host: str, registries: Registries) -> None:
    repository = registries.repository(named(host, "team/app"), ME, ("pull",))
    with pytest.raises(Denied, match=f"user {USER} may not push to {host}/team/app at registry {host}"):
        await repository.push_blob(described(b"x"), opener(b"x"))


async def test_an_identity_token_is_exchanged(host: str, tokens: TokenServer, registries: Registries) -> None:
    given = await registries.check_login(Credentials(username=USER, password=PASSWORD, server=host))
    assert given == IDENTITY
    me = Credentials(identity_token=given)
    await push_image(registries.repository(named(host, "team/app"), me, PUSH), "v1")
    assert tokens.asked[-1]["grant_type"] == "refresh_token"
    with pytest.raises(Unauthorized, match="refused user <token>"):
        await registries.repository(named(host, "team/app"), Credentials(identity_token="no")).resolve("v1")
    with pytest.raises(Unauthorized, match=f"refused user {USER}"):
        await registries.check_login(Credentials(username=USER, password="wrong", server=host))


async def test_an_expired_token_is_renewed_once(host: str, tokens: TokenServer, registries: Registries) -> None:
    async with Proxy(host) as proxy:
        repository = registries.repository(named(proxy.host, "team/app"), ME, PUSH)
        data, _ = await push_image(repository, "v1")
        assert len(tokens.asked) == 1
        wanted = {"WWW-Authenticate": f'Bearer realm="{tokens.realm}",service="{SERVICE}",error="invalid_token"'}
        proxy.faults.append(Fault("GET", "manifests", status=401, headers=wanted))
        assert (await repository.manifest("v1"))[0] == data
        assert len(tokens.asked) == 2
        proxy.faults.append(Fault("GET", "manifests", times=99, status=401, headers=wanted))
        with pytest.raises(Denied, match=f"user {USER} may not pull"):
            await repository.manifest("v1")
        assert len(tokens.asked) == 3


async def test_a_token_that_was_never_good_is_not_kept(host: str, tokens: TokenServer, registries: Registries) -> None:
    tokens.stale = 1
    repository = registries.repository(named(host, "team/app"), ME, PUSH)
    with pytest.raises(Denied):
        await push_image(repository, "v1")
    await push_image(repository, "v1")
    assert len(tokens.asked) == 2


async def test_a_token_is_not_used_beyond_its_life(host: str, tokens: TokenServer, registries: Registries) -> None:
    tokens.life = 0
    repository = registries.repository(named(host, "team/app"), ME, PUSH)
    await push_image(repository, "v1")
    asked = len(tokens.asked)
    await repository.resolve("v1")
    assert len(tokens.asked) == asked + 1


async def test_a_token_that_ends_in_the_middle(host: str, tokens: TokenServer, registries: Registries) -> None:
    data = noise(3_000_000, 31)
    async with Proxy(host) as proxy:
        repository = registries.repository(named(proxy.host, "team/app"), ME, PUSH)
        wanted = {"WWW-Authenticate": f'Bearer realm="{tokens.realm}",service="{SERVICE}",error="invalid_token"'}
        for method in ("POST", "PATCH", "PUT"):
            proxy.faults.append(Fault(method, "uploads", status=401, headers=wanted))
        await repository.push_blob(described(data), opener(data))
        proxy.faults.append(Fault("GET", "blobs/sha256", cut_after=1_000_000))
        proxy.faults.append(Fault("GET", "blobs/sha256", status=401, headers=wanted))
        assert await collected(repository.blob(described(data))) == data


async def test_a_mount_asks_for_both_repositories(host: str, tokens: TokenServer, registries: Registries) -> None:
    data = noise(1000, 32)
    await registries.repository(named(host, "team/a"), ME, PUSH).push_blob(described(data), opener(data))
    target = registries.repository(named(host, "team/b"), ME, PUSH)
    assert await target.mount(described(data).digest, "team/a")
    assert tokens.scopes[-1] == ("repository:team/a:pull", "repository:team/b:pull,push")


async def test_a_failing_token_server_is_explained(host: str, tokens: TokenServer, registries: Registries) -> None:
    repository = registries.repository(named(host, "team/app"), ME, PUSH)
    server = tokens.realm.removeprefix("http://").removesuffix("/token")
    tokens.faults = [web.Response(status=503), web.Response(status=429, headers={"Retry-After": "0"})]
    await push_image(repository, "v1")
    for body in (b"no JSON", b'{"token": 7}', b"{}", b'{"token": "a\\r\\nb"}'):
        tokens.faults = [web.Response(body=body)]
        async with Registries(Settings(patience=QUICK)) as fresh:
            with pytest.raises(Exception, match=f"token server {server}"):
                await fresh.repository(named(host, "team/app"), ME).resolve("v1")
    tokens.faults = [web.Response(status=503) for _ in range(QUICK.tries)]
    async with Registries(Settings(patience=QUICK)) as fresh:
        with pytest.raises(Unavailable, match=f"registry {server} failed with status 503 on a token for {host}"):
            await fresh.repository(named(host, "team/app"), ME).resolve("v1")


async def test_no_password_goes_to_a_token_server_without_tls(host: str, tokens: TokenServer) -> None:
    async with Registries(Settings(insecure=(host,), patience=QUICK)) as registries:
        with pytest.raises(Unavailable, match="is without TLS, so no password goes there"):
            await registries.repository(named(host, "team/app"), ME).resolve("v1")
    assert not tokens.asked


async def test_a_registry_token_is_used_as_it_is(host: str, tokens: TokenServer, registries: Registries) -> None:
    await push_image(registries.repository(named(host, "team/app"), ME, PUSH), "v1")
    scope = "repository:team/app:pull"
    token = tokens._signed(USER, [{"type": "repository", "name": "team/app", "actions": ["pull"]}])
    asked = len(tokens.asked)
    await registries.repository(named(host, "team/app"), Credentials(registry_token=token)).resolve("v1")
    assert len(tokens.asked) == asked, scope
    with pytest.raises((Unauthorized, Denied)):
        await registries.repository(named(host, "team/app"), Credentials(registry_token="no")).resolve("v1")
