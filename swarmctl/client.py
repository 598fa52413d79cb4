"""The Engine API over a unix socket or mTLS: requests, streams, and refusals as one sentence.

Standard library only: a command must start in tens of milliseconds.
"""

import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

API_VERSION = "v1.44"
CONFLICT = 409
ATTEMPTS = 5  # at a change that others come between
PAUSE = 0.05  # s, before the second one; twice as long each time
DEFAULT_HOST = "unix:///run/swarmd/swarmd.sock"


class Refusal(Exception):
    """One sentence for the user.  status: the HTTP status, or 0 when nothing answered."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def host_from(flag: str | None) -> str:
    return flag or os.environ.get("SWARMCTL_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST


class Client:
    def __init__(self, host: str) -> None:
        self.host = host

    def get(self, path: str, **query: object) -> Any:
        return self._json("GET", path, query)

    def post(self, path: str, body: object = None, **query: object) -> Any:
        return self._json("POST", path, query, body)

    def revise(self, kind: str, name: str, edit: Callable[[Any], Any], **query: object) -> tuple[Any, Any]:
        """Give an object the spec that `edit` makes of it; return the object as it was, and the answer.

        Managers write to objects too: if one did since it was read, it is read and edited again.
        """
        for attempt in range(ATTEMPTS - 1):
            try:
                return self._revise(kind, name, edit, query)
            except Refusal as refusal:
                if refusal.status != CONFLICT:
                    raise
            time.sleep(PAUSE * 2**attempt)
        return self._revise(kind, name, edit, query)

    def _revise(self, kind: str, name: str, edit: Callable[[Any], Any], query: Mapping[str, object]) -> tuple[Any, Any]:
        current = self.get(f"/{kind}/{segment(name)}")
        spec, version = edit(current), current["Version"]["Index"]
        return current, self.post(f"/{kind}/{current['ID']}/update", spec, version=version, **query)

    def delete(self, path: str, **query: object) -> Any:
        return self._json("DELETE", path, query)

    def upload(self, path: str, content: IO[bytes], **query: object) -> Iterator[Any]:
        """POST a stream; yield the JSON objects of the answer."""
        headers = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
        response = self._send("POST", path, query, content, headers)
        for line in response:
            if line.strip():
                yield json.loads(line)

    def stream(self, path: str, **query: object) -> http.client.HTTPResponse:
        return self._send("GET", path, query)

    def _json(self, method: str, path: str, query: Mapping[str, object], body: object = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        headers = {} if content is None else {"Content-Type": "application/json"}
        response = self._send(method, path, query, content, headers)
        answer = response.read()
        return json.loads(answer) if answer.strip() else None

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        connection = self._connection()
        words = {name: _words(value) for name, value in query.items() if value is not None}
        target = f"/{API_VERSION}{path}" + (f"?{urlencode(words, doseq=True)}" if words else "")
        try:
            connection.request(method, target, body, dict(headers or {}), encode_chunked=hasattr(body, "read"))
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as problem:
            raise Refusal(self._unreachable(problem)) from None
        if response.status >= 400:
            raise Refusal(_message(response), response.status)
        return response

    def _connection(self) -> http.client.HTTPConnection:
        url = urlsplit(self.host)
        if url.scheme == "unix":
            return UnixConnection(url.path)
        if url.scheme == "tcp":
            return _tls_connection(url.hostname or "localhost", url.port or 2376)
        raise Refusal(f"host {self.host}: use unix:///path/to/socket or tcp://address:port")

    def _unreachable(self, problem: Exception) -> str:
        if isinstance(problem, PermissionError):
            return f"may not open {self.host}: run this as root, or as a member of the socket's group"
        if isinstance(problem, FileNotFoundError | ConnectionRefusedError):
            return (
                f"no swarmd answers at {self.host}: is it running? ('systemctl status swarmd', or name another with -H)"
            )
        return f"{self.host}: {str(problem) or type(problem).__name__}"


def _tls_connection(host: str, port: int) -> http.client.HTTPConnection:
    """mTLS with Docker's environment: DOCKER_CERT_PATH holds ca.pem, cert.pem and key.pem."""
    import ssl

    directory = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    try:
        context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
        context.load_cert_chain(str(directory / "cert.pem"), str(directory / "key.pem"))
    except OSError as problem:
        raise Refusal(f"tcp://{host}:{port} needs ca.pem, cert.pem and key.pem in {directory}: {problem}") from None
    return http.client.HTTPSConnection(host, port, context=context)


def _words(value: object) -> str | list[str]:
    """A parameter's text; those of a list, for a parameter that is repeated."""
    return [*map(str, value)] if isinstance(value, list) else _text(value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _message(response: http.client.HTTPResponse) -> str:
    answer = response.read().decode(errors="replace")
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.strip() or f"HTTP {response.status} {response.reason}"


def segment(text: str) -> str:
    """A name as one part of a path."""
    return quote(text, safe="")
