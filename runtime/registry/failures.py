"""What went wrong at a registry, as one sentence that names it and says what to do."""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec

from swarmd.runtime.errors import (
    Corrupt,
    Denied,
    Invalid,
    NotFound,
    RuntimeFault,
    Unauthorized,
    Unavailable,
    Unsupported,
)

_LONGEST_MESSAGE = 300
_CERTIFICATES = {  # parts of what OpenSSL says, and what helps
    "expired": "have it renewed",
    "not yet valid": "check the clocks of both hosts",
    "mismatch": "call the registry what its certificate does",
}


class Broken(Exception):
    """The connection failed; fault is what to say when nothing else helps.

    again: whether another try may fare better; met: whether something listened there; plain: it did, but without TLS.
    """

    def __init__(self, fault: RuntimeFault, again: bool = True, met: bool = True, plain: bool = False) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.again = again
        self.met = met
        self.plain = plain


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request is about, for its sentences: "registry HOST has no MATTER"."""

    host: str
    matter: str  # "image demo:1", "layer sha256:..."
    repository: str = ""
    username: str = ""
    action: str = "pull"


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: tuple[_Error, ...] = ()
    details: str = ""  # token servers have this instead


def connection(error: BaseException, host: str, https: bool, certificates: str) -> Broken:
    """Explain an exception of aiohttp's; certificates is the directory for this host's authority."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            text = f"registry {host} can't be found: no address is known for that name (check its spelling and the DNS)"
            return Broken(Unavailable(text), met=False)
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
            todo = next((todo for part, todo in _CERTIFICATES.items() if part in reason.lower()), "")
            todo = todo or f"put its authority in {certificates}/ca.crt"
            text = f"the certificate of registry {host} is not trusted ({cleaned(reason)}): {todo}"
            return Broken(Unavailable(f"{text}, or declare it an insecure registry"), again=False)
        case aiohttp.ClientSSLError() if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER_FAILURE" in str(error):
            text = f"registry {host} answers without TLS, where https is expected: declare it an insecure registry"
            return Broken(Unavailable(f"{text} if that is meant"), again=False, plain=True)
        case aiohttp.ClientSSLError():
            text = f"registry {host} and we could not agree on TLS ({cleaned(str(error.os_error))})"
            return Broken(
                Unavailable(f"{text}: check its version of TLS, and the certificates in {certificates}"), False
            )
        case aiohttp.ClientProxyConnectionError():
            return Broken(Unavailable(f"the proxy for registry {host} can't be reached: {_plain(error)}"), met=False)
        case aiohttp.ClientHttpProxyError():
            text = f"the proxy for registry {host} refused with status {error.status}: {cleaned(error.message)}"
            return Broken(Unavailable(text), again=False)
        case aiohttp.ConnectionTimeoutError():
            text = f"registry {host} can't be reached: no connection in time (check its address and the firewall)"
            return Broken(Unavailable(text), met=False)
        case TimeoutError():
            return Broken(Unavailable(f"registry {host} went silent in the middle of an answer: try again later"))
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            text = f"registry {host} refused the connection: check that it runs, and its port"
            return Broken(Unavailable(text), met=False)
        case aiohttp.ClientConnectorError():
            text = f"registry {host} can't be reached: {_plain(error.os_error)} (check its address and the network)"
            return Broken(Unavailable(text), met=False)
        case aiohttp.ClientOSError() if https and _alerted(error):
            text = f"registry {host} ended the TLS connection ({_plain(error)}): it may want a certificate of a client"
            return Broken(Unavailable(f"{text}, {certificates}/client.cert and client.key"), again=False)
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | OSError():
            return Broken(Unavailable(f"registry {host} broke the connection off in the middle: try again later"))
        case _:
            text = f"registry {host} answered with something that is not HTTP: {_plain(error)}"
            return Broken(Unavailable(text), again=False)


def answer(status: int, headers: Mapping[str, str], body: bytes, subject: Subject) -> RuntimeFault:
    """Explain an answer that is not what was asked for."""
    host, matter = subject.host, subject.matter
    code, message = _first(body)
    said = f" ({message})" if message else ""
    match status:
        case 401 if not subject.username:
            place = f" for {subject.repository}" if subject.repository else ""
            hint = "no such repository, or it is private" if subject.repository else "it serves nobody unknown"
            return Unauthorized(f"registry {host} wants a login{place} ({hint}): log in with swarmctl login {host}")
        # A token can be good and not be for this; where a password goes along each time, it is that.
        case 401 if not subject.repository or headers.get("WWW-Authenticate", "").lower().startswith("basic"):
            text = f"registry {host} refused user {subject.username}: the username or password is wrong{said}"
            return Unauthorized(f"{text}; log in again with swarmctl login {host}")
        case 401 | 403:
            who = f"user {subject.username}" if subject.username else "without a login one"
            place = subject.repository or matter
            return Denied(f"{who} may not {subject.action} {place} at registry {host}{said}: ask its owner for access")
        case 404 if code == "NAME_UNKNOWN":
            return NotFound(f"registry {host} has no repository {subject.repository}: check its name")
        case 400 | 404 if code == "MANIFEST_BLOB_UNKNOWN":
            return Invalid(f"registry {host} lacks a part of {matter}{said}: push its layers first")
        case 400 if code == "DIGEST_INVALID":
            text = f"registry {host} got other bytes than {matter}{said}: they were changed on their way"
            return Corrupt(f"{text}, or are damaged here")
        case 404 if code == "BLOB_UNKNOWN":
            return NotFound(f"registry {host} has no {matter}: the image is incomplete there, push it again")
        case 404:
            return NotFound(f"registry {host} has no {matter}: check its name")
        case 405:
            return Unsupported(f"registry {host} doesn't allow this for {matter}{said}: its administrator can")
        case 413:
            return Invalid(f"{matter} is larger than registry {host} or a proxy before it takes{said}")
        case 429:
            return _later(f"registry {host} limits the rate of requests{said}: {_when(headers)}", headers)
        case _ if 200 <= status < 300:
            text = f"registry {host} answered {matter} with status {status}, as no registry does"
            return Invalid(f"{text}: check its name, and what proxy is before it")
        case _ if 300 <= status < 400:
            return Unavailable(f"registry {host} sent the request for {matter} elsewhere too often, or to no address")
        case _ if 400 <= status < 500:
            return Invalid(f"registry {host} refused {matter} with status {status}{said or ': it gave no reason'}")
        case _:
            return _later(f"registry {host} failed with status {status} on {matter}{said}: try again later", headers)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until a registry wants to be asked again, by Retry-After or its rate limit's headers; None if unsaid."""
    for name in ("Retry-After", "RateLimit-Reset", "X-RateLimit-Reset"):
        text = headers.get(name, "").strip()
        if text.isascii() and text.isdigit() and len(text) < 12:
            seconds = float(text)
            # Some say how long, some say when.
            return seconds if seconds < 10**9 else max(0.0, seconds - time.time())
        if text and name == "Retry-After":
            try:
                return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
            except (ValueError, TypeError, OverflowError):
                continue
    return None


def cleaned(text: str) -> str:
    """A registry's own words, on one line and no longer than they need be."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}..."


def _alerted(error: BaseException) -> bool:
    """Whether the other side gave a reason of TLS for going: with TLS 1.3 it comes after the handshake."""
    reason = error.__cause__ or error
    return isinstance(reason, ssl.SSLError) and "ALERT" in str(reason).upper()


def _later(text: str, headers: Mapping[str, str]) -> Unavailable:
    fault = Unavailable(text)
    fault.retry_after = retry_after(headers)
    return fault


def _when(headers: Mapping[str, str]) -> str:
    seconds = retry_after(headers)
    if seconds is None or seconds > 10**7:
        return "try again later, or log in for a higher limit"
    clock = time.strftime("%H:%M:%S", time.gmtime(time.time() + seconds))
    return f"try again in {seconds:.0f} s (at {clock} UTC), or log in for a higher limit"


def _first(body: bytes) -> tuple[str, str]:
    """Code and message of an error in a registry's form; any other body says nothing that can be shown."""
    try:
        found = msgspec.json.decode(body, type=_Errors)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", ""
    if not found.errors:
        return "", cleaned(found.details)
    return cleaned(found.errors[0].code), cleaned(found.errors[0].message)


def _plain(error: BaseException | None) -> str:
    if isinstance(error, OSError) and error.strerror:
        return cleaned(error.strerror)
    return cleaned(str(error)) or type(error).__name__
