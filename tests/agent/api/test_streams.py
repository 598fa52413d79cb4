"""What happens to an answer that fails after its beginning has been sent."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import pytest

from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.model import ContainerConfig, LogEntry
from tests.agent.api.conftest import Api
from tests.agent.api.fakes import NOW


@pytest.mark.parametrize("problem", [RuntimeFault("the log is broken"), ValueError("a defect")])
@pytest.mark.parametrize("path", ["containers/one/logs?stdout=1", "containers/one/export"])
async def test_an_answer_that_fails_in_the_middle_is_cut_off(
    api: Api, rootfs: bytes, monkeypatch: pytest.MonkeyPatch, problem: Exception, path: str
) -> None:
    async with api.http.post("http://d/images/create?fromSrc=-&repo=demo", data=rootfs) as response:
        await response.text()
    await api.engine.create(ContainerConfig(image="demo"), "one")

    async def logs(*_: object) -> AsyncGenerator[Sequence[LogEntry], None]:
        yield [LogEntry(at=NOW, stream="stdout", data=b"begun\n")]
        raise problem

    async def export(*_: object) -> AsyncIterator[bytes]:
        yield b"begun\n"
        raise problem

    monkeypatch.setattr(api.engine, "log_batches", logs)
    monkeypatch.setattr(api.engine, "export", export)
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    writer.write(f"GET /{path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    async with asyncio.timeout(10):
        answered = await reader.read()
    writer.close()
    assert answered.count(b"HTTP/1.1 ") == 1 and answered.startswith(b"HTTP/1.1 200 ")
    assert b"begun" in answered and not answered.endswith(b"0\r\n\r\n"), "it must not look whole"
