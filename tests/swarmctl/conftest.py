"""swarmctl as users run it, against the Engine API over an engine and a cluster in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.agent.api.conftest import Api, api, rootfs
from tests.swarmctl.program import SWARMCTL

__all__ = ["api", "rootfs"]


@dataclass
class Answer:
    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Answer]]


@pytest.fixture
def swarmctl(api: Api) -> Run:
    async def run(*words: str, stdin: bytes = b"") -> Answer:
        process = await asyncio.create_subprocess_exec(
            *SWARMCTL, "-H", f"unix://{api.socket}", *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await process.communicate(stdin)
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return Answer(process.returncode, out.decode(), err.decode())

    return run
