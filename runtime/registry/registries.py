"""All registries that a daemon talks to: made once, and shared by whoever pulls, pushes, logs in or searches."""

from collections.abc import Mapping, Sequence
from typing import Self

from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import search
from swarmd.runtime.registry.client import Client
from swarmd.runtime.registry.credentials import ANONYMOUS, Credentials
from swarmd.runtime.registry.login import check_login
from swarmd.runtime.registry.repository import Repository
from swarmd.runtime.registry.settings import Settings
from swarmd.runtime.registry.transport import Transport


class Registries:
    """An asynchronous context: connections, tokens and what is known of hosts end with it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._transport = Transport(settings)
        self._client = Client(self._transport)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._transport.__aexit__()

    def repository(
        self, name: Reference, credentials: Credentials | None = None, actions: Sequence[str] = ("pull",)
    ) -> Repository:
        """The repository of a name, to be used with these rights: pull, push, delete. Nothing is asked yet."""
        return Repository(self._client, name, credentials or ANONYMOUS, actions)

    async def check_login(self, credentials: Credentials) -> str:
        """See login.py."""
        return await check_login(self._client, credentials)

    async def search(
        self,
        term: str,
        limit: int = 0,
        filters: Mapping[str, Sequence[str]] | None = None,
        credentials: Credentials | None = None,
    ) -> list[search.Found]:
        """See search.py."""
        return await search.search(self._client, term, limit, filters, credentials or ANONYMOUS)
