"""Tries credentials out, for `login`."""

from dataclasses import replace

from swarmd.runtime.errors import Invalid, Unavailable
from swarmd.runtime.registry.client import Client, Request
from swarmd.runtime.registry.credentials import Credentials
from swarmd.runtime.registry.failures import Broken, Subject
from swarmd.runtime.registry.retries import persist
from swarmd.runtime.registry.settings import is_host

_DEFAULT_SERVERS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


async def check_login(client: Client, credentials: Credentials) -> str:
    """An identity token to keep in place of the password, empty if the registry gives none.

    Raises Unauthorized if the registry doesn't believe them, and other faults if it can't be asked.
    """
    if not credentials:
        raise Invalid("a login takes a username and a password, or a token")
    endpoint = client.transport.settings.origin(server_domain(credentials.server))
    base = Request(endpoint, "GET", "/v2/", Subject(endpoint.host, "API"))
    try:
        async with await persist(client.transport, endpoint, "GET", "/v2/", {}) as response:
            challenge = client.keys.challenged(endpoint, response.headers) if response.status == 401 else None
            if response.status == 200:
                return ""  # it serves everybody
        if challenge is None:
            raise Unavailable(f"registry {endpoint.host} wants a login of a kind that is not known here")
        given = ""
        subject = replace(base.subject, username=credentials.username or "<token>")
        if challenge.scheme == "bearer" and not credentials.registry_token:
            token = await client.keys.fetch(challenge, endpoint, credentials, frozenset(), subject, offline=True)
            given = token.refresh_token or ""
            credentials = Credentials(registry_token=token.value)
        (await client.ask(replace(base, credentials=credentials))).release()
    except Broken as broken:
        raise broken.fault from broken
    return given


def server_domain(server: str) -> str:
    """The domain that images of a registry begin with, from what a login calls it: an address or a host."""
    host = server.rpartition("://")[2].partition("/")[0]
    if not server or host in _DEFAULT_SERVERS:
        return "docker.io"
    if not is_host(host):
        raise Invalid(f"registry {server[:300]!r} is not of the form host[:port]")
    return host
