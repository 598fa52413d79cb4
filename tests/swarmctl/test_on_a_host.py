"""swarmctl against a real engine: containers that run, with pipes and with a terminal."""

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.host.attached import served
from tests.host.conftest import host
from tests.host.engine_host import Host
from tests.swarmctl.conftest import Answer
from tests.swarmctl.program import SWARMCTL

__all__ = ["host"]
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]


@pytest.fixture
async def socket(host: Host) -> AsyncIterator[Path]:
    async with served(host.engine, host.root) as path:
        yield path


async def ctl(socket: Path, *words: str, stdin: bytes = b"") -> Answer:
    process = await asyncio.create_subprocess_exec(
        *SWARMCTL, "-H", f"unix://{socket}", *words,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(stdin), 30)
    assert process.returncode is not None
    return Answer(process.returncode, out.decode(), err.decode())


RUN = ("run", "--rm", "--network", "none")


async def test_run_with_pipes(socket: Path) -> None:
    answer = await ctl(
        socket, *RUN, "-i", "busybox", "sh", "-c", "cat; echo problem >&2; exit 42", stdin=b"in\n" * 100_000
    )
    assert (answer.code, answer.out, answer.err) == (42, "in\n" * 100_000, "problem\n")
    missing = await ctl(socket, *RUN, "busybox", "nosuch")
    assert (missing.code, "nosuch" in missing.err) == (127, True)
    assert (await ctl(socket, *RUN, "busybox", "/etc")).code == 126
    assert (await ctl(socket, "ps", "-aq")).out == ""


async def test_a_life(socket: Path) -> None:
    made = await ctl(socket, "run", "-d", "--network", "none", "--name", "one", "--stop-signal", "KILL", "-m", "64m",
                     "busybox", "sleep", "1000")  # fmt: skip
    assert made.code == 0, made.err
    assert (await ctl(socket, "exec", "-i", "one", "sh", "-c", "cat; exit 9", stdin=b"x")).code == 9
    assert "sleep 1000" in (await ctl(socket, "top", "one")).out
    assert (await ctl(socket, "stats", "--no-stream", "--format", "{{.Name}}", "one")).out == "one\n"
    assert (await ctl(socket, "pause", "one")).out == "one\n"
    assert "(Paused)" in (await ctl(socket, "ps")).out
    assert (await ctl(socket, "unpause", "one")).out == "one\n"
    assert (await ctl(socket, "update", "-m", "96m", "one")).out == "one\n"
    assert (await ctl(socket, "inspect", "-f", "{{.HostConfig.Memory}}", "one")).out == f"{96 << 20}\n"
    assert (await ctl(socket, "rename", "one", "two")).code == 0
    assert (await ctl(socket, "kill", "two")).out == "two\n"
    assert (await ctl(socket, "wait", "two")).out == "137\n"
    assert "two" in (await ctl(socket, "ps", "-a", "-f", "status=exited", "--format", "{{.Names}}")).out
    assert (await ctl(socket, "container", "prune", "-f")).code == 0
    assert (await ctl(socket, "ps", "-aq")).out == ""


async def test_run_at_a_terminal(socket: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    before, seen = termios.tcgetattr(slave), bytearray()
    process = await asyncio.create_subprocess_exec(
        *SWARMCTL, "-H", f"unix://{socket}", *RUN, "-it", "busybox", "sh",
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.set_blocking(master, False)

    async def see(text: bytes) -> None:
        deadline = asyncio.get_running_loop().time() + 20
        while text not in seen:
            assert asyncio.get_running_loop().time() < deadline, bytes(seen)
            try:
                seen.extend(os.read(master, 65536))
            except BlockingIOError:
                await asyncio.sleep(0.01)

    try:
        await see(b"# ")
        os.write(master, b"stty size; tty\r")
        await see(b"33 111\r\n")
        await see(b"/dev/")
        os.write(master, b"exit 5\r")
        assert await asyncio.wait_for(process.wait(), 20) == 5
        assert termios.tcgetattr(slave) == before
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)
        os.close(slave)
