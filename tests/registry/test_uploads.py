"""Pushes that are cut off, lost or refused half-way."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from swarmd.runtime.errors import Corrupt, Invalid, RuntimeFault, Unavailable
from swarmd.runtime.images.manifests import OCI_LAYER, OCI_MANIFEST
from swarmd.runtime.registry import Credentials, Registries, Repository
from tests.registry.conftest import QUICK
from tests.registry.faults import Fault, Proxy
from tests.registry.images import collected, described, named, noise, opener
from tests.registry.keeper import Keeper

SIZE = 3_000_000
PUSH = ("pull", "push")


@pytest.fixture
def repository(proxy: Proxy, registries: Registries) -> Repository:
    return registries.repository(named(proxy.host, "uploads"), actions=PUSH)


async def arrived(repository: Repository, data: bytes) -> bool:
    return await collected(repository.blob(described(data))) == data


async def test_an_upload_goes_on_where_it_was_cut(registries: Registries) -> None:
    data, offsets = noise(SIZE, 11), list[int]()
    open_at = opener(data)
    async with Keeper() as keeper:
        repository = registries.repository(named(keeper.host, "uploads"), actions=PUSH)
        keeper.cuts = [1_000_000, 500_000]
        await repository.push_blob(described(data), lambda at: (offsets.append(at), open_at(at))[1])
        assert keeper.blobs == {described(data).digest: data}
        assert offsets == [0, 1_000_000, 1_500_000]
        assert keeper.ranges == ["", f"1000000-{SIZE - 1}", f"1500000-{SIZE - 1}"]
        assert len(keeper.uploads) == 1


async def test_a_registry_that_loses_what_was_cut_is_sent_chunks(registries: Registries) -> None:
    data = noise(40 << 20, 22)
    async with Keeper(keeps_parts=False) as keeper:
        repository = registries.repository(named(keeper.host, "uploads"), actions=PUSH)
        keeper.cuts = [20 << 20, 17 << 20, 1 << 20]
        await repository.push_blob(described(data), opener(data, 1 << 20))
        assert keeper.blobs == {described(data).digest: data}
        assert sorted(keeper.lengths)[-2:] == [16 << 20, 40 << 20]


async def test_an_upload_that_was_cut_arrives_at_a_registry_that_cannot_resume(
    proxy: Proxy, repository: Repository
) -> None:
    data = noise(SIZE, 23)
    proxy.faults.append(Fault("PATCH", "uploads", times=2, cut_request_after=1_000_000))
    await repository.push_blob(described(data), opener(data))
    assert await arrived(repository, data)


async def test_an_upload_that_the_registry_forgot_begins_anew(proxy: Proxy, repository: Repository) -> None:
    data = noise(SIZE, 12)
    proxy.faults.append(Fault("PATCH", "uploads", cut_request_after=1_000_000))
    proxy.faults.append(Fault("GET", "uploads", status=404))
    await repository.push_blob(described(data), opener(data))
    assert await arrived(repository, data)
    assert proxy.count("POST", "uploads") == 2


async def test_a_registry_that_keeps_nothing_is_sent_chunks(proxy: Proxy, repository: Repository) -> None:
    data = noise(20 << 20, 13)
    proxy.faults.append(Fault("PATCH", "uploads", status=413))
    progress: list[int] = []
    await repository.push_blob(described(data), opener(data), progress.append)
    assert await arrived(repository, data)
    assert proxy.count("PATCH", "uploads") == 3
    assert progress[-1] == len(data)


async def test_an_answer_that_was_lost_is_no_failure(proxy: Proxy, repository: Repository) -> None:
    for method, seed in (("PUT", 14), ("PATCH", 15), ("POST", 16)):
        data = noise(SIZE, seed)
        proxy.faults.append(Fault(method, "uploads", lose_answer=True))
        await repository.push_blob(described(data), opener(data))
        assert await arrived(repository, data)


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_passing_refusal_is_waited_for(proxy: Proxy, repository: Repository, method: str, status: int) -> None:
    data = noise(SIZE, status + len(method))
    proxy.faults.append(Fault(method, "uploads", status=status, headers={"Retry-After": "0"}))
    await repository.push_blob(described(data), opener(data))
    assert await arrived(repository, data)


async def test_a_lasting_refusal_ends_it(proxy: Proxy, repository: Repository) -> None:
    data = noise(SIZE, 17)
    proxy.faults.append(Fault("PATCH", "uploads", times=99, status=503))
    with pytest.raises(
        Unavailable, match=f"registry {proxy.host} failed with status 503 on layer {described(data).digest}"
    ):
        await repository.push_blob(described(data), opener(data))
    assert proxy.count("PATCH", "uploads") == QUICK.tries


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_what_the_client_has_tried_often_enough_is_not_begun_anew(
    proxy: Proxy, repository: Repository, method: str
) -> None:
    proxy.faults.append(Fault(method, "uploads", times=999, status=429))
    with pytest.raises(Unavailable, match="limits the rate"):
        await repository.push_blob(described(noise(SIZE, 21)), opener(noise(SIZE, 21)))
    assert proxy.count(method, "uploads") == QUICK.tries


async def test_a_layer_that_is_too_large_for_the_registry_is_refused_at_once(
    proxy: Proxy, repository: Repository
) -> None:
    proxy.faults.append(Fault("PATCH", "uploads", times=99, status=413))
    with pytest.raises(Invalid, match="is larger than registry"):
        await repository.push_blob(described(noise(SIZE, 22)), opener(noise(SIZE, 22)))
    assert proxy.count("PATCH", "uploads") == 1


async def test_what_is_no_registry_is_called_so(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("POST", "uploads", times=99, status=200, body=b"<html>"))
    with pytest.raises(Invalid, match="with status 200, as no registry does"):
        await repository.push_blob(described(noise(SIZE, 23)), opener(noise(SIZE, 23)))


async def test_a_damaged_layer_is_refused_by_the_registry(proxy: Proxy, repository: Repository) -> None:
    data = noise(SIZE, 18)
    with pytest.raises(Corrupt, match="got other bytes than layer"):
        await repository.push_blob(described(data), opener(data[:-1] + b"?"))
    assert not await repository.has_blob(described(data))
    assert proxy.count("POST", "uploads") == 1


async def test_a_layer_that_is_short_here_is_named(repository: Repository) -> None:
    data = noise(SIZE, 19)
    with pytest.raises(RuntimeFault, match="less here than its descriptor says"):
        await repository.push_blob(described(data), opener(data[:-5]))
    with pytest.raises(RuntimeFault, match="less here than its descriptor says"):
        await repository.push_blob(described(data[:1000]), opener(data[:990]))


async def test_a_failing_reader_is_heard(repository: Repository) -> None:
    async def open_at(offset: int):  # type: ignore[no-untyped-def]
        yield b"x" * 100_000
        raise Invalid("the disk broke")

    with pytest.raises(Invalid, match="the disk broke"):
        await repository.push_blob(described(noise(SIZE, 20)), open_at)


async def test_an_upload_may_go_to_another_host_without_the_key(
    proxy: Proxy, registries: Registries, plain: str
) -> None:
    me = Credentials(username="me", password="secret")
    repository = registries.repository(named(proxy.host, "uploads"), me, PUSH)
    proxy.faults.append(Fault("POST", "uploads", status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
    data = noise(SIZE, 21)
    async with Proxy(plain) as elsewhere:
        gone = {"Location": f"http://{elsewhere.host}/v2/none/blobs/uploads/x"}
        proxy.faults.append(Fault("POST", "uploads", status=202, headers=gone))
        await repository.push_blob(described(data), opener(data))
        assert {seen.authorization for seen in elsewhere.seen} == {""}
        assert {seen.authorization for seen in proxy.seen} == {"", me.basic}


async def test_a_registry_that_takes_nothing_more_is_left(proxy: Proxy, repository: Repository) -> None:
    data = noise(30_000_000, 24)  # more than the kernel keeps for a reader that is gone
    proxy.faults.append(Fault("PATCH", "uploads", stall_request_after=1_000_000))
    await repository.push_blob(described(data), opener(data))
    assert await arrived(repository, data)
    assert proxy.count("POST", "uploads") >= 2  # on a slow machine it may take nothing for too long once more


async def test_a_slow_source_is_waited_for(proxy: Proxy, repository: Repository) -> None:
    data = noise(SIZE, 25)
    pieces = opener(data, 1_500_000)

    async def open_at(offset: int) -> AsyncIterator[bytes]:
        async for piece in pieces(offset):
            yield piece
            await asyncio.sleep(QUICK.silence * 1.2 if not offset else 0)
            offset += 1

    await repository.push_blob(described(data), open_at)
    assert proxy.count("PATCH", "uploads") == 1


async def test_a_manifest_without_its_parts_is_refused(proxy: Proxy, repository: Repository) -> None:
    listed = {"mediaType": OCI_LAYER, "digest": described(b"missing").digest, "size": 7}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": listed, "layers": [listed]}
    with pytest.raises(Invalid, match=f"registry {proxy.host} lacks a part of image {proxy.host}/uploads:v1"):
        await repository.put_manifest("v1", json.dumps(manifest).encode(), OCI_MANIFEST)


async def test_a_manifest_that_is_stored_otherwise_is_noticed(proxy: Proxy, repository: Repository) -> None:
    other = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    proxy.faults.append(Fault("PUT", "manifests", status=201, headers=other))
    with pytest.raises(Corrupt, match="something between changes it"):
        await repository.put_manifest("v1", b"{}", "application/vnd.oci.image.index.v1+json")
