"""HTTP/1.1 over a socket that is already connected: one request, its answer, and the bare stream after an upgrade.

Our own, because http.client brings the whole of `email` with it, which takes longer than most commands do, and because
attaching needs the socket itself.  Errors are OSError: the caller knows which daemon it was.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from _socket import socket as Socket
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Body = bytes | Iterable[bytes] | None

_CHUNK = 65536


class ProtocolError(OSError):
    """What came is no HTTP."""


class HungUp(ProtocolError):
    """Nothing came."""


class Reader:
    """Reads of a socket what was asked for, and keeps what came with it."""

    def __init__(self, sock: Socket) -> None:
        self._sock = sock
        self._pending = b""

    @property
    def is_empty(self) -> bool:
        return not self._pending

    def line(self) -> bytes:
        """With its end; without one where the connection or 64 KiB end."""
        while (end := self._pending.find(b"\n")) < 0 and len(self._pending) < _CHUNK:
            data = self._sock.recv(_CHUNK)
            if not data:
                return self._take(len(self._pending))
            self._pending += data
        return self._take(end + 1 if end >= 0 else _CHUNK)

    def read1(self, most: int) -> bytes:
        """What is there, after waiting for at least one byte; b"" at the end."""
        return self._take(most) if self._pending else self._sock.recv(most)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, or fewer at the end."""
        parts = []
        while size:
            data = self.read1(min(size, _CHUNK))
            if not data:
                break
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _take(self, most: int) -> bytes:
        taken, self._pending = self._pending[:most], self._pending[most:]
        return taken


class Response:
    """An answer whose body is read from here; lines by iterating.

    keep: gets the socket once the body is read, if it may be asked again; else it is closed.
    """

    def __init__(self, sock: Socket, method: str, keep: Callable[[Socket], object]) -> None:
        self.sock = sock
        self.reader = Reader(sock)
        self._keep: Callable[[Socket], object] | None = keep
        version, _, rest = self._head_line().partition(" ")
        code, _, self.reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not code.isdigit():
            raise ProtocolError(f"it answered {f'{version} {rest}'.strip()!r}")
        self.status = int(code)
        self.headers: dict[str, str] = {}
        while line := self.reader.line().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length")
        has_body = method != "HEAD" and self.status not in (204, 304) and self.status != 101
        # What is left of the body, or of the present chunk; None: until the connection ends.
        self._left: int | None = 0 if not has_body or self._chunked else None if length is None else int(length)
        self._ended = not has_body
        if self._left is None or version != "HTTP/1.1" or self.headers.get("connection", "").lower() == "close":
            self._keep = None

    def _head_line(self) -> str:
        try:
            line = self.reader.line()
        except ConnectionResetError:
            line = b""
        if not line:
            raise HungUp("it hung up without an answer")
        return line.decode("latin-1").rstrip("\r\n")

    def read1(self, most: int = _CHUNK) -> bytes:
        """What is there, after waiting for at least one byte; b"" at the end, when the connection is given back."""
        if self._chunked and not self._ended and self._left == 0:
            self._next_chunk()
        if self._ended or self._left == 0:
            self._end()
            return b""
        data = self.reader.read1(most if self._left is None else min(most, self._left))
        if self._left is None and not data:
            self._ended = True
            self.close()
        if self._left is not None:
            if not data:
                raise ProtocolError("it hung up in the middle of an answer")
            self._left -= len(data)
            if self._chunked and self._left == 0:
                self.reader.line()  # the empty line after a chunk
        return data

    def read(self, size: int = -1) -> bytes:
        """Exactly so many bytes, unless the body ends first; all of them without a size."""
        parts: list[bytes] = []
        while size != 0:
            data = self.read1(_CHUNK if size < 0 else min(size, _CHUNK))
            if not data:
                break
            parts.append(data)
            size = size if size < 0 else size - len(data)
        return b"".join(parts)

    def __iter__(self) -> Iterator[bytes]:
        pending = b""
        while data := self.read1():
            *lines, pending = (pending + data).split(b"\n")
            yield from lines
        if pending:
            yield pending

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """What was not read of it is lost."""
        if self._keep is not _given_back:
            self.sock.close()

    def _end(self) -> None:
        if self._keep is None or not self.reader.is_empty:
            self.sock.close()
        elif self._keep is not _given_back:
            self._keep(self.sock)
            self._keep = _given_back

    def _next_chunk(self) -> None:
        line = self.reader.line()
        try:
            self._left = int(line.partition(b";")[0], 16)
        except ValueError:
            raise ProtocolError("it hung up in the middle of an answer") from None
        if self._left == 0:
            while self.reader.line().strip():
                pass  # trailers
            self._ended = True


def _given_back(sock: Socket) -> None:
    """In the place of `keep` once it was called."""


def request(
    sock: Socket,
    method: str,
    target: str,
    body: Body,
    headers: Mapping[str, str],
    keep: Callable[[Socket], object],
) -> Response:
    """Send a request and return its answer once its head is there."""
    lines = [f"{method} {target} HTTP/1.1", "Host: swarmd", "User-Agent: swarmctl"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if isinstance(body, bytes):
        lines.append(f"Content-Length: {len(body)}")
    elif body is not None:
        lines.append("Transfer-Encoding: chunked")
    elif method in ("POST", "PUT"):
        lines.append("Content-Length: 0")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    try:
        if isinstance(body, bytes):
            sock.sendall(head + body)
        else:
            sock.sendall(head)
            for part in body or ():
                if part:
                    sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            if body is not None:
                sock.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass  # it refused before it had read everything: the answer says why
    return Response(sock, method, keep)


def chunks(content: io.BufferedIOBase | io.RawIOBase) -> Iterator[bytes]:
    """A file's bytes, as a body."""
    while data := content.read(_CHUNK):
        yield data
