"""Searches, at a server that answers as Docker Hub does."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from swarmd.runtime.errors import Invalid, Unauthorized, Unsupported
from swarmd.runtime.registry import Credentials, Registries, Settings
from tests.registry.conftest import QUICK

RESULTS = [
    {"name": "me/demo", "description": None, "star_count": 3, "is_official": False, "is_automated": True},
    {"name": "demo", "description": "official", "star_count": 90, "is_official": True, "is_automated": False},
    {"name": "old/demo", "star_count": 7, "unknown": []},
]


class Hub:
    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.status = 200
        self.catalogue = True
        self.host = ""


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    made = Hub()

    async def search(request: web.Request) -> web.Response:
        made.asked.append(dict(request.query))
        return web.json_response({"num_results": 3, "results": RESULTS}, status=made.status)

    async def catalogue(request: web.Request) -> web.Response:
        if not made.catalogue:
            return web.Response(status=404)
        if request.headers.get("Authorization") is None:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return web.json_response({"repositories": ["a/demo", "b"]})

    app = web.Application()
    app.router.add_get("/v1/search", search)
    app.router.add_get("/v2/_catalog", catalogue)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.host = "{}:{}".format(*runner.addresses[0])
    yield made
    await runner.cleanup()


@pytest.fixture
async def searching(hub: Hub) -> AsyncIterator[Registries]:
    async with Registries(Settings(patience=QUICK, index=hub.host)) as made:
        yield made


async def test_the_most_starred_come_first(hub: Hub, searching: Registries) -> None:
    found = await searching.search("demo")
    assert [(one.name, one.stars, one.official, one.automated) for one in found] == [
        ("demo", 90, True, False),
        ("old/demo", 7, False, False),
        ("me/demo", 3, False, True),
    ]
    assert hub.asked == [{"q": "demo", "n": "25"}]
    await searching.search("docker.io/library/a&b", 3)
    assert hub.asked[1] == {"q": "a&b", "n": "3"}


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"is-official": ["true"]}, ["demo"]),
        ({"is-official": ["false"]}, ["old/demo", "me/demo"]),
        ({"is-automated": ["1"]}, ["me/demo"]),
        ({"stars": ["7"]}, ["demo", "old/demo"]),
        ({"stars": ["7"], "is-official": ["0"]}, ["old/demo"]),
    ],
)
async def test_filters(searching: Registries, filters: dict[str, list[str]], names: list[str]) -> None:
    assert [one.name for one in await searching.search("demo", filters=filters)] == names


@pytest.mark.parametrize(
    ("term", "limit", "filters"),
    [
        ("", 0, {}),
        ("x" * 300, 0, {}),
        ("host:99999/x", 0, {}),
        ("a", 101, {}),
        ("a", -1, {}),
        ("a", 0, {"size": ["1"]}),
        ("a", 0, {"stars": ["many"]}),
        ("a", 0, {"is-official": ["maybe"]}),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    hub: Hub, searching: Registries, term: str, limit: int, filters: dict[str, list[str]]
) -> None:
    with pytest.raises(Invalid, match="search"):
        await searching.search(term, limit, filters)
    assert not hub.asked


async def test_a_registry_without_search_is_searched_by_its_catalogue(hub: Hub, searching: Registries) -> None:
    hub.status = 404
    me = Credentials(username="me", password="secret")
    assert [one.name for one in await searching.search(f"{hub.host}/demo", credentials=me)] == ["a/demo"]
    async with Registries(Settings(patience=QUICK)) as fresh:
        with pytest.raises(Unauthorized, match=f"registry {hub.host} wants a login"):
            await fresh.search(f"{hub.host}/demo")


async def test_a_registry_with_neither_says_so(hub: Hub, searching: Registries) -> None:
    hub.status, hub.catalogue = 404, False
    with pytest.raises(Unsupported, match=f"registry {hub.host} can't be searched: it has neither"):
        await searching.search(f"{hub.host}/demo")
