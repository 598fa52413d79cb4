"""The docker command over mutual TLS, where each direction must end by itself."""

import asyncio
import hashlib
import os
import secrets
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from swarmd.agent.api.app import application
from swarmd.agent.api.interface import Host as About
from swarmd.agent.api.interface import Services
from swarmd.agent.listen import TlsFiles
from swarmd.agent.tls_listener import TlsListener
from tests.agent.api.fakes import FakeMembership
from tests.host.engine_host import Host

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
needs_docker = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")
EXTENSIONS = {"server": "subjectAltName=IP:127.0.0.1", "client": "extendedKeyUsage=clientAuth"}


@dataclass
class Api:
    port: int
    files: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.files / "ca.pem"))
        context.load_cert_chain(self.files / "client.pem", self.files / "client.key")
        return context

    async def docker(self, *words: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        tls = ("--tlsverify", "--tlscacert", "ca.pem", "--tlscert", "client.pem", "--tlskey", "client.key")
        process = await asyncio.create_subprocess_exec(
            "docker", "-H", f"tcp://127.0.0.1:{self.port}", *tls, *words, cwd=self.files,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
        return process.returncode or 0, out, err


async def openssl(place: Path, *words: str) -> None:
    process = await asyncio.create_subprocess_exec("openssl", *words, cwd=place, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0, words


async def certificates(place: Path) -> Path:
    place.mkdir()
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    await openssl(place, *new, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    for name, extension in EXTENSIONS.items():
        (place / "extension").write_text(extension)
        await openssl(place, *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        await openssl(
            place, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.pem", "-days", "2", "-extfile", "extension",
        )  # fmt: skip
    return place


@pytest.fixture
async def api(host: Host) -> AsyncIterator[Api]:
    place = await certificates(host.root / "certificates")
    runner = web.AppRunner(
        application(Services(host.engine, FakeMembership(), About("host1", host.root, "0.1.0"))),  # type: ignore[arg-type]
        shutdown_timeout=0.1,
    )
    await runner.setup()
    assert runner.server is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        context = TlsFiles(place / "ca.pem", place / "server.pem", place / "server.key").context()
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(TlsListener(listener, context, runner.server).run())
            yield Api(listener.getsockname()[1], place)
            await runner.cleanup()
            serving.cancel()


@needs_docker
async def test_input_that_ends_leaves_the_output_be(api: Api, host: Host) -> None:
    data = secrets.token_bytes(8 << 20)
    wanted = hashlib.sha256(data).digest()
    code, out, err = await api.docker("run", "--rm", "--network", "none", "-i", "busybox", "cat", stdin=data)
    assert (code, hashlib.sha256(out).digest(), err) == (0, wanted, b"")
    await host.start("sleep", "1000", name="web")
    code, out, err = await api.docker("exec", "-i", "web", "cat", stdin=data)
    assert (code, hashlib.sha256(out).digest(), err) == (0, wanted, b"")
    late = "cat > /dev/null; sleep 0.5; echo late; dd if=/dev/zero bs=1M count=4 2>/dev/null; echo end >&2; exit 3"
    code, out, err = await api.docker("exec", "-i", "web", "sh", "-c", late, stdin=b"input")
    assert (code, out, err) == (3, b"late\n" + bytes(4 << 20), b"end\n")
    # Input that nobody reads is no reason for an error.
    code, out, _ = await api.docker("exec", "-i", "web", "sh", "-c", "echo ok; exit 4", stdin=data)
    assert (code, out) == (4, b"ok\n")


@needs_docker
async def test_attach_and_ordinary_calls(api: Api, host: Host) -> None:
    id = await host.start("sh", "-c", "cat; echo over; exit 5", name="cat", open_stdin=True, stdin_once=True)
    code, out, _ = await api.docker("attach", "cat", stdin=b"hello\n")
    assert (code, out) == (5, b"hello\nover\n")
    assert (await api.docker("ps", "-aq", "--no-trunc"))[1].decode().split() == [id]
    assert (await api.docker("logs", "cat"))[1] == b"hello\nover\n"


async def test_who_shows_no_certificate_is_told_nothing(api: Api) -> None:
    context = ssl.create_default_context(cafile=str(api.files / "ca.pem"))
    with pytest.raises(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=context)
        writer.write(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        raise ConnectionResetError
    assert (await api.docker("version"))[0] == 0
