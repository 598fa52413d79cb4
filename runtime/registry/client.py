"""Requests to registries with all that belongs to them: authorisation, renewed once; tries; refusals in words."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import aiohttp
from yarl import URL

from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.registry.credentials import ANONYMOUS, Credentials
from swarmd.runtime.registry.failures import Broken, Subject, answer
from swarmd.runtime.registry.keys import Keys, Scopes
from swarmd.runtime.registry.reading import read
from swarmd.runtime.registry.retries import persist
from swarmd.runtime.registry.settings import Endpoint
from swarmd.runtime.registry.transport import Body, Transport

_LARGEST_REFUSAL = 64 << 10  # bytes that are read for a reason
_MOST_KEYS = 3  # none, one that was kept, and a new one
_SHUNNED = 60.0  # s
_OK = frozenset({200})


class Renewed(Exception):
    """The key was refused and can be renewed, but the body was a stream: it is to be sent again by its owner."""


@dataclass(frozen=True, slots=True)
class Request:
    endpoint: Endpoint
    method: str
    place: str | URL  # a path of the endpoint's, or a whole address that an answer gave
    subject: Subject
    credentials: Credentials = ANONYMOUS
    scopes: Scopes = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = b""
    good: frozenset[int] = _OK


class Client:
    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.keys = Keys(transport)
        self._shunned: dict[Endpoint, float] = {}

    def shun(self, endpoint: Endpoint) -> None:
        """Leave out a mirror for a while that could not be reached or sent something wrong."""
        if endpoint.mirror:
            self._shunned[endpoint] = time.monotonic() + _SHUNNED

    def well(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        now = time.monotonic()
        return [endpoint for endpoint in endpoints if self._shunned.get(endpoint, 0.0) <= now]

    async def ask(self, request: Request) -> aiohttp.ClientResponse:
        """An answer with one of the good statuses, its body unread; raises a RuntimeFault, Broken, or Renewed."""
        # A mirror is somebody else: what the user said to the registry is not for it.
        credentials = ANONYMOUS if request.endpoint.mirror else request.credentials
        subject = replace(request.subject, username=credentials.username or ("<token>" if credentials else ""))
        at_home = isinstance(request.place, str) or is_at(request.place, request.endpoint)
        for _ in range(_MOST_KEYS):
            key, outdated = "", False
            if at_home:
                key, outdated = await self.keys.header(request.endpoint, credentials, request.scopes, subject)
            headers = {**request.headers, "Authorization": key} if key else dict(request.headers)
            response = await persist(
                self.transport, request.endpoint, request.method, request.place, headers, request.body
            )
            if response.status in request.good:
                return response
            fault = await self._fault(response, subject)
            if response.status != 401 or not at_home:
                break
            self.keys.forget(request.endpoint, credentials, request.scopes)
            challenge = self.keys.challenged(request.endpoint, response.headers)
            hopeless = challenge is None or (challenge.scheme == "basic" and not credentials.username)
            if hopeless or not outdated:
                break
            if not isinstance(request.body, bytes):
                raise Renewed(str(fault))
        raise fault

    async def _fault(self, response: aiohttp.ClientResponse, subject: Subject) -> RuntimeFault:
        try:
            body = await read(self.transport, response, _LARGEST_REFUSAL, "a refusal")
        except (RuntimeFault, Broken):
            body = b""  # the status says enough
        return answer(response.status, response.headers, body, subject)


def is_at(url: URL, endpoint: Endpoint) -> bool:
    """Whether an address is the endpoint's own, where its key may go."""
    home = endpoint.url(url.scheme, "/")
    return url.scheme in endpoint.schemes and (url.host, url.port) == (home.host, home.port)
