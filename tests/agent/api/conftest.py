"""The Engine API on a unix socket, over an engine and a cluster in memory."""

import io
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from swarmd.agent.api.app import application
from swarmd.agent.api.interface import Host, Services
from tests.agent.api.fakes import FakeEngine, FakeMembership


@dataclass
class Api:
    socket: Path
    engine: FakeEngine
    membership: FakeMembership
    http: aiohttp.ClientSession

    async def call(self, method: str, path: str, json: object = None) -> tuple[int, object]:
        async with self.http.request(method, f"http://d{path}", json=json) as response:
            text = await response.text()
            return response.status, await response.json() if text else None


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    engine, membership = FakeEngine(tmp_path), FakeMembership()
    app = application(Services(engine, membership, Host("host1", tmp_path, "0.1.0")))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    socket = tmp_path / "s"
    await web.UnixSite(runner, str(socket)).start()
    async with engine.registries, aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as http:
        yield Api(socket, engine, membership, http)
    await runner.cleanup()


@pytest.fixture(scope="session")
def rootfs() -> bytes:
    """A root file system with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("hello")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"hi"))
    return out.getvalue()
