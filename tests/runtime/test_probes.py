"""Probes without a program in the container, against servers on loopback that answer well, badly, or never."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from swarmd.runtime import probes
from swarmd.runtime.errors import Invalid


async def plain_socket(family: int) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM)


async def probe(*test: str, timeout: float = 5.0, addresses: tuple[str, ...] = ()) -> tuple[int, str]:
    return await probes.run(test, timeout, plain_socket, addresses)


@asynccontextmanager
async def serving(answer: bytes, host: str = "127.0.0.1", hold: bool = False) -> AsyncIterator[int]:
    """Answer the first bytes of each connection, then close it."""

    served: list[asyncio.Task[None]] = []
    accepted = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(65536)
            writer.write(answer)
            if hold:
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.get_running_loop().create_task(serve(reader, writer)))
        accepted.set()

    async with await asyncio.start_server(accept, host, 0) as server:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5):
            await accepted.wait()  # the connection was made, but perhaps not accepted yet
            await asyncio.gather(*served)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nfine", (0, "fi")),
        (b"HTTP/1.0 302 Found\r\n\r\nelsewhere", (0, "elsewhere")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", (0, "")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", (0, "abcde")),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, (0, "x" * 4096)),
        (b"HTTP/1.1 503 Not Yet\r\nContent-Length: 4\r\n\r\nsoon", (1, "answered 503 Not Yet: soon")),
        (b"SSH-2.0\r\n\r\n", (1, "port {port} did not answer as HTTP does")),
        (b"HTTP/1.1 200 OK\r\nno end", (1, "port {port} did not answer as HTTP does")),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, (1, "port {port} did not answer as HTTP does")),
    ],
)
async def test_http(answer: bytes, expected: tuple[int, str]) -> None:
    async with serving(answer) as port:
        code, said = expected
        assert await probe("HTTP", f"http://:{port}/health?full=1") == (code, said.format(port=port))


async def test_what_is_refused_on_loopback_is_tried_on_the_containers_address() -> None:
    async with serving(b"", host="127.0.0.7") as port:
        assert (await probe("TCP", f"tcp://:{port}"))[0] == 1
        assert await probe("TCP", f"tcp://:{port}", addresses=("127.0.0.7",)) == (0, "")
        assert (await probe("TCP", f"tcp://127.0.0.1:{port}", addresses=("127.0.0.7",)))[0] == 1
        assert await probe("TCP", f"tcp://127.0.0.7:{port}") == (0, "")


async def test_a_server_that_says_nothing_is_given_up_on() -> None:
    async with serving(b"", hold=True) as port:
        url = f"http://:{port}/"
        assert await probe("HTTP", url, timeout=0.1) == (-1, f"health check {url} timed out after 0.1 s")


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert await probe("TCP", f"tcp://:{port}") == (1, f"health check tcp://:{port}: connection refused")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100, b""])
async def test_not_grpc(answer: bytes) -> None:
    async with serving(answer) as port:
        assert await probe("GRPC", f"grpc://:{port}") == (1, f"port {port} did not answer as gRPC does")


@pytest.mark.parametrize(
    "test",
    [
        ("HTTP",),
        ("HTTP", "https://:80/"),
        ("HTTP", "http://:80/", "more"),
        ("HTTP", "http://:80/a b"),
        ("HTTP", "http://:80/\r\nHost: x"),
        ("HTTP", "http://:0/"),
        ("HTTP", "http://:65536/"),
        ("HTTP", "http://example.com:80/"),
        ("HTTP", "http://1.2.3:80/"),
        ("TCP", "tcp://"),
        ("TCP", "tcp://:80/path"),
        ("TCP", "http://:80"),
        ("GRPC", "grpc:///service"),
    ],
)
def test_what_is_not_a_probe_is_refused(test: tuple[str, ...]) -> None:
    with pytest.raises(Invalid, match=f"is not of the form {test[0] if test else ''}|is not an address"):
        probes.target(test)


def test_targets() -> None:
    assert probes.target(("HTTP", "http://")) == ("HTTP", "", 80, "")
    assert probes.target(("HTTP", "http://localhost:8080/a?b")) == ("HTTP", "127.0.0.1", 8080, "/a?b")
    assert probes.target(("GRPC", "grpc://[::1]:50051/my.Service")) == ("GRPC", "::1", 50051, "/my.Service")
