"""Against Docker's definition of the Engine API: every call and field has an answer, and no answer is a defect."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import response_schema_conformance

from swarmd.agent.api.app import application
from swarmd.agent.api.interface import Host, Services
from tests.agent.api import definition
from tests.agent.api.conftest import Api
from tests.agent.api.fakes import FakeEngine, FakeMembership

pytestmark = definition.needed
NOUNS = (
    *("containers", "exec", "info", "version", "_ping", "events", "system", "swarm", "nodes", "services", "tasks"),
    *("images", "distribution"),
)
ENDLESS = ("/events", "/logs", "/attach", "/attach/ws", "/wait", "/stats", "/exec/{id}/start", "/session")
UPLOADS = ("/images/load", "/images/create", "/build")  # of archives, which schemathesis does not make


@pytest.mark.parametrize(("method", "path"), definition.operations(), ids=str)
async def test_every_call_is_answered_by_a_sentence(api: Api, method: str, path: str) -> None:
    if path == "/events":
        pytest.skip("it answers until the client goes")
    place = path.format(id="nosuch", name="nosuch")
    async with asyncio.timeout(10), api.http.request(method, f"http://d/v1.50{place}", json={}) as response:
        assert response.status < 500 or response.status in (501, 503), await response.text()
        if response.status >= 400 and method != "HEAD":
            assert (await response.json())["message"]


def fields(name: str) -> list[tuple[str, Any]]:
    if definition.FILE is None:
        return []
    known = {"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 6}]}
    return [(key, known.get(key) or definition.example(schema)) for key, schema in definition.properties(name).items()]


@pytest.mark.parametrize(("name", "value"), fields("HostConfig"))
def test_no_field_of_a_host_config_is_ignored(with_image: str, name: str, value: Any) -> None:
    used_or_refused(with_image, {"HostConfig": {name: value}}, name, value)


@pytest.mark.parametrize(("name", "value"), fields("ContainerConfig"))
def test_no_field_of_a_container_is_ignored(with_image: str, name: str, value: Any) -> None:
    used_or_refused(with_image, {name: value}, name, value)


def used_or_refused(address: str, asked: dict[str, Any], name: str, value: Any) -> None:
    plain = inspected(address, created(address, {}))
    answer = created(address, asked)
    if answer.status_code >= 400:
        assert answer.status_code < 500, answer.text
        assert len(answer.json()["message"].split()) > 2
        return
    shown = inspected(address, answer)
    if name not in WITHOUT_EFFECT:
        assert comparable(shown) != comparable(plain), f"{name}={value!r} changed nothing that inspect shows"


def comparable(shown: dict[str, Any]) -> dict[str, Any]:
    own = [shown["Id"], shown["Id"][:12], shown["Id"][:8]]
    text = json.dumps(shown)
    for word in own:
        text = text.replace(word, "")
    found: dict[str, Any] = json.loads(text)
    return found


# The client's own business; the default of this test; or shown once the container is on a network.
WITHOUT_EFFECT = frozenset({"Image", "ContainerIDFile", "MacAddress", "AttachStdin", "AttachStdout", "AttachStderr"})


def created(address: str, asked: dict[str, Any]) -> requests.Response:
    return requests.post(f"{address}/containers/create", json={"Image": "demo", "Cmd": ["true"]} | asked, timeout=10)


def inspected(address: str, answer: requests.Response) -> dict[str, Any]:
    shown = requests.get(f"{address}/containers/{answer.json()['Id']}/json", timeout=10)
    assert shown.status_code == 200, shown.text
    found: dict[str, Any] = shown.json()
    return found


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The application on a port of its own, in a thread: schemathesis calls it as any client would."""
    ready, port, loop = threading.Event(), [0], asyncio.new_event_loop()
    engine = FakeEngine(root)
    runner = web.AppRunner(
        application(Services(engine, FakeMembership(), Host("host1", root, "0.1.0"))), shutdown_timeout=0.1
    )

    async def serve() -> None:
        await engine.registries.__aenter__()
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port[0] = runner.addresses[0][1]
        ready.set()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.run_until_complete(engine.registries.__aexit__())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{port[0]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("api")) as found:
        yield found


@pytest.fixture(scope="module")
def with_image(tmp_path_factory: pytest.TempPathFactory, rootfs: bytes) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("api")) as found:
        loaded = requests.post(f"{found}/images/create?fromSrc=-&repo=demo", data=rootfs, timeout=10)
        assert loaded.status_code == 200, loaded.text
        yield found


def called() -> list[tuple[str, str]]:
    return [
        (method, path)
        for method, path in definition.operations()
        if path.split("/")[1] in NOUNS and not path.endswith((*ENDLESS, *UPLOADS))
    ]


@pytest.fixture(scope="module")
def schema() -> Any:
    return schemathesis.openapi.from_dict(definition.with_nulls())


@pytest.mark.parametrize(("method", "path"), called(), ids=str)
def test_no_request_is_a_defect(address: str, schema: Any, method: str, path: str) -> None:
    operation = schema[path][method]

    @settings(max_examples=6, deadline=5000, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        response = case.call(base_url=address, timeout=5)
        assert response.status_code < 500 or response.status_code in (501, 503), response.text
        if response.status_code < 300:
            case.validate_response(response, checks=[response_schema_conformance])

    check()


FOUND = (
    *("/images/json", "/images/{name}/json", "/images/{name}/history", "/system/df", "/info"),
    *("/containers/json", "/containers/{id}/json", "/containers/{id}/changes"),
)


@pytest.mark.parametrize("path", FOUND)
def test_what_is_there_is_shown_as_the_definition_says(with_image: str, schema: Any, path: str) -> None:
    asked = {"ExposedPorts": {"80/tcp": {}}, "Healthcheck": {"Test": ["CMD", "true"]}, "Labels": {"a": "b"}}
    host = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "Memory": 64 << 20}
    id = created(with_image, asked | {"HostConfig": host}).json()["Id"]
    values = {"id": id, "name": "demo"}
    named = {name: value for name, value in values.items() if f"{{{name}}}" in path}
    case = schema[path]["GET"].Case(path_parameters=named, query={"all": "true"} if path.endswith("rs/json") else {})
    response = case.call(base_url=with_image, timeout=5)
    assert response.status_code == 200, response.text
    case.validate_response(response, checks=[response_schema_conformance])
