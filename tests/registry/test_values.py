"""What needs no server: names, settings, headers, credentials, certificates."""

import base64
import json
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from yarl import URL

from swarmd.runtime.errors import Denied, Invalid, NotFound, Unauthorized, Unavailable
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import (
    Credentials,
    Settings,
    challenges,
    credentials_by_registry,
    credentials_from_header,
    credentials_from_json,
    failures,
    pages,
)
from swarmd.runtime.registry.client import is_at
from swarmd.runtime.registry.failures import Subject, connection
from swarmd.runtime.registry.login import server_domain
from swarmd.runtime.registry.trust import Trust

SHA256, SHA512 = "sha256:" + "a" * 64, "sha512:" + "b" * 128


@pytest.mark.parametrize(
    ("text", "domain", "path", "tag", "digest", "familiar"),
    [
        ("demo", "docker.io", "library/demo", "latest", "", "demo:latest"),
        ("me/demo:1", "docker.io", "me/demo", "1", "", "me/demo:1"),
        ("index.docker.io/demo", "docker.io", "library/demo", "latest", "", "demo:latest"),
        ("docker.io/library/a/b:1", "docker.io", "library/a/b", "1", "", "library/a/b:1"),
        ("localhost/demo", "localhost", "demo", "latest", "", "localhost/demo:latest"),
        ("[::1]:5000/demo:2", "[::1]:5000", "demo", "2", "", "[::1]:5000/demo:2"),
        (f"host:5000/a/b@{SHA256}", "host:5000", "a/b", "", SHA256, f"host:5000/a/b@{SHA256}"),
        (f"demo:1@{SHA512}", "docker.io", "library/demo", "1", SHA512, f"demo:1@{SHA512}"),
    ],
)
def test_a_reference_is_read_in_full(text: str, domain: str, path: str, tag: str, digest: str, familiar: str) -> None:
    found = Reference.parse(text)
    assert found == Reference(domain=domain, path=path, tag=tag, digest=digest)
    assert found.familiar == familiar
    assert Reference.parse(str(found)) == Reference.parse(familiar) == found


@pytest.mark.parametrize(
    "text",
    ["", "Demo", "a//b", "demo:", "demo@sha256:12", f"demo@sha512:{'a' * 64}", "-demo", "a" * 256, "demo:ä", "/demo"],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="image name"):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("10.1.2.3", True),
        ("10.2.0.1", False),
        ("lab:5000", True),
        ("lab", False),
        ("plain.example:99", True),
        ("127.0.0.1.example", False),
    ],
)
def test_insecure_registries_are_those_declared_and_loopback(host: str, insecure: bool) -> None:
    settings = Settings(insecure=("127.0.0.0/8", "::1/128", "10.1.0.0/16", "lab:5000", "plain.example"))
    assert settings.is_insecure(host) is insecure


def test_mirrors_come_first() -> None:
    settings = Settings(mirrors={"docker.io": ("https://mirror:5000/hub/", "http://near", "far")}, insecure=("far",))
    mirror, near, far, origin = settings.endpoints("docker.io")
    assert str(mirror.url("https", "/v2/")) == "https://mirror:5000/hub/v2/"
    assert (near.schemes, far.schemes) == (("http",), ("https", "http"))
    assert (origin.host, origin.mirror, origin.schemes) == ("registry-1.docker.io", False, ("https",))
    assert settings.endpoints("ghcr.io") == (settings.origin("ghcr.io"),)
    for wrong in ("ftp://x", "https://", ""):
        with pytest.raises(Invalid, match="mirror"):
            Settings(mirrors={"docker.io": (wrong,)})
    with pytest.raises(Invalid, match="insecure registry 'a b' is neither"):
        Settings(insecure=("a b",))
    with pytest.raises(Invalid, match="registry 'host:99999' is not of the form"):
        Settings().endpoints("host:99999")


@pytest.mark.parametrize(
    ("host", "url", "at_home"),
    [
        ("host:443", "https://host/v2/x", True),
        ("Host", "https://host:443/v2/x", True),
        ("host:5000", "https://host:5000/v2/x", True),
        ("host:5000", "https://host/v2/x", False),
        ("host", "http://host/v2/x", False),
        ("host", "https://host.evil/v2/x", False),
        ("host", "https://host@evil/v2/x", False),
        ("[::1]:5000", "http://[::1]:5000/v2/x", True),
    ],
)
def test_keys_stay_at_home(host: str, url: str, at_home: bool) -> None:
    assert is_at(URL(url, encoded=True), Settings().endpoint(host)) is at_home


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a",scope="x:pull,push"', ("bearer", {"realm": "https://a", "scope": "x:pull,push"})),
        ("Basic realm=plain", ("basic", {"realm": "plain"})),
        ('BASIC realm="a \\"quoted\\" b"', ("basic", {"realm": 'a "quoted" b'})),
        ('Negotiate, Basic realm="r", Bearer realm="https://t"', ("bearer", {"realm": "https://t"})),
        ('Bearer service="no realm", Basic realm="r"', ("basic", {"realm": "r"})),
        ("Negotiate", None),
        ("", None),
    ],
)  # fmt: skip
def test_challenges_are_read(header: str, expected: tuple[str, dict[str, str]] | None) -> None:
    found = challenges.preferred(challenges.parse([header]))
    assert (found and (found.scheme, found.parameters)) == expected


@pytest.mark.parametrize(
    ("headers", "following"),
    [
        (['</v2/_catalog?last=b&n=2>; rel="next"'], "/v2/_catalog?last=b&n=2"),
        (['<a>; rel=prev, <b>; title="x, y"; rel=next'], "b"),
        (["<a>; rel=prev", "<c>; rel=NEXT"], "c"),
        (["<a>; rel=nextish"], ""),
        (["garbage"], ""),
        ([], ""),
    ],
)
def test_links_to_the_next_page_are_read(headers: list[str], following: str) -> None:
    assert pages.following(headers) == following


def header(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def test_credentials_are_read_from_the_header() -> None:
    given = {"username": "ü", "password": "?>~", "serveraddress": "host:5000", "identitytoken": None}
    expected = Credentials(username="ü", password="?>~", server="host:5000")
    assert credentials_from_header(header(given)) == expected
    assert credentials_from_header(header(given).rstrip("=")) == expected
    assert credentials_from_json(json.dumps(given).encode()) == expected
    auth = base64.b64encode(b"me:pass:word").decode()
    assert credentials_from_header(header({"auth": auth})) == Credentials(username="me", password="pass:word")
    assert credentials_from_header(header({"identitytoken": "t"})).identity_token == "t"
    for nothing in (None, "", header({}), header(None)):
        assert not credentials_from_header(nothing)
    for wrong in ("!", header([]), header({"username": 1}), header({"auth": "!"}), "A" * 300_000):
        with pytest.raises(Invalid):
            credentials_from_header(wrong)


def test_credentials_of_a_build_are_read_by_registry() -> None:
    given = {"host:5000": {"username": "me", "password": "x"}, "https://index.docker.io/v1/": {}}
    expected = {"host:5000": Credentials(username="me", password="x"), "https://index.docker.io/v1/": Credentials()}
    assert credentials_by_registry(header(given)) == expected
    assert credentials_by_registry(None) == {}
    with pytest.raises(Invalid, match="X-Registry-Config"):
        credentials_by_registry(header({"host": 1}))


def test_secrets_are_not_shown() -> None:
    shown = repr(Credentials(username="me", password="hidden", identity_token="hidden", registry_token="hidden"))
    assert "me" in shown
    assert "hidden" not in shown


@pytest.mark.parametrize(
    ("server", "domain"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("ghcr.io", "ghcr.io"),
        ("https://host:5000/v2/", "host:5000"),
        ("host:5000/path", "host:5000"),
    ],
)
def test_servers_of_logins_are_domains(server: str, domain: str) -> None:
    assert server_domain(server) == domain


def test_a_server_that_is_none_is_refused() -> None:
    for wrong in ("https:///", "a b", "user@host", "ä.example"):
        with pytest.raises(Invalid, match="registry"):
            server_domain(wrong)


@pytest.mark.parametrize(
    ("status", "body", "username", "kind", "words"),
    [
        (404, {"code": "NAME_UNKNOWN"}, "", NotFound, "registry host has no repository host/app: check its name"),
        (404, {"code": "MANIFEST_UNKNOWN"}, "", NotFound, "registry host has no image host/app:1: check its name"),
        (401, {}, "", Unauthorized, "registry host wants a login for host/app"),
        (401, {}, "me", Denied, "user me may not pull host/app"),
        (403, {"code": "DENIED", "message": "quota"}, "me", Denied, r"\(quota\): ask its owner for access"),
        (429, {"message": "slow"}, "", Unavailable, r"limits the rate of requests \(slow\): try again later"),
        (500, {}, "", Unavailable, "failed with status 500"),
        (307, {}, "", Unavailable, "elsewhere"),
        (400, {"message": "why"}, "", Invalid, r"with status 400 \(why\)"),
    ],
)
def test_refusals_are_sentences(
    status: int, body: dict[str, str], username: str, kind: type[Exception], words: str
) -> None:
    data = json.dumps({"errors": [body]}).encode()
    fault = failures.answer(status, {}, data, Subject("host", "image host/app:1", "host/app", username))
    assert type(fault) is kind
    with pytest.raises(kind, match=words):
        raise fault


def test_times_of_limits_are_read() -> None:
    assert failures.retry_after({"Retry-After": "7"}) == 7
    assert failures.retry_after({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
    assert (failures.retry_after({"X-RateLimit-Reset": "99999999999"}) or 0) > 10**9
    assert failures.retry_after({"RateLimit-Reset": "5"}) == 5
    for unsaid in ({}, {"Retry-After": "soon"}, {"Retry-After": "-1"}, {"Retry-After": "9" * 400}):
        assert failures.retry_after(unsaid) is None


def test_files_of_certificates_that_are_no_use_are_named(tmp_path: Path) -> None:
    own = tmp_path / "host:5000"
    own.mkdir()
    trust = Trust(Settings(certificates=(tmp_path / "none", tmp_path)))
    first = trust.context("host:5000")
    assert trust.context("host:5000") is first
    (own / "ca.crt").write_text("no certificate")
    with pytest.raises(Invalid, match=r"host:5000/ca\.crt can't be used as an authority"):
        trust.context("host:5000")
    (own / "ca.crt").unlink()
    (own / "client.cert").write_text("no certificate")
    with pytest.raises(Invalid, match=r"its key .*host:5000/client\.key is missing"):
        trust.context("host:5000")
    (own / "client.key").write_text("no key")
    with pytest.raises(Invalid, match=r"host:5000/client\.cert can't be used"):
        trust.context("host:5000")


@pytest.mark.parametrize(
    ("reason", "todo"),
    [
        ("certificate has expired", "have it renewed"),
        ("certificate is not yet valid", "check the clocks"),
        ("Hostname mismatch, certificate is not valid for 'host'.", "call the registry what its certificate does"),
        ("unable to get local issuer certificate", "put its authority in /certs/host/ca.crt"),
    ],
)
def test_what_helps_against_a_certificate_is_said(reason: str, todo: str) -> None:
    refused = ssl.SSLCertVerificationError(1, "refused")
    refused.verify_message = reason
    key: Any = SimpleNamespace(host="host", port=443, is_ssl=True, ssl=True)
    broken = connection(aiohttp.ClientConnectorCertificateError(key, refused), "host", True, "/certs/host")
    assert f"({reason})" in str(broken) and todo in str(broken) and not broken.again
