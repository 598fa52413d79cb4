"""A daemon that answers what a test tells it to, and remembers what it was asked."""

import contextlib
import json
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    handler: "Handler"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


# An answer: what to send as JSON, a status alone, or a function that answers by itself.
Answer = Callable[[Asked], None] | int | dict[str, Any] | list[Any]


@dataclass
class Daemon:
    """answers: 'GET /containers/{}/json' by method and path, without the version; {} stands for any one word."""

    socket: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def said(self, start: str) -> list[Asked]:
        return [one for one in self.asked if f"{one.method} {one.path}".startswith(start)]

    def answer(self, request: Asked) -> None:
        self.asked.append(request)
        line = f"{request.method} {request.path}"
        for pattern, answer in self.answers.items():
            if re.fullmatch(re.escape(pattern).replace(r"\{\}", "[^/]+"), line):
                if isinstance(answer, int):
                    request.handler.reply(answer, {"message": f"{line} is refused"} if answer >= 400 else None)
                elif callable(answer):
                    answer(request)
                else:
                    request.handler.reply(200, answer)
                return
        request.handler.reply(404, {"message": f"no {line} here"})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    daemon: Daemon

    def _any(self) -> None:
        url = urlsplit(self.path)
        path = re.sub(r"^/v[\d.]+", "", url.path)
        self.daemon.answer(Asked(self.command, path, dict(parse_qsl(url.query)), self._body(), self))

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _any

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def reply(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        data = b"" if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def begin(self) -> None:
        """The head of an answer whose content comes later, in chunks."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    def hijack(self) -> socket.socket:
        """The connection itself; reading goes through `rfile`, which may hold what came with the request."""
        self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        self.close_connection = True
        connection: socket.socket = self.connection
        return connection

    def log_message(self, *words: object) -> None:
        pass


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = super().get_request()
        return connection, ("local", 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes away


@contextlib.contextmanager
def daemon_at(path: Path) -> Iterator[Daemon]:
    daemon = Daemon(path)
    with _Server(str(path), type("Bound", (Handler,), {"daemon": daemon})) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield daemon
        server.shutdown()


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data
