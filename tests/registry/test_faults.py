"""What the client does when the network or the registry misbehaves: a proxy in between injects it."""

import hashlib
import json
import re
import time

import pytest

from swarmd.runtime.errors import Corrupt, Invalid, RuntimeFault, Unavailable
from swarmd.runtime.images.manifests import DOCKER_MANIFEST, LARGEST, OCI_MANIFEST
from swarmd.runtime.registry import Credentials, Registries, Repository, Settings
from tests.registry.conftest import QUICK
from tests.registry.faults import Fault, Proxy
from tests.registry.images import collected, described, named, noise, push_image

DATA = noise(3_000_000, 3)
BLOB = described(DATA)
PUSH = ("pull", "push")


@pytest.fixture
async def repository(proxy: Proxy, registries: Registries, plain: str) -> Repository:
    """Behind the proxy, with DATA in it as a blob and the tag v1."""
    await push_image(registries.repository(named(plain, "faulty"), actions=PUSH), "v1", DATA)
    return registries.repository(named(proxy.host, "faulty"), actions=PUSH)


async def test_a_download_goes_on_where_it_was_cut(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("GET", "blobs/sha256", times=2, cut_after=1_000_000))
    assert await collected(repository.blob(BLOB)) == DATA
    ranges = [seen.range for seen in proxy.seen if "blobs/sha256" in seen.path]
    assert ranges[0] == ""
    assert [int(text.removeprefix("bytes=").removesuffix("-")) for text in ranges[1:]] == [1_000_000, 2_000_000]


async def test_progress_starts_the_count_of_tries_anew(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("GET", "blobs/sha256", times=9, cut_after=300_000))
    assert await collected(repository.blob(BLOB)) == DATA
    assert proxy.count("GET", "blobs/sha256") == 10


async def test_no_progress_ends_a_download(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("GET", "blobs/sha256", times=99, cut_after=1000))
    with pytest.raises(Unavailable, match=f"registry {proxy.host} broke the connection off"):
        await collected(repository.blob(BLOB))
    assert proxy.count("GET", "blobs/sha256") == QUICK.tries


async def test_a_stalled_download_is_taken_up_again(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("GET", "blobs/sha256", stall_after=700_000))
    begun = time.monotonic()
    assert await collected(repository.blob(BLOB)) == DATA
    assert time.monotonic() - begun < QUICK.silence + 5


async def test_a_registry_without_ranges_starts_over(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("GET", "blobs/sha256", cut_after=500_000))
    proxy.faults.append(Fault("GET", "blobs/sha256", ignore_range=True))
    assert await collected(repository.blob(BLOB)) == DATA


async def test_an_end_before_the_size_is_a_cut(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("GET", "blobs/sha256", end_after=400_000))
    assert await collected(repository.blob(BLOB)) == DATA


async def test_a_changed_byte_is_found(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("GET", "blobs/sha256", corrupt_at=1_500_000))
    with pytest.raises(Corrupt, match=rf"layer {BLOB.digest} of .* came from registry {proxy.host} as sha256:\w{{64}}"):
        await collected(repository.blob(BLOB))


async def test_more_bytes_than_the_size_are_never_passed_on(proxy: Proxy, repository: Repository) -> None:
    chunked = ("Content-Length",)
    proxy.faults.append(Fault("GET", "blobs/sha256", extra=b"x" * 500_000, drop=chunked))
    got = 0
    with pytest.raises(Corrupt, match=f"has more bytes at registry {proxy.host} than the {len(DATA)} it should"):
        async for piece in repository.blob(BLOB):
            got += len(piece)
    assert got <= len(DATA)


async def test_another_size_than_the_manifests_is_refused(proxy: Proxy, repository: Repository) -> None:
    other = described(DATA).__class__(media_type="", digest=BLOB.digest, size=BLOB.size + 1)
    with pytest.raises(Corrupt, match=f"has {BLOB.size} bytes at registry {proxy.host}, not {BLOB.size + 1}"):
        await collected(repository.blob(other))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_passing_refusal_is_waited_for(proxy: Proxy, repository: Repository, status: int) -> None:
    proxy.faults.append(Fault("GET", "manifests/v1", times=2, status=status))
    assert (await repository.manifest("v1"))[1] == OCI_MANIFEST
    assert proxy.count("GET", "manifests/v1") == 3


async def test_retry_after_is_obeyed(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("GET", "manifests/v1", status=429, headers={"Retry-After": "1"}))
    begun = time.monotonic()
    await repository.manifest("v1")
    assert time.monotonic() - begun >= 1.0


async def test_a_long_limit_is_explained_at_once(proxy: Proxy, repository: Repository) -> None:
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "You have\nreached your limit"}]}).encode()
    proxy.faults.append(Fault("HEAD", "manifests/v1", status=429, headers={"Retry-After": "3600"}))
    proxy.faults.append(Fault("GET", "manifests/v1", status=429, headers={"Retry-After": "3600"}, body=body))
    with pytest.raises(
        Unavailable, match=r"limits the rate .*: try again in 3600 s \(at \d\d:\d\d:\d\d UTC\)"
    ) as caught:
        await repository.resolve("v1")
    assert caught.value.retry_after == 3600
    with pytest.raises(Unavailable, match=r"\(You have reached your limit\): try again in"):
        await repository.manifest("v1")
    assert len(proxy.seen) == 2


async def test_a_lasting_failure_is_explained(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("GET", "manifests/v1", times=99, status=503, body=b"<html>no JSON"))
    with pytest.raises(
        Unavailable, match=f"registry {proxy.host} failed with status 503 on image {proxy.host}/faulty:v1"
    ):
        await repository.manifest("v1")
    assert proxy.count("GET", "manifests/v1") == QUICK.tries


async def test_a_web_page_is_no_manifest(proxy: Proxy, repository: Repository) -> None:
    for method in ("HEAD", "GET"):
        page = Fault(method, "manifests/v1", status=200, headers={"Content-Type": "text/html; charset=utf-8"})
        proxy.faults.append(page)
    with pytest.raises(Unavailable, match=f"registry {proxy.host} answered with a web page instead of the manifest"):
        await repository.resolve("v1")


async def test_a_wrong_digest_header_is_found(proxy: Proxy, repository: Repository) -> None:
    wrong = "sha256:" + "0" * 64
    proxy.faults.append(Fault("GET", "manifests/v1", headers={"Docker-Content-Digest": wrong}))
    with pytest.raises(Corrupt, match=rf"the manifest of .* is sha256:\w{{64}}, not {wrong}"):
        await repository.manifest("v1")
    digest = (await repository.resolve("v1")).digest
    proxy.faults.append(Fault("HEAD", "manifests/sha256", headers={"Docker-Content-Digest": wrong}))
    with pytest.raises(Corrupt, match=f"gave {wrong} for"):
        await repository.resolve(digest)


async def test_a_changed_manifest_is_found(proxy: Proxy, repository: Repository) -> None:
    digest = (await repository.resolve("v1")).digest
    proxy.faults.append(Fault("GET", "manifests/sha256", corrupt_at=20, drop=("Docker-Content-Digest",)))
    with pytest.raises(Corrupt, match=f"not {digest}"):
        await repository.manifest(digest)


async def test_a_head_without_a_digest_is_followed_by_a_get(proxy: Proxy, repository: Repository) -> None:
    expected = await repository.resolve("v1")
    proxy.faults.append(Fault("HEAD", "manifests/v1", drop=("Docker-Content-Digest",)))
    assert await repository.resolve("v1") == expected


@pytest.mark.parametrize(
    ("media_type", "document", "words"),
    [
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", {"schemaVersion": 1}, "schema 1"),
        (OCI_MANIFEST, {"mediaType": DOCKER_MANIFEST, "config": {}, "layers": []}, "but came as"),
        (OCI_MANIFEST, {"config": {}, "layers": [], "manifests": []}, "both an image and an index"),
        ("application/json", {"hello": 1}, "neither an image nor an index"),
        (OCI_MANIFEST, ["list"], "malformed"),
        (OCI_MANIFEST, "x" * (LARGEST + 1), "larger than"),
    ],
)
async def test_documents_that_are_no_images_are_refused(
    proxy: Proxy, repository: Repository, media_type: str, document: object, words: str
) -> None:
    body = json.dumps(document).encode()
    proxy.faults.append(Fault("GET", "manifests/v1", status=200, headers={"Content-Type": media_type}, body=body))
    with pytest.raises(Invalid, match=words):
        await repository.manifest("v1")


async def test_sha512_is_as_good(proxy: Proxy, repository: Repository) -> None:
    data, _, _ = await repository.manifest("v1")
    digest = f"sha512:{hashlib.sha512(data).hexdigest()}"
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest}
    proxy.faults.append(Fault("GET", "manifests/sha512", times=2, status=200, headers=headers, body=data))
    assert await repository.manifest(digest) == (data, OCI_MANIFEST, digest)
    proxy.faults[0].body = data + b" "
    with pytest.raises(Corrupt, match=digest):
        await repository.manifest(digest)
    layer = described(DATA, algorithm="sha512")
    proxy.faults.append(Fault("GET", "blobs/sha512", status=200, body=DATA))
    assert await collected(repository.blob(layer)) == DATA


async def test_a_blob_is_followed_to_another_host_without_the_key(
    proxy: Proxy, guarded_free: Credentials, repository: Repository, registries: Registries, plain: str
) -> None:
    async with Proxy(plain) as elsewhere:
        place = f"http://{elsewhere.host}/v2/faulty/blobs/{BLOB.digest}?signature=a%2Fb%3D"
        me = registries.repository(named(proxy.host, "faulty"), guarded_free)
        wanted = {"WWW-Authenticate": 'Basic realm="tests"'}
        proxy.faults.append(Fault("GET", "blobs/sha256", status=401, headers=wanted))
        proxy.faults.append(Fault("GET", "blobs/sha256", status=307, headers={"Location": place}))
        elsewhere.faults.append(Fault("GET", "blobs", cut_after=1_000_000))
        proxy.faults.append(Fault("GET", "blobs/sha256", status=302, headers={"Location": place}))
        assert await collected(me.blob(BLOB)) == DATA
        assert [bool(seen.authorization) for seen in proxy.seen] == [False, True, True]
        assert [seen.authorization for seen in elsewhere.seen] == ["", ""]
        assert elsewhere.seen[0].path.endswith("?signature=a%2Fb%3D")


@pytest.fixture
def guarded_free() -> Credentials:
    return Credentials(username="me", password="secret")


async def test_endless_redirects_end(proxy: Proxy, repository: Repository) -> None:
    again = {"Location": f"/v2/faulty/blobs/{BLOB.digest}"}
    proxy.faults.append(Fault("GET", "blobs/sha256", times=99, status=307, headers=again))
    with pytest.raises(Unavailable, match="elsewhere too often"):
        await collected(repository.blob(BLOB))
    assert len(proxy.seen) < 10


async def test_a_redirect_to_no_address_is_explained(proxy: Proxy, repository: Repository) -> None:
    proxy.faults.append(Fault("GET", "blobs/sha256", status=307, headers={"Location": "gopher:///x y"}))
    with pytest.raises(RuntimeFault, match=f"registry {proxy.host}"):
        await collected(repository.blob(BLOB))


async def test_a_mirror_is_asked_first_and_left_when_it_fails(proxy: Proxy, plain: str, repository: Repository) -> None:
    async with Proxy(plain) as mirror:
        settings = Settings(mirrors={proxy.host: (f"http://{mirror.host}",)}, patience=QUICK)
        async with Registries(settings) as registries:
            me = registries.repository(named(proxy.host, "faulty"), Credentials(username="me", password="secret"))
            await me.resolve("v1")
            assert (len(mirror.seen), len(proxy.seen)) == (1, 0)
            mirror.faults.append(Fault("GET", "blobs/sha256", times=99, cut_after=1_000_000))
            mirror.faults[0].times = 1
            mirror.faults.append(Fault("GET", "blobs/sha256", times=99, status=404))
            assert await collected(me.blob(BLOB)) == DATA
            assert proxy.seen[0].range == "bytes=1000000-"
            # It is left alone for a while.
            before = len(mirror.seen)
            assert (await me.manifest("v1"))[1] == OCI_MANIFEST
            assert len(mirror.seen) == before


async def test_a_mirror_is_told_no_credentials(proxy: Proxy, plain: str, repository: Repository) -> None:
    async with Proxy(plain) as mirror:
        settings = Settings(mirrors={proxy.host: (f"http://{mirror.host}",)}, patience=QUICK)
        mirror.faults.append(Fault("HEAD", "v1", times=9, status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
        async with Registries(settings) as registries:
            me = registries.repository(named(proxy.host, "faulty"), Credentials(username="me", password="secret"))
            await me.resolve("v1")
            assert [seen.authorization for seen in mirror.seen] == [""]


async def test_the_proxy_of_the_environment_is_used(
    proxy: Proxy, repository: Repository, registries: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
    monkeypatch.setenv("NO_PROXY", "direct.invalid")
    settings = Settings(insecure=("far.invalid", "direct.invalid"), patience=QUICK)
    async with Registries(settings) as through:
        await through.repository(named("far.invalid", "faulty")).resolve("v1")
        assert proxy.count("HEAD", "manifests/v1") == 1
        with pytest.raises(Unavailable, match=r"registry direct\.invalid can't be found"):
            await through.repository(named("direct.invalid", "faulty")).resolve("v1")
    await repository.resolve("v1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with Registries(settings) as through:
        with pytest.raises(Unavailable, match=r"the proxy for registry far\.invalid can't be reached"):
            await through.repository(named("far.invalid", "faulty")).resolve("v1")


async def test_pages_of_tags_are_followed(proxy: Proxy, repository: Repository) -> None:
    first = {"Link": '</v2/faulty/tags/list?last=a&n=1>; rel="next"', "Content-Type": "application/json"}
    proxy.faults.append(Fault("GET", r"tags/list\?n=", status=200, headers=first, body=b'{"name":"x","tags":["a"]}'))
    proxy.faults.append(Fault("GET", r"tags/list\?last=a", status=200, body=b'{"name":"x","tags":null}'))
    assert await repository.tags() == ["a"]
    away = {"Link": "<http://127.0.0.1:9/v2/x>; rel=next"}
    proxy.faults.append(Fault("GET", r"tags/list\?n=", status=200, headers=away, body=b'{"tags":["a"]}'))
    with pytest.raises(Invalid, match="goes on at another host"):
        await repository.tags()


async def test_words_of_a_registry_are_bounded_and_on_one_line(proxy: Proxy, repository: Repository) -> None:
    body = json.dumps({"errors": [{"code": "X", "message": "a\nb\x1b[31m" + "c" * 999}]}).encode()
    proxy.faults.append(Fault("GET", "manifests/v1", status=418, body=body))
    with pytest.raises(Invalid) as caught:
        await repository.manifest("v1")
    assert re.fullmatch(r"registry \S+ refused image \S+ with status 418 \(a b \[31mc+\.\.\.\)", str(caught.value))
