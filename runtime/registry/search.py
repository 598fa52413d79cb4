"""Finds repositories by a word: Docker Hub's v1 search, or the catalogue of a registry that has no search."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

import msgspec

from swarmd.runtime.errors import Denied, Invalid, NotFound, Unauthorized, Unsupported
from swarmd.runtime.images import manifests
from swarmd.runtime.model import Struct
from swarmd.runtime.registry.client import Client, Request
from swarmd.runtime.registry.credentials import ANONYMOUS, Credentials
from swarmd.runtime.registry.failures import Broken, Subject
from swarmd.runtime.registry.pages import pages
from swarmd.runtime.registry.reading import read
from swarmd.runtime.registry.settings import Endpoint, is_host

DEFAULT_LIMIT = 25
LARGEST_LIMIT = 100
_FILTERS = ("is-official", "is-automated", "stars")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_LONGEST_TERM = 255


class Found(Struct, frozen=True):
    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


class _Entry(msgspec.Struct):
    name: str = ""
    description: str | None = None
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Results(msgspec.Struct):
    results: tuple[_Entry, ...] | None = None


class _Catalogue(msgspec.Struct):
    repositories: tuple[str, ...] | None = None


async def search(
    client: Client,
    term: str,
    limit: int = 0,
    filters: Mapping[str, Sequence[str]] | None = None,
    credentials: Credentials = ANONYMOUS,
) -> list[Found]:
    """At most limit repositories (0: 25); a term may begin with a registry's host. Invalid for what can't be asked."""
    if not 0 <= limit <= LARGEST_LIMIT:
        raise Invalid(f"search limit {limit} is not between 1 and {LARGEST_LIMIT}")
    limit = limit or DEFAULT_LIMIT
    checks = _checked(filters or {})
    host, word = _split(term)
    settings = client.transport.settings
    endpoint = settings.endpoint(host or settings.index)
    place = f"/v1/search?q={quote(word, safe='')}&n={limit if not checks else LARGEST_LIMIT}"
    request = Request(endpoint, "GET", place, Subject(endpoint.host, f"search for {word!r}"), credentials)
    try:
        response = await client.ask(request)
        what = f"the answer of registry {endpoint.host} to a search"
        data = await read(client.transport, response, manifests.LARGEST, what)
        entries = manifests.parse(data, _Results, what).results or ()
        found = [
            Found(
                name=entry.name,
                description=entry.description or "",
                stars=entry.star_count,
                official=entry.is_official,
                automated=entry.is_automated,
            )
            for entry in entries
        ]
    except (NotFound, Invalid, Unsupported) as error:
        if not host:
            raise
        found = await _from_catalogue(client, endpoint, word, request, error)
    except Broken as broken:
        raise broken.fault from broken
    wanted = [entry for entry in found if entry.name and all(_value(entry, name) >= at for name, at in checks)]
    return sorted(wanted, key=lambda entry: -entry.stars)[:limit]


async def _from_catalogue(
    client: Client, endpoint: Endpoint, word: str, request: Request, error: Exception
) -> list[Found]:
    what = f"the catalogue of registry {endpoint.host}"
    listing = replace(
        request,
        place="/v2/_catalog?n=1000",
        subject=Subject(endpoint.host, "catalogue to search in"),
        scopes=frozenset({"registry:catalog:*"}),
    )
    found: list[Found] = []
    try:
        async for page in pages(client, listing, what, _Catalogue):
            found += (Found(name=name) for name in page.repositories or () if word in name)
    except (NotFound, Unsupported):
        raise Unsupported(f"registry {endpoint.host} can't be searched: it has neither search nor catalogue") from error
    except (Unauthorized, Denied):
        raise
    except Broken as broken:
        raise broken.fault from broken
    return found


def _split(term: str) -> tuple[str, str]:
    """Host and word; the host is empty where Docker Hub is meant."""
    first, slash, rest = term.partition("/")
    host, word = (first, rest) if slash and (set(".:") & set(first) or first == "localhost") else ("", term)
    if host in ("docker.io", "index.docker.io"):
        host = ""
    if not word or len(word) > _LONGEST_TERM or not word.isprintable():
        raise Invalid(f"search term {term[:100]!r} is not of the form [host[:port]/]word")
    if host and not is_host(host):
        raise Invalid(f"search term {term[:100]!r} doesn't begin with a registry's host[:port]")
    return host, word.removeprefix("library/") if not host else word


def _checked(filters: Mapping[str, Sequence[str]]) -> list[tuple[str, int]]:
    checks: list[tuple[str, int]] = []
    for name, values in filters.items():
        if name not in _FILTERS:
            raise Invalid(f"search filter {name!r} is none of {', '.join(_FILTERS)}")
        for value in values:
            if name == "stars":
                if not (value.isascii() and value.isdigit() and len(value) < 10):
                    raise Invalid(f"search filter stars={value!r} is not a number")
                checks.append((name, int(value)))
            elif value.lower() not in _TRUTH:
                raise Invalid(f"search filter {name}={value!r} is neither true nor false")
            else:
                checks.append((name if _TRUTH[value.lower()] else f"not {name}", 1))
    return checks


def _value(entry: Found, check: str) -> int:
    if check == "stars":
        return entry.stars
    value = entry.official if check.endswith("official") else entry.automated
    return int(value != check.startswith("not "))
