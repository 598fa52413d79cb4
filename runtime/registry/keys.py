"""What goes into Authorization: Basic, or a token of the server that the registry names (the distribution token flow).

A token is kept until it ends, by host, credentials and scopes; requests that need the same one wait for one fetch.
"""

import asyncio
import time
from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from swarmd.runtime.errors import RuntimeFault, Unauthorized, Unavailable
from swarmd.runtime.images import manifests
from swarmd.runtime.registry import challenges
from swarmd.runtime.registry.challenges import Challenge
from swarmd.runtime.registry.credentials import Credentials
from swarmd.runtime.registry.failures import Broken, Subject, answer
from swarmd.runtime.registry.reading import read
from swarmd.runtime.registry.retries import persist
from swarmd.runtime.registry.settings import Endpoint
from swarmd.runtime.registry.transport import Transport, authority

Scopes = frozenset[str]
_Key = tuple[str, Credentials, Scopes]

_CLIENT = "swarmd"
_DEFAULT_LIFE = 60.0  # s, by the specification
_MARGIN = 0.1  # of its life: a token must not end on its way
_MOST_TOKENS = 1000
_LARGEST = 1 << 20  # bytes of a token server's answer


class Token(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: float | None = None

    @property
    def value(self) -> str:
        return self.token or self.access_token or ""


class Keys:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._challenges: dict[str, Challenge] = {}
        self._tokens: dict[_Key, tuple[str, float]] = {}
        self._fetching: dict[_Key, asyncio.Lock] = {}

    async def header(
        self, endpoint: Endpoint, credentials: Credentials, scopes: Scopes, subject: Subject
    ) -> tuple[str, bool]:
        """The value of Authorization, empty while the registry hasn't asked for any, and whether it may be outdated.

        Raises as a request does.
        """
        if credentials.registry_token:
            return f"Bearer {credentials.registry_token}", False
        challenge = self._challenges.get(endpoint.host)
        if challenge is None:
            return "", True
        if challenge.scheme == "basic":
            return (credentials.basic, False) if credentials.username else ("", False)
        key = endpoint.host, credentials, scopes
        async with self._fetching.setdefault(key, asyncio.Lock()):
            known = self._tokens.get(key)
            kept = known is not None and known[1] > time.monotonic()
            if known is None or not kept:
                fetched = await self.fetch(challenge, endpoint, credentials, scopes, subject)
                life = _DEFAULT_LIFE if fetched.expires_in is None else max(0.0, fetched.expires_in)
                known = fetched.value, time.monotonic() + life * (1 - _MARGIN)
                self._keep(key, known)
        return f"Bearer {known[0]}", kept

    def challenged(self, endpoint: Endpoint, headers: "CIMultiDictProxy[str]") -> Challenge | None:
        """Learn from a 401 what the registry wants; None if it is nothing that is known here."""
        found = challenges.preferred(challenges.parse(headers.getall("WWW-Authenticate", ())))
        if found is not None:
            self._challenges[endpoint.host] = found
        return found

    def forget(self, endpoint: Endpoint, credentials: Credentials, scopes: Scopes) -> None:
        """Drop a token that was refused, whatever it said of its life."""
        self._tokens.pop((endpoint.host, credentials, scopes), None)

    async def fetch(
        self,
        challenge: Challenge,
        endpoint: Endpoint,
        credentials: Credentials,
        scopes: Scopes,
        subject: Subject,
        offline: bool = False,
    ) -> Token:
        """Ask for a token; offline: and one to log in with later, if the server gives any."""
        realm = self._realm(challenge, endpoint)
        fields = [("service", challenge.parameters["service"])] if "service" in challenge.parameters else []
        headers: dict[str, str] = {}
        if credentials.identity_token:
            fields += [("grant_type", "refresh_token"), ("refresh_token", credentials.identity_token)]
            fields += [("client_id", _CLIENT), ("scope", " ".join(sorted(scopes)))]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            asked = "POST", realm, headers, urlencode(fields).encode()
        else:
            fields += [("scope", scope) for scope in sorted(scopes)]
            if credentials.username:
                fields.append(("account", credentials.username))
                headers["Authorization"] = credentials.basic
            if offline:
                fields += [("client_id", _CLIENT), ("offline_token", "true")]
            asked = "GET", realm.extend_query(fields), headers, b""
        return await self._ask(asked, challenge, subject)

    async def _ask(
        self, asked: tuple[str, URL, dict[str, str], bytes], challenge: Challenge, subject: Subject
    ) -> Token:
        host = authority(asked[1])
        server = self._transport.settings.endpoint(host)
        try:
            response = await persist(self._transport, server, *asked)
            body = await read(self._transport, response, _LARGEST, f"the answer of token server {host}")
        except Broken as broken:
            raise Unavailable(f"no token for registry {subject.host}: {broken.fault}") from broken
        if response.status != 200:
            raise _refused(response.status, response.headers, body, subject, host)
        found = manifests.parse(body, Token, f"the answer of token server {host}")
        if not found.value or not (found.value.isascii() and found.value.isprintable()):
            raise Unavailable(f"token server {host} of registry {subject.host} answered without a token")
        return found

    def _realm(self, challenge: Challenge, endpoint: Endpoint) -> URL:
        text = challenge.parameters.get("realm", "")
        try:
            realm = URL(text)
            realm.origin()
        except ValueError:
            raise Unavailable(f"registry {endpoint.host} names no token server: {text[:200]!r}") from None
        if realm.scheme != "https" and not self._transport.settings.is_insecure(authority(realm)):
            text = f"token server {authority(realm)} of registry {endpoint.host} is without TLS, so no password goes"
            raise Unavailable(f"{text} there: declare it an insecure registry if that is meant")
        return realm

    def _keep(self, key: _Key, token: tuple[str, float]) -> None:
        if len(self._tokens) >= _MOST_TOKENS:
            now = time.monotonic()
            self._tokens = {known: kept for known, kept in self._tokens.items() if kept[1] > now}
            self._fetching = {known: lock for known, lock in self._fetching.items() if lock.locked()}
        self._tokens[key] = token


def _refused(status: int, headers: Mapping[str, str], body: bytes, subject: Subject, server: str) -> RuntimeFault:
    if status in (400, 401, 403) and subject.username:
        text = f"registry {subject.host} refused user {subject.username}: the username or password is wrong"
        return Unauthorized(f"{text}; log in again with swarmctl login {subject.host}")
    if status in (401, 403):
        return answer(401, headers, body, subject)
    return answer(status, headers, body, Subject(host=server, matter=f"a token for {subject.host}"))
