"""Pull, push, login, search and looks at a registry over the API, against Debian's docker-registry."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import docker
import pytest

from swarmd.runtime.images.making import import_rootfs
from swarmd.runtime.images.manifests import Platform
from swarmd.runtime.registry import Registries, Settings
from tests.agent.api.conftest import Api
from tests.agent.api.test_docker_clients import needs_docker, run
from tests.agent.api.test_images import ROOTFS, SECOND, add, chunks, listed
from tests.registry.distribution import PASSWORD, USER, password_file, registry
from tests.registry.faults import Fault, Proxy
from tests.registry.images import noise
from tests.runtime.images.tars import entry, tar


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("plain")) as host:
        yield host


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("guarded")
    with registry(directory, auth=password_file(directory)) as host:
        yield host


@pytest.fixture
async def proxy(plain: str) -> AsyncIterator[Proxy]:
    async with Proxy(plain) as made:
        yield made


def header(**fields: str) -> dict[str, str]:
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()}


async def said(api: Api, path: str, **headers: str) -> list[dict[str, Any]]:
    async with api.http.post(f"http://d{path}", headers=headers) as response:
        text = await response.text()
        assert response.status == 200, text
        return [json.loads(line) for line in text.splitlines()]


async def emptied(api: Api) -> None:
    for image in list(api.engine.images.list()):
        await api.engine.images.remove(image.id, force=True)
    assert api.engine.images.disk_usage() == 0


async def test_what_is_pushed_is_pulled(api: Api, plain: str) -> None:
    image = await add(api, f"{plain}/round/trip:1", layers=(ROOTFS, SECOND), Cmd=["sh"])
    lines = await said(api, f"/images/{plain}/round/trip/push?tag=1")
    assert lines[0] == {"status": f"The push refers to repository [{plain}/round/trip]"}
    layers = [blob.digest[7:19] for blob in image.variant.blobs]
    assert {line["id"] for line in lines if line.get("status") == "Pushed"} == {*layers}
    assert lines[-2] == {"status": f"1: digest: {image.id} size: {image.target.size}"}
    assert lines[-1]["aux"] == {"Tag": "1", "Digest": image.id, "Size": image.target.size}
    again = await said(api, f"/images/{plain}/round/trip:1/push")
    assert {line["id"] for line in again if line.get("status") == "Layer already exists"} == {*layers}
    await emptied(api)
    lines = await said(api, f"/images/create?fromImage={plain}/round/trip&tag=1")
    assert lines[0] == {"status": "Pulling from round/trip", "progressDetail": {}, "id": "1"}
    for status in ("Pulling fs layer", "Download complete", "Pull complete"):
        assert {line["id"] for line in lines if line["status"] == status} == {*layers}, status
    assert [line["status"] for line in lines[-2:]] == [
        *(f"Digest: {image.id}", f"Status: Downloaded newer image for {plain}/round/trip:1")
    ]
    (row,) = await listed(api)
    assert (row["Id"], row["RepoTags"]) == (image.id, [f"{plain}/round/trip:1"])
    assert row["RepoDigests"] == [f"{plain}/round/trip@{image.id}"]
    lines = await said(api, f"/images/create?fromImage={plain}/round/trip:1")
    assert lines[-1] == {"status": f"Status: Image is up to date for {plain}/round/trip:1"}
    await emptied(api)
    lines = await said(api, f"/images/create?fromImage={plain}/round/trip&tag={image.id}")
    (row,) = await listed(api)
    assert row["RepoTags"] == [] and row["RepoDigests"] == [f"{plain}/round/trip@{image.id}"]
    assert (await api.call("GET", f"/images/{plain}/round/trip@{image.id}/json"))[0] == 200


async def test_all_tags(api: Api, plain: str) -> None:
    one = await add(api, f"{plain}/many:1", f"{plain}/many:also")
    two = await add(api, f"{plain}/many:2", layers=(SECOND,))
    lines = await said(api, f"/images/{plain}/many/push")
    assert [line["aux"]["Tag"] for line in lines if "aux" in line] == ["1", "2", "also"]
    await emptied(api)
    lines = await said(api, f"/images/create?fromImage={plain}/many")
    assert lines[-1] == {"status": f"Status: Downloaded newer image for {plain}/many"}
    assert {row["Id"]: {*row["RepoTags"]} for row in await listed(api)} == {
        one.id: {f"{plain}/many:1", f"{plain}/many:also"},
        two.id: {f"{plain}/many:2"},
    }


async def test_layers_are_mounted_from_another_repository(api: Api, plain: str) -> None:
    image = await add(api, f"{plain}/first:1", layers=(tar(entry("m", noise(5000))),))
    await said(api, f"/images/{plain}/first:1/push")
    await api.call("POST", f"/images/{plain}/first:1/tag?repo={plain}/second&tag=1")
    lines = await said(api, f"/images/{plain}/second:1/push")
    assert {line["id"]: line["status"] for line in lines if "id" in line} == {
        image.variant.blobs[0].digest[7:19]: "Mounted from first"
    }


async def test_an_image_for_several_platforms(api: Api, plain: str) -> None:
    images = api.engine.images
    made = []
    for name in ("amd64", "arm64"):
        content = chunks(tar(entry("arch", name.encode())))
        made.append(await import_rootfs(images, content, platform=Platform(os="linux", architecture=name)))
    described = [
        {
            "mediaType": image.target.media_type, "digest": image.id, "size": image.target.size,
            "platform": {"os": "linux", "architecture": image.architecture},
        }
        for image in made
    ]  # fmt: skip
    media_type = "application/vnd.oci.image.index.v1+json"
    document = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": described}).encode()
    both = await images.name(images.blobs.write(document, media_type), (f"{plain}/both:1",))
    lines = await said(api, f"/images/{plain}/both:1/push")
    assert lines[-1]["aux"]["Digest"] == both.id
    _, seen = await api.call("GET", f"/distribution/{plain}/both:1/json")
    assert isinstance(seen, dict)
    assert seen["Descriptor"] == {"mediaType": media_type, "digest": both.id, "size": len(document)}
    assert [platform["architecture"] for platform in seen["Platforms"]] == ["amd64", "arm64"]
    await emptied(api)
    await said(api, f"/images/create?fromImage={plain}/both:1")
    image = images.get(f"{plain}/both:1")
    assert (image.id, [variant.platform.architecture for variant in image.variants]) == (both.id, ["amd64"])
    # What is missing here is there already: the index can have another tag.
    await api.call("POST", f"/images/{plain}/both:1/tag?repo={plain}/both&tag=2")
    assert (await said(api, f"/images/{plain}/both:2/push"))[-1]["aux"]["Digest"] == both.id
    await api.call("POST", f"/images/{plain}/both:1/tag?repo={plain}/own&tag=1")
    lines = await said(api, f"/images/{plain}/own:1/push")
    assert lines[-1]["aux"]["Digest"] == made[0].id
    assert any("only that for linux/amd64 was pushed" in line.get("status", "") for line in lines)
    lines = await said(api, f"/images/create?fromImage={plain}/both:1&platform=linux/arm64")
    assert lines[-1]["status"].startswith("Status: Downloaded newer image")
    image = images.get(f"{plain}/both:1")
    assert {variant.platform.architecture for variant in image.variants} == {"amd64", "arm64"}
    for path in ("both:1&platform=linux/s390x", "own:1&platform=linux/arm64"):
        async with api.http.post(f"http://d/images/create?fromImage={plain}/{path}") as response:
            lines = [json.loads(line) for line in (await response.text()).splitlines()]
            assert "for linux/" in lines[-1]["error"], lines


async def test_logins(api: Api, guarded: str) -> None:
    good = {"username": USER, "password": PASSWORD, "serveraddress": guarded}
    assert await api.call("POST", "/auth", good) == (200, {"Status": "Login Succeeded", "IdentityToken": ""})
    status, refusal = await api.call("POST", "/auth", good | {"password": "wrong"})
    assert status == 401 and guarded in str(refusal)
    await add(api, f"{guarded}/secret:1")
    async with api.http.post(f"http://d/images/{guarded}/secret:1/push") as response:
        lines = [json.loads(line) for line in (await response.text()).splitlines()]
        assert guarded in lines[-1]["error"]
    await said(api, f"/images/{guarded}/secret:1/push", **header(**good))
    await emptied(api)
    async with api.http.post(f"http://d/images/create?fromImage={guarded}/secret:1") as response:
        assert guarded in (await response.text()) and response.status == 403
    wrong = header(**good | {"password": "wrong"})
    async with api.http.post(f"http://d/images/create?fromImage={guarded}/secret:1", headers=wrong) as response:
        assert "username or password is wrong" in (await response.text())
    assert api.engine.images.disk_usage() == 0
    await said(api, f"/images/create?fromImage={guarded}/secret:1", **header(**good))
    assert len(await listed(api)) == 1
    async with api.http.get(f"http://d/distribution/{guarded}/secret:1/json", headers=header(**good)) as response:
        assert response.status == 200
    async with api.http.get(f"http://d/distribution/{guarded}/secret:1/json") as response:
        assert response.status == 401


async def test_search_finds_by_the_catalogue(api: Api, plain: str) -> None:
    await add(api, f"{plain}/found/me:1")
    await said(api, f"/images/{plain}/found/me:1/push")
    status, rows = await api.call("GET", f"/images/search?term={quote(f'{plain}/found')}")
    assert status == 200 and isinstance(rows, list)
    assert [row["name"] for row in rows] == ["found/me"]
    assert (await api.call("GET", "/images/search"))[0] == 400


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("{host}/nosuch:1", 404, "nosuch:1"),
        ("{host}/No:1", 400, "lower case"),
        ("127.0.0.1:1/demo:1", 503, "image 127.0.0.1:1/demo:1 can't be pulled: registry 127.0.0.1:1 refused"),
        ("demo:1", 503, "image demo:1 can't be pulled"),
    ],
)
async def test_what_cannot_be_pulled_is_said_and_leaves_nothing(
    api: Api, plain: str, path: str, status: int, words: str
) -> None:
    async with api.http.post(f"http://d/images/create?fromImage={path.format(host=plain)}") as response:
        text = await response.text()
    assert words in text and response.status == status
    assert api.engine.images.list() == [] and api.engine.images.disk_usage() == 0


async def test_a_client_that_goes_ends_its_pull(api: Api, plain: str, proxy: Proxy) -> None:
    big = tar(entry("big", noise(3_000_000)))
    image = await add(api, f"{plain}/slow:1", layers=(big,))
    await said(api, f"/images/{plain}/slow:1/push")
    await emptied(api)
    proxy.faults.append(Fault("GET", "/blobs/" + image.variant.blobs[0].digest, stall_after=1_000_000))
    store = api.engine.images
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(api.socket))) as other,
        other.post(f"http://d/images/create?fromImage={proxy.host}/slow:1") as response,
    ):
        while b"Downloading" not in await response.content.readline():
            pass
    deadline = asyncio.get_running_loop().time() + 10
    while left := [*(store.root / "tmp").iterdir(), *store.blobs.digests()]:
        assert asyncio.get_running_loop().time() < deadline, left
        await asyncio.sleep(0.02)
    assert store.list() == [] and store.disk_usage() == 0


async def test_a_name_that_goes_while_it_is_pushed_is_no_failure(api: Api, plain: str, proxy: Proxy) -> None:
    await add(api, f"{proxy.host}/going:1", layers=(tar(entry("f", noise(2_000_000, 7))),))
    async with api.http.post(f"http://d/images/{proxy.host}/going:1/push") as response:
        assert b"The push refers" in await response.content.readline()
        await api.call("DELETE", f"/images/{proxy.host}/going:1")
        lines = [json.loads(line) for line in (await response.text()).splitlines()]
    assert lines[-1]["aux"]["Tag"] == "1", lines[-1]
    assert api.engine.images.list() == []


async def test_two_pulls_at_once_fetch_a_layer_once(api: Api, plain: str, proxy: Proxy) -> None:
    image = await add(api, f"{plain}/twice:1", layers=(tar(entry("big", noise(2_000_000))),))
    await said(api, f"/images/{plain}/twice:1/push")
    await emptied(api)
    answers = await asyncio.gather(*(said(api, f"/images/create?fromImage={proxy.host}/twice:1") for _ in range(3)))
    assert all("Status: " in lines[-1]["status"] for lines in answers)
    assert proxy.count("GET", "/blobs/" + image.variant.blobs[0].digest) == 1
    assert [found.id for found in api.engine.images.list()] == [image.id]


async def test_a_mirror_is_asked_first(api: Api, plain: str, proxy: Proxy) -> None:
    image = await add(api, f"{plain}/mirrored:1")
    await said(api, f"/images/{plain}/mirrored:1/push")
    await emptied(api)
    settings = Settings(mirrors={"origin.invalid": (f"http://{proxy.host}",)})
    async with Registries(settings) as api.engine.registries:
        await said(api, "/images/create?fromImage=origin.invalid/mirrored:1")
        assert api.engine.images.get("origin.invalid/mirrored:1").id == image.id
        assert proxy.count("GET", "/blobs/") > 0
        _, info = await api.call("GET", "/info")
        assert isinstance(info, dict) and "docker.io" in info["RegistryConfig"]["IndexConfigs"]


async def test_a_damaged_layer_is_refused(api: Api, plain: str, proxy: Proxy) -> None:
    image = await add(api, f"{plain}/damaged:1", layers=(tar(entry("big", noise(300_000))),))
    await said(api, f"/images/{plain}/damaged:1/push")
    await emptied(api)
    proxy.faults.append(Fault("GET", "/blobs/" + image.variant.blobs[0].digest, times=20, corrupt_at=100_000))
    lines = await said(api, f"/images/create?fromImage={proxy.host}/damaged:1")
    assert "damaged" in lines[-1]["error"] and lines[-1]["error"] == lines[-1]["errorDetail"]["message"]
    assert api.engine.images.disk_usage() == 0
    proxy.faults[:] = [Fault("GET", "/blobs/" + image.variant.blobs[0].digest, corrupt_at=100)]
    lines = await said(api, f"/images/create?fromImage={proxy.host}/damaged:1")
    assert image.variant.blobs[0].digest in lines[-1]["error"] and "checksum" in lines[-1]["error"], lines[-1]


@needs_docker
async def test_the_docker_command_with_a_registry(api: Api, plain: str, guarded: str, tmp_path: Path) -> None:
    image = await add(api, f"{plain}/cli:1", f"{guarded}/cli:1")
    assert f"1: digest: {image.id}" in await run(api, "push", f"{plain}/cli:1")
    await run(api, "rmi", f"{plain}/cli:1")
    assert "Already exists" in await run(api, "pull", f"{plain}/cli:1")  # its content was here
    config = ("--config", str(tmp_path / "config"))
    assert "Login Succeeded" in await run(
        api, *config, "login", "-u", USER, "--password-stdin", guarded, stdin=PASSWORD.encode()
    )
    await run(api, *config, "push", "-q", f"{guarded}/cli:1")
    await run(api, "rmi", "-f", image.id)
    assert f"{guarded}/cli:1" in await run(api, *config, "pull", "-q", f"{guarded}/cli:1")
    assert "found/me" not in await run(api, "search", f"{plain}/cli")
    made = await run(api, "create", f"{plain}/cli:1", "sh")  # is not here: the client pulls it
    assert "Pull complete" in made or "Already exists" in made
    assert "No such image" in await run(api, "inspect", "--type", "image", "nosuch", code=1)


async def test_docker_py(api: Api, plain: str) -> None:
    image = await add(api, f"{plain}/py:1", Cmd=["sh"])
    client = docker.DockerClient(base_url=f"unix://{api.socket}", version="1.44")

    def used() -> None:
        assert "aux" in client.api.push(f"{plain}/py", tag="1")
        client.images.remove(f"{plain}/py:1")
        with pytest.raises(docker.errors.ImageNotFound):
            client.images.get(f"{plain}/py:1")
        with pytest.raises(docker.errors.NotFound):
            client.images.pull(f"{plain}/nosuch", tag="1")
        found = client.images.pull(f"{plain}/py", tag="1")
        assert found.id == image.id and found.tags == [f"{plain}/py:1"]
        assert found.history()[0]["Id"] == image.id
        assert client.images.get_registry_data(f"{plain}/py:1").id == image.id
        assert found.tag("py2", tag="x")
        archive = b"".join(found.save(named=True))
        client.images.remove(image.id, force=True)
        (loaded,) = client.images.load(archive)
        assert loaded.id == image.id == f"sha256:{hashlib.sha256(api.engine.images.blobs.read(image.id)).hexdigest()}"

    await asyncio.to_thread(used)
    client.close()
