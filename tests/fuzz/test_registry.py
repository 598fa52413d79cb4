"""Whatever a registry, a token server or a client of the Engine API sends is read or refused in a sentence."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st

from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.images import manifests
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import Settings, challenges, credentials_from_header, failures, pages
from swarmd.runtime.registry.failures import Subject
from swarmd.runtime.registry.keys import Token
from swarmd.runtime.registry.login import server_domain
from swarmd.runtime.registry.repository import checked_type
from tests.fuzz.strategies import fuzz, json_values, mutated, words

DIGEST = "sha256:" + "a" * 64
PART = {"mediaType": manifests.OCI_LAYER, "digest": DIGEST, "size": 3}
MANIFEST = {"schemaVersion": 2, "mediaType": manifests.OCI_MANIFEST, "config": PART, "layers": [PART]}
INDEX = {
    "schemaVersion": 2,
    "manifests": [{**PART, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}],
}
TYPES = st.sampled_from(
    ["", "application/json", *manifests.ACCEPTED, "application/vnd.docker.distribution.manifest.v1"]
)


@fuzz
@given(mutated(MANIFEST) | mutated(INDEX) | json_values, TYPES)
def test_manifests_are_of_a_type_or_refused(document: object, given_type: str) -> None:
    data = json.dumps(document).encode()
    with contextlib.suppress(RuntimeFault):
        media_type = checked_type(given_type, data, "it")
        assert media_type in manifests.ACCEPTED
        kind = manifests.Index if media_type in manifests.INDEXES else manifests.Manifest
        found = manifests.parse(data, kind, "it")
        if isinstance(found, manifests.Index):
            manifests.choose(found.manifests, manifests.parse_platform("linux/arm/v6"), "it")


@fuzz
@given(st.binary(max_size=60), TYPES)
def test_any_bytes_are_no_manifest(data: bytes, given_type: str) -> None:
    with contextlib.suppress(RuntimeFault):
        checked_type(given_type, data, "it")


@fuzz
@given(words("Bearer", "Basic", " ", ",", "realm", "=", '"', "\\", "https://a"))
def test_challenges_are_read_to_the_end(text: str) -> None:
    for found in challenges.parse([text]):
        assert found.scheme
        assert all(isinstance(value, str) for value in found.parameters.values())


@fuzz
@given(words("<", ">", ";", "rel", "=", "next", '"', ",", "/v2/", " "))
def test_links_are_read_to_the_end(text: str) -> None:
    assert "<" not in pages.following([text])


@fuzz
@given(st.text(max_size=40) | json_values.map(lambda value: json.dumps(value).encode().hex()))
def test_any_header_is_credentials_or_refused(text: str) -> None:
    with contextlib.suppress(RuntimeFault):
        credentials_from_header(text)


@fuzz
@given(
    st.integers(100, 599),
    mutated({"errors": [{"code": "DENIED", "message": "no"}], "details": "x"}).map(lambda v: json.dumps(v).encode())
    | st.binary(max_size=30),
    st.dictionaries(st.sampled_from(["Retry-After", "RateLimit-Reset"]), st.text(max_size=12)),
    st.sampled_from(["", "me"]),
)
def test_any_refusal_is_one_sentence(status: int, body: bytes, headers: dict[str, str], username: str) -> None:
    text = str(failures.answer(status, headers, body, Subject("host", "image a:1", "a", username)))
    assert "host" in text
    assert text.isprintable()
    assert len(text) < 1000


@fuzz
@given(mutated({"token": "x", "expires_in": 60, "refresh_token": "y"}) | json_values)
def test_any_answer_of_a_token_server_is_read_or_refused(document: object) -> None:
    with contextlib.suppress(RuntimeFault):
        assert isinstance(manifests.parse(json.dumps(document).encode(), Token, "it").value, str)


@fuzz
@given(words("host", ":", "5000", "/", ".", "[", "]", "::1", "https://", "127.0.0.1", "@", "%"))
def test_any_host_is_judged(text: str) -> None:
    with contextlib.suppress(RuntimeFault):
        Settings(mirrors={"docker.io": (text,)})
    with contextlib.suppress(RuntimeFault):
        Settings(insecure=(text, "10.0.0.0/8")).endpoints(server_domain(text))
    with contextlib.suppress(RuntimeFault):
        Settings().endpoints(Reference.parse(f"{text}/demo").domain)[0].url("https", "/v2/")
