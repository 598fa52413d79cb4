"""The cluster's images over the API: pins, who holds what, prefetching, and the registry's endpoint below /v2/."""

import base64
import hashlib
import json

import pytest

from swarmd.proto import objects_pb2 as pb
from swarmd.runtime.images.image import Image
from tests.agent.api.conftest import Api
from tests.agent.api.test_images import add

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"


@pytest.fixture(autouse=True)
async def _manager(api: Api) -> None:
    await api.call("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377"})
    for number in (1, 2):
        node = pb.Node(id=f"n{number}", status=pb.NodeStatus(state=pb.NODE_STATE_READY))
        node.description.hostname = f"host{number}"
        api.membership.cluster.objects["node", node.id] = pb.Object(node=node)


def hold(api: Api, node: str, digest: str, *names: str, updated: int = 1, coming: bool = False) -> None:
    images = [pb.HeldImage(digest=digest, names=names, updated=updated, coming=coming, size=5, target_size=3)]
    api.membership.cluster.objects["holdings", node] = pb.Object(holdings=pb.Holdings(id=node, images=images))


async def create(api: Api, image: str, query: str = "?resolve=true") -> tuple[str, list[str]]:
    """The service's image as stored, and the warnings but for the one that the manager always gives."""
    spec = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": image}}}
    status, made = await api.call("POST", f"/services/create{query}", spec)
    assert status == 201 and isinstance(made, dict), made
    service = api.membership.cluster.objects["service", made["ID"]].service
    return service.spec.task.container.image, [said for said in made["Warnings"] if said != "beware"]


async def test_a_service_is_pinned_to_what_any_node_holds(api: Api) -> None:
    hold(api, "n2", DIGEST, "docker.io/library/web:1")
    assert await create(api, "web:1") == (f"web:1@{DIGEST}", [])


async def test_a_service_is_pinned_to_what_this_node_has_just_got(api: Api) -> None:
    image = await add(api, "web:1")
    assert await create(api, "web:1") == (f"web:1@{image.id}", [])


async def test_the_newest_wins_and_that_nodes_differ_is_said(api: Api) -> None:
    hold(api, "n1", DIGEST, "docker.io/library/web:1", updated=2)
    hold(api, "n2", OTHER, "docker.io/library/web:1", updated=1)
    image, warnings = await create(api, "web:1")
    assert image == f"web:1@{DIGEST}"
    assert warnings == [f"nodes hold different images as web:1: the newest is taken, {DIGEST} of host1"]


async def test_what_is_still_coming_is_not_what_a_name_stands_for(api: Api) -> None:
    hold(api, "n1", DIGEST, "localhost:1/web:1", coming=True)
    image, (warning,) = await create(api, "localhost:1/web:1")
    assert image == "localhost:1/web:1"
    assert "image localhost:1/web:1 is on no node of the cluster, and registry localhost:1" in warning


@pytest.mark.parametrize("image", [f"web:1@{OTHER}", "web:1"])
async def test_a_digest_that_is_given_and_a_name_that_is_to_stay_are_left_alone(api: Api, image: str) -> None:
    hold(api, "n1", DIGEST, "docker.io/library/web:1")
    assert await create(api, image, "?resolve=true" if "@" in image else "") == (image, [])


def login(user: str) -> dict[str, str]:
    text = json.dumps({"username": user, "password": "p", "serveraddress": "localhost:1"})
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text.encode()).decode()}


async def test_nodes_get_the_login_of_an_image_s_registry_and_nobody_is_shown_it(api: Api) -> None:
    async def write(place: str, image: str, headers: dict[str, str] | None = None) -> str:
        spec = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": image}}}
        async with api.http.post(f"http://d/services/{place}", json=spec, headers=headers) as response:
            assert response.status in (200, 201), await response.text()
        return next(
            obj.service.spec.task.container.registry_auth
            for (kind, _), obj in api.membership.cluster.objects.items()
            if kind == "service"
        )

    async def update(query: str, image: str, headers: dict[str, str] | None = None) -> str:
        _, shown = await api.call("GET", "/services/web")
        assert isinstance(shown, dict)
        assert not any("auth" in name.lower() for name in shown["Spec"]["TaskTemplate"]["ContainerSpec"])
        return await write(f"web/update?version={shown['Version']['Index']}{query}", image, headers)

    mine, yours = login("me"), login("you")
    assert await write("create", "localhost:1/web:1", mine) == mine["X-Registry-Auth"]
    assert await update("", "localhost:1/web:2") == mine["X-Registry-Auth"], "kept"
    assert await update("&resolve=1", "localhost:1/web:3", yours) == mine["X-Registry-Auth"], "to find the digest"
    assert await update("&resolve=1&withRegistryAuth=1", "localhost:1/web:3", yours) == yours["X-Registry-Auth"]
    assert await update("&registryAuthFrom=previous-spec", "localhost:1/web:3") == mine["X-Registry-Auth"]
    assert await update("", "elsewhere:1/web:1") == "", "it is for another registry"
    status, said = await api.call("POST", "/services/web/update?version=1&registryAuthFrom=x", {"Name": "web"})
    assert (status, said) == (
        400,
        {"message": "query parameter registryAuthFrom must be spec or previous-spec, not 'x'"},
    )


async def test_docker_s_client_is_told_the_digest_that_the_cluster_has(api: Api) -> None:
    hold(api, "n1", DIGEST, "docker.io/library/web:1")
    status, told = await api.call("GET", "/distribution/web:1/json")
    assert status == 200 and isinstance(told, dict)
    assert told["Descriptor"]["digest"] == DIGEST


async def test_each_image_is_listed_once_with_its_nodes(api: Api) -> None:
    hold(api, "n1", DIGEST, "docker.io/library/web:1")
    hold(api, "n2", DIGEST, "docker.io/library/web:2", coming=True)
    hold(api, "gone", OTHER, "docker.io/library/old:1")
    status, rows = await api.call("GET", "/swarmd/images")
    assert status == 200 and isinstance(rows, list)
    (row,) = rows
    assert row["Names"] == ["docker.io/library/web:1", "docker.io/library/web:2"]
    assert [(node["Hostname"], node["Coming"]) for node in row["Nodes"]] == [("host1", False), ("host2", True)]


@pytest.mark.parametrize(
    ("query", "nodes"),
    [("", ["n1", "n2"]), ("?nodes=all", ["n1", "n2"]), ("?nodes=host2", ["n2"]), ("?copies=1", ["n2"])],
)
async def test_nodes_are_told_to_fetch_an_image_by_its_digest(api: Api, query: str, nodes: list[str]) -> None:
    hold(api, "n2", DIGEST, "docker.io/library/web:1")
    async with api.http.post(f"http://d/swarmd/images/web:1/fetch{query}") as response:
        said = await response.text()
    assert response.status == 200, said
    own = {id for kind, id in api.membership.cluster.objects if kind == "node"} - {"n1", "n2"}
    fetched = sorted(entry for entry in api.membership.fetched if entry[0] not in own)
    assert fetched == [(node, f"docker.io/library/web@{DIGEST}", "docker.io/library/web:1") for node in nodes]


async def test_a_copy_that_is_here_counts_before_managers_have_heard_of_it(api: Api) -> None:
    image = await add(api, "web:1")
    async with api.http.post("http://d/swarmd/images/web:1/fetch?copies=1") as response:
        assert response.status == 200, await response.text()
    assert api.membership.fetched == [
        (api.membership.info().node_id, f"docker.io/library/web@{image.id}", "docker.io/library/web:1")
    ]


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("?nodes=host9", 404, "node host9 not found"),
        ("?copies=9", 400, "9 copies need as many nodes"),
    ],
)
async def test_nodes_that_are_not_there_are_refused(api: Api, query: str, status: int, said: str) -> None:
    hold(api, "n2", DIGEST, "docker.io/library/web:1")
    answered, body = await api.call("POST", f"/swarmd/images/web:1/fetch{query}")
    assert answered == status and isinstance(body, dict)
    assert said in body["message"]


# ---------------------------------------------------------------- /v2/


async def get(api: Api, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    async with api.http.request(method, f"http://d{path}") as response:
        return response.status, dict(response.headers), await response.read()


async def test_an_image_is_read_as_from_a_registry(api: Api) -> None:
    image: Image = await add(api, "web:1")
    assert (await get(api, "/v2/"))[0] == 200
    status, headers, manifest = await get(api, "/v2/library/web/manifests/1")
    assert (status, headers["Docker-Content-Digest"]) == (200, image.id)
    assert headers["Content-Type"] == image.target.media_type
    assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == image.id
    assert (await get(api, f"/v2/web/manifests/{image.id}"))[2] == manifest
    head = await get(api, "/v2/web/manifests/1", "HEAD")
    assert (head[0], head[1]["Content-Length"], head[2]) == (200, str(len(manifest)), b"")
    for digest in (image.variant.configuration.digest, image.variant.blobs[0].digest):
        status, headers, content = await get(api, f"/v2/web/blobs/{digest}")
        assert (status, int(headers["Content-Length"])) == (200, len(content))
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
        assert (await get(api, f"/v2/web/blobs/{digest}", "HEAD"))[1]["Content-Length"] == str(len(content))
    status, rows = await api.call("GET", "/v2/library/web/tags/list")
    assert (status, rows) == (200, {"name": "library/web", "tags": ["1"]})


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/web/manifests/2", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/web/manifests/{OTHER}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/web/blobs/{OTHER}", 404, "BLOB_UNKNOWN"),
        ("/v2/web/blobs/sha256:..%2f..%2fetc", 400, "NAME_INVALID"),
        ("/v2/other/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/Web/tags/list", 400, "NAME_INVALID"),
    ],
)
async def test_what_is_not_there_is_told_in_the_specification_s_form(
    api: Api, path: str, status: int, code: str
) -> None:
    await add(api, "web:1")
    answered, body = await api.call("GET", path)
    assert answered == status and isinstance(body, dict), body
    assert body["errors"][0]["code"] == code


async def test_a_layer_is_no_manifest(api: Api) -> None:
    image = await add(api, "web:1")
    layer = image.variant.blobs[0].digest
    answered, body = await api.call("GET", f"/v2/web/manifests/{layer}")
    assert answered == 404, body
