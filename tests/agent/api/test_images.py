"""Images over the API: listings and their filters, what is shown, names, removal, archives, imports; disk usage."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientError

from swarmd.runtime.errors import NotFound
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.loading import load
from swarmd.runtime.images.making import import_rootfs
from swarmd.runtime.images.manifests import Platform
from swarmd.runtime.model import ContainerConfig
from tests.agent.api.conftest import Api
from tests.runtime.images.tars import directory, docker_save, entry, tar

ROOTFS = tar(directory("bin"), entry("bin/sh", b"shell" * 100, mode=0o755))
SECOND = tar(entry("etc/motd", b"hello"))


async def chunks(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


async def add(api: Api, *refs: str, layers: tuple[bytes, ...] = (ROOTFS,), **config: Any) -> Image:
    (image,) = await load(api.engine.images, chunks(docker_save(list(refs), *layers, **config)))
    return image


async def listed(api: Api, *, params: str = "", **filters: list[str]) -> list[dict[str, Any]]:
    status, rows = await api.call("GET", f"/images/json?filters={quote(json.dumps(filters))}&{params}")
    assert status == 200 and isinstance(rows, list), rows
    return rows


async def told(api: Api, method: str, path: str, data: bytes | None = None) -> list[dict[str, Any]]:
    """The lines of a stream that begins well."""
    async with api.http.request(method, f"http://d{path}", data=data) as response:
        text = await response.text()
        assert response.status == 200, text
        return [json.loads(line) for line in text.splitlines()]


async def test_filters_of_the_listing(api: Api) -> None:
    old = await add(api, "old:1", "team/old:2", Labels={"a": "1", "b": "2"})
    new = await add(api, "reg.example:5000/new:1", layers=(SECOND,), Labels={"a": "2"})
    nameless = await add(api, layers=(ROOTFS, SECOND))

    async def ids(**filters: list[str]) -> set[str]:
        return {row["Id"] for row in await listed(api, **filters)}

    assert await ids() == {old.id, new.id, nameless.id}
    assert await ids(dangling=["true"]) == {nameless.id}
    assert await ids(dangling=["false"]) == {old.id, new.id}
    assert await ids(label=["a"]) == {old.id, new.id}
    assert await ids(label=["a", "b=2"]) == {old.id}
    assert await ids(until=["1970-01-01T00:00:00Z"]) == set()
    for pattern, wanted in (
        ("old", {old.id}),
        ("old:1", {old.id}),
        ("o*", {old.id}),
        ("*", {old.id}),
        ("*/old", {old.id}),
        ("*/new", {new.id}),
        ("reg.example:5000/*:?", {new.id}),
        ("[^o]ld", set()),
        ("[a-o]l\\d:[12]", {old.id}),
    ):
        assert await ids(reference=[pattern]) == wanted, pattern
    (row,) = await listed(api, reference=["*/old"])
    assert row["RepoTags"] == ["team/old:2"] and row["RepoDigests"] == [f"team/old@{old.id}"]
    for name, value in (("reference", "[a"), ("dangling", "perhaps"), ("until", "soon"), ("nosuch", "x")):
        status, said = await api.call("GET", f"/images/json?filters={quote(json.dumps({name: [value]}))}")
        assert status == 400 and name in str(said)


async def test_before_and_since_compare_with_another_image(api: Api) -> None:
    made = [await import_rootfs(api.engine.images, chunks(tar(entry(name, b""))), (name,)) for name in ("one", "two")]
    documents = [image.variant.document.created or "" for image in made]
    assert documents == sorted(documents)
    before = {row["Id"] for row in await listed(api, before=["two"])}
    since = {row["Id"] for row in await listed(api, since=["one"])}
    seconds = [row["Created"] for row in await listed(api)]
    assert before == ({made[0].id} if len({*seconds}) == 2 else set())
    assert since == ({made[1].id} if len({*seconds}) == 2 else set())
    status, _ = await api.call("GET", f"/images/json?filters={quote(json.dumps({'since': ['nosuch']}))}")
    assert status == 404


async def test_an_inspected_image(api: Api) -> None:
    image = await add(api, "demo:1", "demo:2", "other", layers=(ROOTFS, SECOND), Cmd=["sh"], Env=["A=1"])
    status, shown = await api.call("GET", "/images/demo:1/json")
    assert status == 200 and isinstance(shown, dict)
    assert shown["RepoTags"] == ["demo:1", "demo:2", "other:latest"]
    assert shown["RepoDigests"] == [f"demo@{image.id}", f"other@{image.id}"]
    assert shown["Config"]["Cmd"] == ["sh"] and shown["Config"]["Env"] == ["A=1"]
    assert shown["Descriptor"]["digest"] == image.id == shown["Id"]
    assert (Path(shown["GraphDriver"]["Data"]["UpperDir"]) / "etc/motd").read_bytes() == b"hello"
    assert shown["GraphDriver"]["Data"]["LowerDir"] == str(image.layers[0])
    assert len(shown["RootFS"]["Layers"]) == 2 and shown["Size"] == on_disk(api)
    for ref in (image.id, image.id[7:19], f"demo@{image.id}"):
        assert (await api.call("GET", f"/images/{ref}/json"))[0] == 200, ref
    _, shown = await api.call("GET", "/images/demo:1/json?manifests=1")
    assert isinstance(shown, dict)
    (manifest,) = shown["Manifests"]
    assert manifest["Available"] and manifest["Size"]["Total"] == shown["Size"]
    assert manifest["ImageData"]["Platform"] == {"os": "linux", "architecture": "amd64"}
    own, foreign = ({"os": "linux", "architecture": name} for name in ("amd64", "s390x"))
    assert (await api.call("GET", f"/images/demo:1/json?platform={quote(json.dumps(own))}"))[0] == 200
    status, said = await api.call("GET", f"/images/demo:1/json?platform={quote(json.dumps(foreign))}")
    assert status == 404 and "linux/s390x" in str(said)
    assert (await api.call("GET", f"/images/demo:1/json?manifests=1&platform={quote(json.dumps(own))}"))[0] == 400
    status, said = await api.call("GET", "/images/nosuch:7/json")
    assert status == 404 and "No such image: nosuch:7" in str(said)


async def test_a_history_has_the_sizes_of_its_layers(api: Api) -> None:
    image = await import_rootfs(api.engine.images, chunks(ROOTFS), ("demo",), message="first")
    status, rows = await api.call("GET", "/images/demo/history")
    assert status == 200 and isinstance(rows, list)
    (row,) = rows
    assert (row["Id"], row["Comment"], row["Size"], row["Tags"]) == (image.id, "first", 500, ["demo:latest"])
    await add(api, "two", layers=(ROOTFS, SECOND))
    _, rows = await api.call("GET", "/images/two/history")
    assert isinstance(rows, list)
    assert [row["Size"] for row in rows] == [5, 500] and rows[1]["Id"] == "<missing>"


def on_disk(api: Api) -> int:
    """Bytes of the blobs and of the files of layers, counted by looking."""
    root = api.engine.images.root
    blobs = sum(path.stat().st_size for path in (root / "blobs").rglob("*") if path.is_file())
    return blobs + sum(path.lstat().st_size for path in (root / "layers").glob("*/tree/**/*") if path.is_file())


async def test_disk_usage_is_what_is_on_the_disk(api: Api) -> None:
    await add(api, "one", layers=(ROOTFS, SECOND))
    await add(api, "two", layers=(ROOTFS,))
    await add(api, "three", layers=(tar(entry("x", b"x" * 7)),))
    await api.engine.create(ContainerConfig(image="one", command=("sh",)), "web")
    status, shown = await api.call("GET", "/system/df")
    assert status == 200 and isinstance(shown, dict)
    rows = {row["RepoTags"][0]: row for row in shown["Images"]}
    assert shown["LayersSize"] == on_disk(api)
    unique = sum(row["Size"] - row["SharedSize"] for row in rows.values())
    shared = len(ROOTFS) + 500
    assert rows["one:latest"]["SharedSize"] == rows["two:latest"]["SharedSize"] == shared
    assert rows["three:latest"]["SharedSize"] == 0
    assert unique + shared == on_disk(api)
    assert {name: row["Containers"] for name, row in rows.items()} == {
        **{"one:latest": 1, "two:latest": 0, "three:latest": 0}
    }
    (row,) = await listed(api, params="shared-size=1", reference=["one"])
    assert row["SharedSize"] == shared


async def test_what_prune_says_to_have_freed_is_gone_from_the_disk(api: Api) -> None:
    await add(api, "kept", layers=(ROOTFS,))
    await add(api, layers=(ROOTFS, SECOND))
    before = on_disk(api)
    status, said = await api.call("POST", "/images/prune")
    assert status == 200 and isinstance(said, dict)
    assert len(said["ImagesDeleted"]) == 1
    assert said["SpaceReclaimed"] == before - on_disk(api) > 0
    status, said = await api.call("POST", f"/images/prune?filters={quote(json.dumps({'dangling': ['false']}))}")
    assert isinstance(said, dict) and {"Untagged": "kept:latest"} in said["ImagesDeleted"]
    assert api.engine.images.list() == [] and api.engine.images.disk_usage() == 0


async def test_names_are_given_and_taken(api: Api) -> None:
    image = await add(api, "demo:1")
    assert (await api.call("POST", "/images/demo:1/tag?repo=reg.example/a/b&tag=2"))[0] == 201
    assert (await api.call("POST", "/images/demo:1/tag?repo=demo:1&tag=3"))[0] == 201
    assert (await listed(api))[0]["RepoTags"] == ["demo:1", "reg.example/a/b:2", "demo:3"]
    for bad in ("Demo", "demo&tag=a/b", "sha256:1", f"demo@{image.id}", "a" * 64, ""):
        assert (await api.call("POST", f"/images/demo:1/tag?repo={bad}"))[0] == 400, bad
    for bad in ("Demo", "sha256:1", f"demo@{image.id}"):
        assert (await api.call("POST", f"/build?t={bad}"))[0] == 400, bad
    status, said = await api.call("DELETE", f"/images/{image.id[7:19]}")
    assert status == 409 and "force" in str(said)
    assert await api.call("DELETE", "/images/reg.example/a/b:2") == (200, [{"Untagged": "reg.example/a/b:2"}])
    status, said = await api.call("DELETE", f"/images/{image.id[7:19]}")  # names of one repository go together
    assert (status, said) == (200, [{"Untagged": "demo:1"}, {"Untagged": "demo:3"}, {"Deleted": image.id}])
    assert (await api.call("DELETE", "/images/demo:1"))[0] == 404


async def test_with_the_last_tag_of_a_repository_its_digests_go(api: Api) -> None:
    image = await add(api, "demo:1")
    await api.engine.images.name(image.target, (f"demo@{image.id}",))
    (row,) = await listed(api)
    assert row["RepoTags"] == ["demo:1"] and row["RepoDigests"] == [f"demo@{image.id}"]
    status, said = await api.call("DELETE", "/images/demo:1")
    assert status == 200
    assert said == [{"Untagged": "demo:1"}, {"Untagged": f"demo@{image.id}"}, {"Deleted": image.id}]


async def test_a_name_with_a_digest_is_saved_and_removed(api: Api) -> None:
    image = await add(api, "other:1")
    await api.engine.images.name(image.target, (f"demo@{image.id}",))
    async with api.http.get(f"http://d/images/demo:7@{image.id}/get") as response:
        archive = await response.read()
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        found = {name: json.loads(members.extractfile(name).read()) for name in ("manifest.json", "index.json")}  # type: ignore[union-attr]
    assert [saved["RepoTags"] for saved in found["manifest.json"]] == [[]]  # Docker refuses digests there
    (listed_,) = found["index.json"]["manifests"]
    assert listed_["annotations"] == {"io.containerd.image.name": f"docker.io/library/demo@{image.id}"}
    assert await api.call("DELETE", f"/images/demo:7@{image.id}") == (200, [{"Untagged": f"demo@{image.id}"}])
    await api.call("DELETE", "/images/other:1")
    await told(api, "POST", "/images/load", archive)
    assert [found.refs for found in api.engine.images.list()] == [(f"docker.io/library/demo@{image.id}",)]


async def test_an_image_in_use_keeps_its_content(api: Api) -> None:
    image = await add(api, "demo:1", "demo:2", Cmd=["sh"])
    await api.engine.create(ContainerConfig(image="demo:1"), "web")
    assert await api.call("DELETE", "/images/demo:2") == (200, [{"Untagged": "demo:2"}])
    for ref in ("demo:1", image.id):
        status, said = await api.call("DELETE", f"/images/{ref}")
        assert status == 409 and "container web" in str(said)
    await api.engine.start(api.engine.inspect("web").id)
    assert (await api.call("DELETE", f"/images/{image.id}?force=1"))[0] == 409
    assert await api.call("DELETE", "/images/demo:1?force=1") == (200, [{"Untagged": "demo:1"}])
    assert api.engine.images.get(image.id).layers[0].exists()
    assert (await api.call("DELETE", f"/images/{image.id}?force=1"))[0] == 409
    await api.engine.remove(api.engine.inspect("web").id, force=True)
    assert await api.call("DELETE", f"/images/{image.id}") == (200, [{"Deleted": image.id}])


async def test_save_and_load(api: Api) -> None:
    one = await add(api, "demo:1", "demo:2")
    two = await add(api, "other:1", layers=(ROOTFS, SECOND))
    async with api.http.get(f"http://d/images/get?names=demo&names=other:1&names={one.id}") as response:
        archive = await response.read()
        assert response.status == 200 and response.content_type == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        saved = json.loads(members.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert [entry["RepoTags"] for entry in saved] == [["demo:1", "demo:2"], ["other:1"]]
    for image in (one, two):
        await api.call("DELETE", f"/images/{image.id}?force=1")
    lines = await told(api, "POST", "/images/load", gzip.compress(archive))
    assert [line["stream"] for line in lines if "stream" in line] == [
        f"Loaded image: {name}\n" for name in ("demo:1", "demo:2", "other:1")
    ]
    assert {image.id for image in api.engine.images.list()} == {one.id, two.id}
    async with api.http.get(f"http://d/images/{one.id}/get") as response:
        nameless = await response.read()
    await api.call("DELETE", f"/images/{one.id}?force=1")
    assert await told(api, "POST", "/images/load?quiet=1", nameless) == [{"stream": f"Loaded image ID: {one.id}\n"}]
    async with api.http.post("http://d/images/load?platform=linux/s390x", data=nameless) as response:
        assert response.status == 400 and "linux/s390x" in await response.text()
    assert (await api.call("GET", "/images/nosuch/get"))[0] == 404
    assert (await api.call("GET", "/images/get"))[0] == 400
    for bad in (b"nonsense", nameless[: len(nameless) // 2]):
        async with api.http.post("http://d/images/load", data=bad) as response:
            assert response.status == 400, await response.text()
    assert len(api.engine.images.list()) == 2


async def test_a_load_tells_of_the_names_in_the_archive_only(api: Api) -> None:
    image = await add(api, "demo:1")
    async with api.http.get("http://d/images/demo:1/get") as response:
        archive = await response.read()
    await api.engine.images.name(image.target, ("other:1",))
    lines = await told(api, "POST", "/images/load", archive)
    assert [line["stream"] for line in lines if "stream" in line] == ["Loaded image: demo:1\n"]
    assert api.engine.images.get("other:1").id == image.id


async def refused(api: Api, path: str, data: bytes | None = None) -> str:
    """What is said of what fails at once or later."""
    async with api.http.post(f"http://d{path}", data=data) as response:
        last = json.loads((await response.text()).splitlines()[-1])
        return str(last["message"] if response.status >= 400 else last["error"])


async def test_damaged_archives_are_named(api: Api) -> None:
    cut = gzip.compress(ROOTFS)[:-20]
    assert "image archive" in (said := await refused(api, "/images/load", cut)) and "cut off" in said
    assert "root file system" in (said := await refused(api, "/images/create?fromSrc=-", cut)) and "cut off" in said
    assert api.engine.images.disk_usage() == 0


async def test_an_import_from_where_nothing_is(api: Api) -> None:
    assert (await refused(api, "/images/create?fromSrc=http://127.0.0.1:1/x.tar")).endswith("connection refused")
    assert "no address" in await refused(api, "/images/create?fromSrc=http://nosuch.invalid/x.tar")
    for source in ("ftp://127.0.0.1/x.tar", "-&fromImage=demo"):
        async with api.http.post(f"http://d/images/create?fromSrc={source}") as response:
            assert response.status == 400, source


async def test_what_has_gone_from_the_disk_is_not_saved(api: Api) -> None:
    image = await add(api, "demo:1")
    api.engine.images.blobs.path(image.variant.configuration.digest).unlink()
    async with api.http.get("http://d/images/demo:1/get") as response:
        with pytest.raises(ClientError):  # the manifest went ahead of it
            await response.read()


async def test_a_damaged_image_hides_no_container_and_is_pruned(api: Api) -> None:
    image = await add(api, "demo:1", Cmd=["sh"])
    await api.engine.create(ContainerConfig(image="demo:1"), "web")
    api.engine.images.blobs.path(image.variant.configuration.digest).unlink()
    with pytest.raises(NotFound):
        await api.engine.images.name(image.target, ("demo:2",))
    status, rows = await api.call("GET", f"/containers/json?all=1&filters={quote(json.dumps({'expose': ['80']}))}")
    assert (status, rows) == (200, [])
    status, rows = await api.call("GET", "/containers/json?all=1")
    assert status == 200 and isinstance(rows, list)
    assert [(row["Image"], row["ImageID"]) for row in rows] == [("demo:1", image.id)]
    status, shown = await api.call("GET", "/containers/web/json")
    assert status == 200 and isinstance(shown, dict) and shown["Image"] == image.id
    assert (await api.call("GET", "/system/df"))[0] == 200
    every = quote(json.dumps({"dangling": ["false"]}))
    _, pruned = await api.call("POST", f"/images/prune?filters={every}")
    assert isinstance(pruned, dict) and pruned["ImagesDeleted"] is None
    await api.engine.remove(api.engine.inspect("web").id)
    _, pruned = await api.call("POST", f"/images/prune?filters={every}")
    assert isinstance(pruned, dict) and {"Deleted": image.id} in pruned["ImagesDeleted"]
    assert api.engine.images.disk_usage() == 0


async def test_a_platform_that_another_image_needs_stays(api: Api) -> None:
    images = api.engine.images
    image = await add(api, "alone:1")
    listed_ = {"mediaType": image.target.media_type, "digest": image.id, "size": image.target.size}
    media_type = "application/vnd.oci.image.index.v1+json"
    document = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": [listed_, listed_]}).encode()
    with images.lease():
        await images.name(images.blobs.write(document, media_type), ("list:1",))
    status, said = await api.call("DELETE", f"/images/list:1?platforms={image.variant.platform}")
    assert status == 409 and "alone:1" in str(said)
    assert images.blobs.has(image.id)


async def test_an_import_with_platform_message_and_changes(api: Api) -> None:
    asked = "&".join(
        f"changes={quote(change)}"
        for change in (
            *("CMD echo $HOME", 'ENTRYPOINT ["/bin/sh"]', "ENV A=1 B='$A x'", "ENV C=$A-2", "EXPOSE 80 53/udp 90-91"),
            *("HEALTHCHECK --interval=5s --retries=2 CMD true", "LABEL a.b=c", "ONBUILD RUN x", "STOPSIGNAL SIGQUIT"),
            *("USER app", 'VOLUME ["/data"]', "WORKDIR /a", "WORKDIR b"),
        )
    )
    path = f"/images/create?fromSrc=-&repo=demo&tag=1&message=why&platform=linux/arm64/v8&{asked}"
    lines = await told(api, "POST", path, gzip.compress(ROOTFS))
    image = api.engine.images.get("demo:1")
    assert lines == [{"status": image.id}]
    assert image.variant.platform == Platform(os="linux", architecture="arm64", variant="v8")
    _, shown = await api.call("GET", "/images/demo:1/json")
    assert isinstance(shown, dict)
    assert shown["Comment"] == "why" and shown["Variant"] == "v8"
    assert shown["Config"] == {
        "Cmd": ["/bin/sh", "-c", "echo $HOME"],
        "Entrypoint": ["/bin/sh"],
        "Env": ["A=1", "B=$A x", "C=1-2"],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}},
        "Healthcheck": shown["Config"]["Healthcheck"],
        "Labels": {"a.b": "c"},
        "OnBuild": ["RUN x"],
        "StopSignal": "SIGQUIT",
        "User": "app",
        "Volumes": {"/data": {}},
        "WorkingDir": "/a/b",
    }
    assert shown["Config"]["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert shown["Config"]["Healthcheck"]["Interval"] == 5_000_000_000


@pytest.mark.parametrize(
    "change",
    [
        *("RUN x", "CMD", 'CMD ["a", 1]', "CMD ['a']", "ENV A", "ENV =1", "ENV A=1 B", "EXPOSE x", "EXPOSE 0"),
        *("EXPOSE 99999", "HEALTHCHECK x", "HEALTHCHECK --interval=x CMD y", "HEALTHCHECK --nope=1 CMD y"),
        *("ONBUILD FROM x", "STOPSIGNAL SIGNOPE", 'LABEL a="b', 'SHELL ["x"]'),
    ],
)
async def test_a_change_that_is_wrong_is_refused_and_nothing_is_kept(api: Api, change: str) -> None:
    async with api.http.post(f"http://d/images/create?fromSrc=-&changes={quote(change)}", data=ROOTFS) as response:
        assert response.status == 400
        assert "change " in (await response.json())["message"]
    assert api.engine.images.list() == [] and api.engine.images.disk_usage() == 0


async def test_removing_one_platform_of_an_image(api: Api) -> None:
    images = api.engine.images
    made = []
    for architecture in ("amd64", "arm64"):
        content = tar(entry("arch", architecture.encode()))
        made.append(
            await import_rootfs(images, chunks(content), platform=Platform(os="linux", architecture=architecture))
        )
    listed_ = [
        {
            "mediaType": image.target.media_type, "digest": image.id, "size": image.target.size,
            "platform": {"os": "linux", "architecture": image.architecture},
        }
        for image in made
    ]  # fmt: skip
    media_type = "application/vnd.oci.image.index.v1+json"
    with images.lease():
        document = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": listed_}).encode()
        both = await images.name(images.blobs.write(document, media_type), ("both",))
    for image in made:
        await images.remove(image.id)
    assert both.id == f"sha256:{hashlib.sha256(document).hexdigest()}"
    assert on_disk(api) == (await listed(api))[0]["Size"]
    arm = json.dumps({"os": "linux", "architecture": "arm64"})
    _, shown = await api.call("GET", f"/images/both/json?platform={quote(arm)}")
    assert isinstance(shown, dict) and shown["Architecture"] == "arm64"
    status, created = await api.call("POST", "/containers/create?platform=linux/arm64", {"Image": "both", "Cmd": ["x"]})
    assert status == 201 and isinstance(created, dict)
    _, container = await api.call("GET", f"/containers/{created['Id']}/json")
    assert isinstance(container, dict) and container["Image"] == both.id
    assert images.get(api.engine.inspect(created["Id"]).image_id).architecture == "arm64"
    assert (await api.call("POST", "/containers/create?platform=linux/s390x", {"Image": "both", "Cmd": ["x"]}))[
        0
    ] == 404
    _, shown = await api.call("GET", "/images/both/json?manifests=1")
    assert isinstance(shown, dict)
    assert [one["ImageData"]["Containers"] for one in shown["Manifests"]] == [[], [created["Id"]]]
    assert (await api.call("DELETE", f"/images/both?platforms={quote(arm)}"))[0] == 409
    await api.engine.remove(created["Id"], force=True)
    assert await api.call("DELETE", f"/images/both?platforms={quote(arm)}") == (200, [{"Deleted": made[1].id}])
    _, shown = await api.call("GET", "/images/both/json?manifests=1")
    assert isinstance(shown, dict)
    assert [manifest["Available"] for manifest in shown["Manifests"]] == [True, False]
    assert on_disk(api) == shown["Size"] == images.disk_usage()
    assert (await api.call("DELETE", f"/images/both?platforms={quote(arm)}"))[0] == 404
    own = json.dumps({"os": "linux", "architecture": "amd64"})
    _, said = await api.call("DELETE", f"/images/both?platforms={quote(own)}")
    assert isinstance(said, list) and {"Deleted": both.id} in said and images.disk_usage() == 0
