"""The sockets that RUN --mount=type=ssh gives to steps, against an agent that answers in capitals."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.runtime.build.agents import forwarded
from swarmd.runtime.errors import RuntimeFault


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Path]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "agent"):
        yield tmp_path / "agent"


async def test_what_is_said_reaches_the_agent_and_comes_back(agent: Path, tmp_path: Path) -> None:
    place = tmp_path / ("long" * 40)
    place.mkdir()
    async with forwarded(agent, place, "s", 0o640, os.geteuid(), os.getegid()) as path:
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o640
        other = tmp_path / "s"
        other.symlink_to(path)
        reader, writer = await asyncio.open_unix_connection(other)
        waiting, still = await asyncio.open_unix_connection(other)
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        still.write(b"x\n")
        assert await waiting.readline() == b"X\n"
    assert not path.exists()
    assert await waiting.read() == b""
    still.close()


async def test_an_agent_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFault, match=f"the SSH agent at {tmp_path}/none is gone"):
        async with forwarded(tmp_path / "none", tmp_path, "s", 0o600, 0, 0):
            pass
