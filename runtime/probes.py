"""Probes made from a container's network, without a program in it: an HTTP GET, a TCP connection, a gRPC health check.

The socket is made inside the container's network namespace and used out here: nothing of the container is run, and
nothing of it is trusted: what it answers is read up to a bound, within the probe's timeout.  A probe that names no host
tries the container's loopback, then the container's own addresses.
"""

import asyncio
import errno
import ipaddress
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from swarmd.runtime import grpc_health
from swarmd.runtime.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KINDS = ("HTTP", "TCP", "GRPC")
_URL = re.compile(r"(\w+)://([0-9.]+|localhost|\[[0-9a-fA-F:.]+\])?(?::(\d{1,5}))?(/[\x21-\x22\x24-\x7e]*)?")
_FORMS = {
    "HTTP": "http://[ADDRESS]:PORT/PATH",
    "TCP": "tcp://[ADDRESS]:PORT",
    "GRPC": "grpc://[ADDRESS]:PORT[/SERVICE]",
}
_OUTPUT = 4096
_LONGEST_HEAD = 65536

# Makes a socket of a family in the container's network.
OpenSocket = Callable[[int], Awaitable[socket.socket]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ProbeFailed(Exception):
    """The container's program was asked, and does not do well; says why."""


class Target(NamedTuple):
    """host: "" for the container itself; path: with its slash, "" for none."""

    kind: str
    host: str
    port: int
    path: str


def target(test: Sequence[str]) -> Target:
    """Read a probe of one of KINDS. Raises Invalid."""
    kind, *urls = test
    match = _URL.fullmatch(urls[0]) if len(urls) == 1 else None
    scheme, host, port, path = match.groups(default="") if match else ("", "", "", "")
    number = int(port or (80 if kind == "HTTP" else 0))
    if scheme != kind.lower() or not 0 < number < 65536 or (kind == "TCP" and path):
        raise Invalid(f"health check {' '.join(test)!r} is not of the form {kind} {_FORMS[kind]}")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        return Target(kind, str(ipaddress.ip_address(host)) if host else "", number, path)
    except ValueError:
        raise Invalid(f"health check {' '.join(test)!r}: {host} is not an address") from None


async def run(
    test: Sequence[str], timeout: float, open_socket: OpenSocket, addresses: Sequence[str]
) -> tuple[int, str]:
    """Return 0, or 1 for unhealthy and -1 for no answer within timeout seconds, and what there is to say of it.

    addresses: the container's own.
    """
    try:
        wanted = target(test)
        async with asyncio.timeout(timeout):
            return 0, await _ask(wanted, open_socket, addresses)
    except TimeoutError:
        return -1, f"health check {test[1]} timed out after {timeout:g} s"
    except (ProbeFailed, Invalid) as problem:
        return 1, str(problem)
    except OSError as error:
        return 1, f"health check {test[1]}: {os.strerror(error.errno or errno.EIO).lower()}"


async def _ask(wanted: Target, open_socket: OpenSocket, addresses: Sequence[str]) -> str:
    async with _connected(wanted, open_socket, addresses) as streams:
        if wanted.kind == "TCP":
            return ""
        try:
            if wanted.kind == "HTTP":
                return await _get(wanted, *streams)
            status = await grpc_health.check(wanted.path.strip("/"), *streams)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            what = "HTTP" if wanted.kind == "HTTP" else "gRPC"
            raise ProbeFailed(f"port {wanted.port} did not answer as {what} does") from None
    if status != "SERVING":
        raise ProbeFailed(status)
    return status


@asynccontextmanager
async def _connected(wanted: Target, open_socket: OpenSocket, addresses: Sequence[str]) -> "AsyncIterator[Streams]":
    hosts = [wanted.host] if wanted.host else ["127.0.0.1", *addresses]
    while True:
        host = hosts.pop(0)
        made = await open_socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, (host, wanted.port))
            reader, writer = await asyncio.open_connection(sock=made, limit=_LONGEST_HEAD)
            break
        except ConnectionRefusedError:
            made.close()
            if not hosts:
                raise
        except BaseException:
            made.close()
            raise
    try:
        yield reader, writer
    finally:
        writer.transport.abort()  # what it still has to say is of no use, and must not keep a socket of its network


async def _get(wanted: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host or "localhost"
    head = f"GET {wanted.path or '/'} HTTP/1.1\r\nHost: {host}:{wanted.port}\r\n"
    writer.write(f"{head}User-Agent: swarmd-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode())
    status = 100
    while 100 <= status < 200:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
        if not first.startswith("HTTP/1."):
            raise ValueError(first)
        status = int(first.split(" ", 2)[1])
    fields = {name.lower().strip(): value.strip().lower() for name, _, value in (line.partition(":") for line in lines)}
    chunked = fields.get("transfer-encoding", "").endswith("chunked")
    length = int(fields.get("content-length", _OUTPUT))
    body = await (_chunks(reader) if chunked else _at_most(reader, min(length, _OUTPUT)))
    text = body.decode(errors="replace")
    if not 200 <= status < 400:
        raise ProbeFailed(f"answered {first.split(' ', 1)[1]}{f': {text}' if text else ''}")
    return text


async def _at_most(reader: asyncio.StreamReader, size: int) -> bytes:
    found = b""
    while len(found) < size and (data := await reader.read(size - len(found))):
        found += data
    return found


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """The beginning of a chunked body, RFC 9112 section 7.1."""
    found = b""
    while len(found) < _OUTPUT and (size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)):
        found += await _at_most(reader, min(size, _OUTPUT - len(found)))
        if len(found) < _OUTPUT:
            await reader.readexactly(2)
    return found
