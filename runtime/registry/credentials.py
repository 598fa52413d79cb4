"""Who is asking: credentials come with each call, and nothing here keeps them."""

import base64
import binascii
from typing import Any

import msgspec

from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import Struct

_LARGEST = 256 << 10  # bytes of a header


class Credentials(Struct, frozen=True):
    """A name and password, an identity token from an earlier login, or a token for the registry itself.

    server is the registry they are for; empty: whichever the call names.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token or self.registry_token)

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, server={self.server!r})"  # secrets never reach a log

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS = Credentials()


class _Header(msgspec.Struct):
    username: str | None = None
    password: str | None = None
    auth: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None
    serveraddress: str | None = None


def credentials_from_header(value: str | None) -> Credentials:
    """Read X-Registry-Auth of the Engine API: base64url of JSON; absent or empty is anonymous, Invalid if malformed."""
    found = _decoded(value, _Header | None, "X-Registry-Auth")
    return _credentials(found) if found else ANONYMOUS


def credentials_by_registry(value: str | None) -> dict[str, Credentials]:
    """Read X-Registry-Config, which a build brings: base64url of a JSON object with credentials by server."""
    found = _decoded(value, dict[str, _Header] | None, "X-Registry-Config")
    return {server: _credentials(header) for server, header in (found or {}).items()}


def credentials_from_json(data: bytes) -> Credentials:
    """Read the body of POST /auth; Invalid if malformed."""
    try:
        return _credentials(msgspec.json.decode(data[: _LARGEST + 1], type=_Header))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Invalid("the body of a login is not a JSON object with username, password and serveraddress") from None


def _decoded(value: str | None, kind: Any, name: str) -> Any:
    if not value:
        return None
    if len(value) > _LARGEST:
        raise Invalid(f"the {name} header has {len(value)} characters: more than the {_LARGEST} it may have")
    bare = value.rstrip("=")
    try:
        return msgspec.json.decode(base64.b64decode(bare + "=" * (-len(bare) % 4), b"-_", validate=True), type=kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError):
        raise Invalid(f"the {name} header is not credentials in JSON in the form of base64url") from None


def _credentials(found: _Header) -> Credentials:
    username, password = found.username or "", found.password or ""
    if found.auth and not username:
        try:
            username, _, password = base64.b64decode(found.auth, validate=True).decode().partition(":")
        except ValueError:
            raise Invalid("the field auth of the credentials is not the base64 form of user:password") from None
    return Credentials(
        username=username,
        password=password,
        identity_token=found.identitytoken or "",
        registry_token=found.registrytoken or "",
        server=found.serveraddress or "",
    )
