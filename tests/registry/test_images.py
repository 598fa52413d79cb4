"""Pull and push against Debian's docker-registry."""

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from swarmd.runtime.errors import Denied, Invalid, NotFound, Unauthorized, Unavailable
from swarmd.runtime.images.manifests import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Manifest, parse
from swarmd.runtime.registry import Credentials, Registries, Settings
from tests.registry.conftest import QUICK, Certificates
from tests.registry.distribution import PASSWORD, USER
from tests.registry.images import collected, described, named, noise, opener, push_image

PUSH = ("pull", "push")


@pytest.mark.parametrize("size", [0, 1, 300_000, 3_000_000])
async def test_a_blob_comes_back_as_it_was_sent(plain: str, registries: Registries, size: int) -> None:
    repository = registries.repository(named(plain, "round/trip"), actions=PUSH)
    data = noise(size, size)
    blob = described(data)
    assert not await repository.has_blob(blob)
    progress: list[int] = []
    await repository.push_blob(blob, opener(data), progress.append)
    assert await repository.has_blob(blob)
    assert progress == sorted(progress)
    assert progress[-1] == size
    assert await collected(repository.blob(blob)) == data
    assert await collected(repository.blob(blob, offset=size // 2)) == data[size // 2 :]


async def test_a_tag_resolves_to_the_manifest_that_it_names(plain: str, registries: Registries) -> None:
    repository = registries.repository(named(plain, "tagged"), actions=PUSH)
    data, descriptor = await push_image(repository, "v1")
    assert await repository.resolve("v1") == descriptor
    assert await repository.resolve(descriptor.digest) == descriptor
    assert await repository.manifest("v1") == (data, OCI_MANIFEST, descriptor.digest)
    assert await repository.manifest(descriptor.digest) == (data, OCI_MANIFEST, descriptor.digest)


async def test_an_index_is_an_image_too(plain: str, registries: Registries) -> None:
    repository = registries.repository(named(plain, "index"), actions=PUSH)
    _, one = await push_image(repository, "one")
    entry = {"mediaType": one.media_type, "digest": one.digest, "size": one.size}
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    digest = await repository.put_manifest("all", data, OCI_INDEX)
    assert await repository.manifest("all") == (data, OCI_INDEX, digest)


async def test_tags_are_listed_and_manifests_deleted(plain: str, registries: Registries) -> None:
    repository = registries.repository(named(plain, "listed"), actions=("pull", "push", "delete"))
    _, descriptor = await push_image(repository, "b")
    await push_image(repository, "a", b"another")
    assert sorted(await repository.tags()) == ["a", "b"]
    await repository.delete_manifest(descriptor.digest)
    with pytest.raises(NotFound, match=f"registry {plain} has no image {plain}/listed:b"):
        await repository.resolve("b")


async def test_a_layer_is_mounted_from_another_repository(plain: str, registries: Registries) -> None:
    data = noise(1000, 77)
    source = registries.repository(named(plain, "mount/source"), actions=PUSH)
    await source.push_blob(described(data), opener(data))
    target = registries.repository(named(plain, "mount/target"), actions=PUSH)
    assert await target.mount(described(data).digest, "mount/source")
    assert await collected(target.blob(described(data))) == data
    assert not await target.mount(described(b"no such").digest, "mount/source")


async def test_what_is_missing_is_named(plain: str, registries: Registries) -> None:
    repository = registries.repository(named(plain, "nowhere"))
    with pytest.raises(NotFound, match=f"registry {plain} has no image {plain}/nowhere:v9: check its name"):
        await repository.manifest("v9")
    with pytest.raises(NotFound, match="has no repository"):
        await repository.tags()
    with pytest.raises(NotFound, match="has no layer sha256:"):
        await collected(repository.blob(described(b"missing")))


async def test_a_guarded_registry_over_tls(guarded: str, certificates: Certificates, tmp_path: Path) -> None:
    settings = Settings(insecure=(), certificates=(certificates.trusted_by(tmp_path, guarded),), patience=QUICK)
    async with Registries(settings) as registries:
        me = Credentials(username=USER, password=PASSWORD)
        repository = registries.repository(named(guarded, "private"), me, PUSH)
        data, _ = await push_image(repository, "v1", noise(2_000_000))
        assert (await repository.manifest("v1"))[0] == data
        assert await registries.check_login(Credentials(username=USER, password=PASSWORD, server=guarded)) == ""

        with pytest.raises(Unauthorized, match=f"registry {guarded} wants a login for {guarded}/private"):
            await registries.repository(named(guarded, "private")).resolve("v1")
        wrong = Credentials(username=USER, password="wrong", server=guarded)
        with pytest.raises(Unauthorized, match=f"registry {guarded} refused user {USER}"):
            await registries.check_login(wrong)
        with pytest.raises((Unauthorized, Denied), match=USER):
            await registries.repository(named(guarded, "private"), wrong).resolve("v1")


async def test_an_unknown_authority_is_explained(guarded: str, tmp_path: Path) -> None:
    async with Registries(Settings(insecure=(), certificates=(tmp_path,), patience=QUICK)) as registries:
        with pytest.raises(Unavailable, match=f"not trusted .*: put its authority in {tmp_path}/{guarded}/ca.crt"):
            await registries.repository(named(guarded, "private")).resolve("v1")


async def test_an_insecure_registry_needs_no_authority(guarded: str) -> None:
    async with Registries(Settings(patience=QUICK)) as registries:
        me = Credentials(username=USER, password=PASSWORD, server=guarded)
        assert await registries.check_login(me) == ""


async def test_http_where_https_is_expected_is_explained(plain: str) -> None:
    async with Registries(Settings(insecure=(), patience=QUICK)) as registries:
        with pytest.raises(Unavailable, match=f"registry {plain} answers without TLS, where https is expected"):
            await registries.repository(named(plain, "any")).resolve("v1")


async def test_hosts_that_are_not_there_are_explained(registries: Registries) -> None:
    with pytest.raises(Unavailable, match=r"registry 127\.0\.0\.1:1 refused the connection"):
        await registries.repository(named("127.0.0.1:1", "any")).resolve("v1")
    with pytest.raises(Unavailable, match=r"registry no-such-host\.invalid can't be found"):
        await registries.repository(named("no-such-host.invalid", "any")).resolve("v1")


async def test_search_falls_back_to_the_catalogue(plain: str, registries: Registries) -> None:
    await push_image(registries.repository(named(plain, "team/searched-for"), actions=PUSH), "v1")
    assert [found.name for found in await registries.search(f"{plain}/searched")] == ["team/searched-for"]
    with pytest.raises(Invalid, match="limit 101"):
        await registries.search("any", 101)


async def test_others_read_what_was_pushed_and_the_other_way_round(
    plain: str, registries: Registries, tmp_path: Path
) -> None:
    repository = registries.repository(named(plain, "exchanged"), actions=PUSH)
    data, _ = await push_image(repository, "ours", noise(100_000))
    assert await skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{plain}/exchanged:ours") == data
    copied = "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format=v2s2"
    await skopeo(*copied, f"docker://{plain}/exchanged:ours", f"docker://{plain}/exchanged:theirs")
    theirs, media_type, _ = await repository.manifest("theirs")
    assert media_type == DOCKER_MANIFEST
    for layer in parse(theirs, Manifest, "it").layers:
        assert len(await collected(repository.blob(layer))) == layer.size


async def skopeo(*words: str) -> bytes:
    process = await asyncio.create_subprocess_exec("skopeo", *words, stdout=PIPE, stderr=PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, err.decode()
    return out
