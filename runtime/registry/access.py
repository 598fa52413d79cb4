"""How a repository's requests are made: what its manifests, blobs and uploads have in common."""

import aiohttp

from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry.client import Client, Request
from swarmd.runtime.registry.credentials import Credentials
from swarmd.runtime.registry.failures import Broken, Subject
from swarmd.runtime.registry.keys import Scopes
from swarmd.runtime.registry.settings import Endpoint
from swarmd.runtime.registry.transport import Body


class Access:
    """endpoints: the mirrors and then the registry itself."""

    def __init__(
        self, client: Client, name: Reference, endpoints: tuple[Endpoint, ...], credentials: Credentials, scopes: Scopes
    ) -> None:
        self.client = client
        self.path = name.path
        self.familiar = Reference(domain=name.domain, path=name.path).familiar
        self.endpoints = endpoints
        self.credentials = credentials
        self.scopes = scopes

    @property
    def origin(self) -> Endpoint:
        return self.endpoints[-1]

    def label(self, ref: str) -> str:
        return f"{self.familiar}{'@' if ':' in ref else ':'}{ref}"

    def request(
        self,
        endpoint: Endpoint,
        method: str,
        place: str,
        matter: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body = b"",
        good: frozenset[int] = frozenset({200}),
    ) -> Request:
        """A request of this repository's; place is below /v2/NAME/, or whole if it begins with a slash."""
        writes = method not in ("GET", "HEAD")
        return Request(
            endpoint=endpoint,
            method=method,
            place=place if place.startswith("/") else f"/v2/{self.path}/{place}",
            subject=Subject(endpoint.host, matter, self.familiar, action="push to" if writes else "pull"),
            credentials=self.credentials,
            scopes=self.scopes,
            headers=headers or {},
            body=body,
            good=good,
        )

    async def ask(self, request: Request) -> aiohttp.ClientResponse:
        """The answer; raises a RuntimeFault when it is none of the good ones."""
        try:
            return await self.client.ask(request)
        except Broken as broken:
            raise broken.fault from broken
