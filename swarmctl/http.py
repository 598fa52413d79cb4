"""HTTP/1.1 over a socket that is already connected: one request, its answer, and the bare stream after an upgrade.

Our own, because http.client brings the whole of `email` with it, which takes longer than most commands do, and because
attaching needs the socket itself.  Errors are OSError: the caller knows which daemon it was.
"""

import io
import socket
from collections.abc import Iterable, Iterator, Mapping

_CHUNK = 65536


class ProtocolError(OSError):
    """What came is no HTTP."""


class Response:
    """An answer whose body is read from here; lines by iterating."""

    def __init__(self, sock: socket.socket, method: str) -> None:
        self.sock = sock
        self.reader: io.BufferedReader = sock.makefile("rb", _CHUNK)  # type: ignore[assignment]
        line = self.reader.readline(_CHUNK).decode("latin-1").rstrip("\r\n")
        version, _, rest = line.partition(" ")
        code, _, self.reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not code.isdigit():
            raise ProtocolError(f"it answered {line!r}" if line else "it hung up without an answer")
        self.status = int(code)
        self.headers: dict[str, str] = {}
        while line := self.reader.readline(_CHUNK).decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length")
        has_body = method != "HEAD" and self.status not in (204, 304) and self.status != 101
        # What is left of the body, or of the present chunk; None: until the connection ends.
        self._left: int | None = 0 if not has_body or self._chunked else None if length is None else int(length)
        self._ended = not has_body

    def read1(self, most: int = _CHUNK) -> bytes:
        """What is there, after waiting for at least one byte; b"" at the end, when the connection is closed too."""
        if self._chunked and not self._ended and self._left == 0:
            self._next_chunk()
        if self._ended or self._left == 0:
            self.close()
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
                self.reader.readline(_CHUNK)  # the empty line after a chunk
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

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        self.reader.close()
        self.sock.close()

    def _next_chunk(self) -> None:
        line = self.reader.readline(_CHUNK)
        try:
            self._left = int(line.partition(b";")[0], 16)
        except ValueError:
            raise ProtocolError("it hung up in the middle of an answer") from None
        if self._left == 0:
            while self.reader.readline(_CHUNK).strip():
                pass  # trailers
            self._ended = True


Body = bytes | Iterable[bytes] | None


def request(sock: socket.socket, method: str, target: str, body: Body, headers: Mapping[str, str]) -> Response:
    """Send a request and return its answer once its head is there."""
    lines = [f"{method} {target} HTTP/1.1", "Host: swarmd", "User-Agent: swarmctl"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if "Upgrade" not in headers:
        lines.append("Connection: close")
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
    return Response(sock, method)


def chunks(content: io.BufferedIOBase | io.RawIOBase) -> Iterator[bytes]:
    """A file's bytes, as a body."""
    while data := content.read(_CHUNK):
        yield data
