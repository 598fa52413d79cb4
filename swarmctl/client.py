"""The Engine API: requests, streams, and refusals as one sentence.

Standard library only: a command must start in tens of milliseconds.
"""

from __future__ import annotations

import os
import sys
import time

from swarmd.swarmctl import dial, http
from swarmd.swarmctl.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket
    from collections.abc import Callable, Mapping
    from typing import IO, Any

API_VERSION = "v1.50"
CONFLICT = 409
ATTEMPTS = 5  # at a change that others come between
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
PAUSE = 0.05  # s, before the second one; twice as long each time


class Refusal(Exception):
    """One sentence for the user.  status: the HTTP status, or 0 when nothing answered; code: how the command ends."""

    def __init__(self, message: str, status: int = 0, code: int = 1) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Client:
    """debug: tell standard error of every request; warnings: of the daemon's warnings."""

    def __init__(self, endpoint: dial.Endpoint, *, debug: bool = False, warnings: bool = True) -> None:
        self.endpoint = endpoint
        self._debug = debug
        self._idle: list[Socket] = []  # connections whose last answer is read
        self._warnings = warnings

    @property
    def host(self) -> str:
        return self.endpoint.host

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def get(self, path: str, headers: Mapping[str, str] | None = None, /, **query: object) -> Any:
        return self._json("GET", path, query, headers=headers)

    def post(self, path: str, body: object = None, headers: Mapping[str, str] | None = None, /, **query: object) -> Any:
        return self._json("POST", path, query, body, headers)

    def revise(
        self,
        kind: str,
        name: str,
        edit: Callable[[Any], Any],
        headers: Mapping[str, str] | None = None,
        /,
        **query: object,
    ) -> tuple[Any, Any]:
        """Give an object the spec that `edit` makes of it; return the object as it was, and the answer.

        kind "swarm", of which there is one, has no name.
        Managers write to objects too: if one did since it was read, it is read and edited again.
        """
        for attempt in range(ATTEMPTS - 1):
            try:
                return self._revise(kind, name, edit, headers, query)
            except Refusal as refusal:
                if refusal.status != CONFLICT:
                    raise
            time.sleep(PAUSE * 2**attempt)
        return self._revise(kind, name, edit, headers, query)

    def _revise(
        self,
        kind: str,
        name: str,
        edit: Callable[[Any], Any],
        headers: Mapping[str, str] | None,
        query: Mapping[str, object],
    ) -> tuple[Any, Any]:
        current = self.get(f"/{kind}/{segment(name)}" if name else f"/{kind}")
        spec, version = edit(current), current["Version"]["Index"]
        there = f"/{kind}/{current['ID']}" if name else f"/{kind}"
        return current, self.post(f"{there}/update", spec, headers, version=version, **query)

    def delete(self, path: str, /, **query: object) -> Any:
        return self._json("DELETE", path, query)

    def head(self, path: str, /, **query: object) -> Mapping[str, str]:
        response = self._send("HEAD", path, query)
        response.read()
        return response.headers

    def upload(self, path: str, content: IO[bytes], /, **query: object) -> http.Response:
        """POST a stream, and read the answer as it comes."""
        headers = {"Content-Type": "application/x-tar"}
        return self._send("POST", path, query, http.chunks(content), headers)  # type: ignore[arg-type]

    def put(self, path: str, content: http.Body, /, **query: object) -> None:
        """PUT an archive."""
        self._send("PUT", path, query, content, {"Content-Type": "application/x-tar"}).read()

    def stream(self, path: str, /, **query: object) -> http.Response:
        return self._send("GET", path, query)

    def follow(self, path: str, headers: Mapping[str, str] | None = None, /, **query: object) -> http.Response:
        """POST, and read the answer as it comes; it has begun, so the daemon listens."""
        return self._send("POST", path, query, None, headers)

    def send(self, path: str, body: http.Body, headers: Mapping[str, str], /, **query: object) -> http.Response:
        """POST what `headers` tell about, and read the answer as it comes."""
        return self._send("POST", path, query, body, headers)

    def hijack(self, path: str, body: object = None, /, **query: object) -> http.Response:
        """POST, and have the connection itself from then on: `sock` to write to, `reader` to read from."""
        content = None if body is None else dumps(body).encode()
        headers = {"Upgrade": "tcp", "Connection": "Upgrade"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        return self._send("POST", path, query, content, headers)

    def warn(self, answer: Any) -> None:
        for warning in (answer or {}).get("Warnings") or () if self._warnings else ():
            print(f"WARNING: {warning}", file=sys.stderr)

    def connect(self) -> Socket:
        """A bare connection."""
        try:
            return dial.dial(self.endpoint)
        except dial.DialError as problem:
            raise Refusal(str(problem)) from None
        except OSError as problem:
            raise Refusal(self._unreachable(problem)) from None

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        content = None if body is None else dumps(body).encode()
        of_body = {} if content is None else {"Content-Type": "application/json"}
        response = self._send(method, path, query, content, {**(headers or {}), **of_body})
        answer = response.read()
        return loads(answer) if answer.strip() else None

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: http.Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.Response:
        version = os.environ.get("DOCKER_API_VERSION")
        target = f"/{'v' + version if version else API_VERSION}{path}{_query(query)}"
        started = time.monotonic()
        response = self._answer(method, target, body, headers or {})
        if self._debug:
            spent = (time.monotonic() - started) * 1000
            print(f"swarmctl: {method} {target}: {response.status} after {spent:.1f} ms", file=sys.stderr)
        if response.status >= 400:
            raise Refusal(_message(response), response.status)
        return response

    def _answer(self, method: str, target: str, body: http.Body, headers: Mapping[str, str]) -> http.Response:
        can_repeat = body is None or isinstance(body, bytes)
        sock = self._kept() if can_repeat else None
        try:
            if sock is not None:
                try:
                    return http.request(sock, method, target, body, headers, self._idle.append)
                except http.HungUp:  # the daemon had closed it meanwhile
                    sock.close()
            sock = self.connect()
            return http.request(sock, method, target, body, headers, self._idle.append)
        except OSError as problem:
            if sock is not None:
                sock.close()
            raise Refusal(self._unreachable(problem)) from None

    def _kept(self) -> Socket | None:
        try:
            return self._idle.pop()
        except IndexError:  # not asked before: other threads take some, too
            return None

    def _unreachable(self, problem: Exception) -> str:
        if isinstance(problem, PermissionError):
            return f"may not open {self.host}: run this as root, or as a member of the socket's group"
        if isinstance(problem, FileNotFoundError | ConnectionRefusedError):
            return (
                f"no swarmd answers at {self.host}: is it running? ('systemctl status swarmd', or name another with -H)"
            )
        return f"{self.host}: {str(problem) or type(problem).__name__}"


def _query(query: Mapping[str, object]) -> str:
    """'?a=b&c=d' of what is not None; a list's name is repeated."""
    words = [
        f"{segment(name)}={segment(_text(one))}"
        for name, value in query.items()
        if value is not None
        for one in (value if isinstance(value, list) else (value,))
    ]
    return f"?{'&'.join(words)}" if words else ""


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return dumps(value) if isinstance(value, dict) else str(value)


def _message(response: http.Response) -> str:
    answer = response.read().decode(errors="replace")
    try:
        return str(loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.strip() or f"HTTP {response.status} {response.reason}"


def segment(text: str) -> str:
    """A name as one part of a path, or of a query."""
    if text.isalnum() and text.isascii():
        return text
    return "".join(
        chr(byte) if chr(byte) in _PLAIN else f"%{byte:02X}" for byte in text.encode(errors="surrogateescape")
    )


def path_of(image: str) -> str:
    """The name of an image, whose slashes the API takes as they are."""
    return "/".join(map(segment, image.split("/")))
