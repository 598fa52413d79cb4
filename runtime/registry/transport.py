"""One request to a host over the right TLS and proxy, with redirects; whether to ask again is decided in client.py.

What authorises a request never goes to another host than the one it is for, nor from https down to http.
"""

import urllib.request
from collections.abc import AsyncIterator
from typing import Self

import aiohttp
from yarl import URL

from swarmd.runtime.errors import Invalid, Unavailable
from swarmd.runtime.registry.failures import Broken, connection
from swarmd.runtime.registry.settings import Endpoint, Settings
from swarmd.runtime.registry.trust import Trust

Body = bytes | AsyncIterator[bytes]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NO_TLS = 400  # what servers with TLS answer those without
_MOST_REDIRECTS = 5
_BUFFER = 1 << 20  # bytes of an answer kept for a reader that is behind; a full one slows the sender down
_CHECKING = 10
_LONGEST_FIELD = 32 << 10  # bytes: signed addresses of storage are long
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "swarmd"}


class Transport:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._trust = Trust(settings)
        self._speaks: dict[str, str] = {}  # the scheme that a host answered
        self._met: set[str] = set()
        patience = settings.patience
        self._timeout = _timeout(patience.connect, patience.silence)
        # A registry reads all of an upload once more before it says that it has it.
        self._put_timeout = _timeout(patience.connect, patience.silence * _CHECKING)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            max_field_size=_LONGEST_FIELD,
            read_bufsize=_BUFFER,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def open(
        self, endpoint: Endpoint, method: str, place: str | URL, headers: dict[str, str], body: Body = b""
    ) -> aiohttp.ClientResponse:
        """The answer of whichever scheme the host speaks; place is a path of the endpoint's, or a whole address.

        Raises Broken if there is none, and Invalid if our own files for that host are of no use.
        """
        if isinstance(place, URL):
            return await self._follow(method, place, headers, body)
        known = self._speaks.get(endpoint.host)
        if known in endpoint.schemes:
            try:
                answer = await self._follow(method, endpoint.url(known, place), headers, body)
            except Broken:
                self._speaks.pop(endpoint.host, None)  # it may have changed over to TLS
                raise
            if answer.status == _NO_TLS:
                self._speaks.pop(endpoint.host, None)
            return answer
        failed: Broken | None = None
        for scheme in endpoint.schemes:
            try:
                answer = await self._follow(method, endpoint.url(scheme, place), headers, body)
            except Broken as broken:
                failed = failed if failed and failed.met and not broken.met else broken
                if not isinstance(body, bytes):
                    break
            else:
                if failed is not None and not failed.plain and answer.status == _NO_TLS:
                    answer.release()
                    break
                self._speaks[endpoint.host] = scheme
                return answer
        assert failed is not None  # an endpoint has a scheme
        raise failed

    def known(self, host: str) -> bool:
        """Whether a host has answered before, so that one that doesn't now may be starting again."""
        return host in self._met

    async def _follow(self, method: str, url: URL, headers: dict[str, str], body: Body) -> aiohttp.ClientResponse:
        for _ in range(_MOST_REDIRECTS):
            answer = await self._once(method, url, headers, body)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or method not in ("GET", "HEAD") or not location:
                return answer
            answer.release()
            target = self.joined(url, location)
            if target.origin() != url.origin():
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            url = target
        return answer

    def joined(self, url: URL, location: str) -> URL:
        """Where an answer from url points; raises Broken for what can't be gone to."""
        host = authority(url)
        try:
            target = url.join(URL(location, encoded=True))
            target.origin()
        except ValueError:
            text = f"registry {host} sent us to no address: {location[:200]!r}"
            raise Broken(Unavailable(text), again=False) from None
        if target.scheme == "http" and url.scheme == "https":
            if authority(target) == host:
                return target.with_scheme("https")  # a registry behind a proxy that does TLS for it
            if not self.settings.is_insecure(authority(target)):
                text = f"registry {host} sent us from https to {authority(target)} without TLS, which is refused"
                raise Broken(Unavailable(f"{text} unless that is declared an insecure registry"), again=False)
        return target

    async def _once(self, method: str, url: URL, headers: dict[str, str], body: Body) -> aiohttp.ClientResponse:
        host, https = authority(url), url.scheme == "https"
        try:
            context = self._trust.context(host) if https else True
        except OSError as error:
            raise Invalid(f"the certificates for registry {host} can't be read: {error}") from None
        try:
            answer = await self._session.request(
                method,
                url,
                headers=headers,
                data=body or None,
                allow_redirects=False,
                ssl=context,
                proxy=_proxy(url),
                timeout=self._put_timeout if method == "PUT" else self._timeout,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self.explained(error, url) from error
        self._met.add(host)
        return answer

    def explained(self, error: BaseException, url: URL) -> Broken:
        host = authority(url)
        return connection(error, host, url.scheme == "https", f"{self.settings.certificates[0]}/{host}")


def _timeout(connect: float, silence: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=silence)


def authority(url: URL) -> str:
    """host[:port] as written."""
    return url.raw_authority.rpartition("@")[2]


def _proxy(url: URL) -> str | None:
    """The proxy that the environment names for an address; never one for this host itself."""
    proxy = urllib.request.getproxies_environment().get(url.scheme)
    host = url.host or ""
    if not proxy or host in ("localhost", "::1") or host.startswith("127."):
        return None
    return None if urllib.request.proxy_bypass(authority(url)) else proxy
