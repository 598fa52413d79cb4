"""The docker command and docker-py on a real engine: run, exec and attach as a user has them."""

import asyncio
import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import pytest

from tests.docker_py import use
from tests.host.attached import served
from tests.host.engine_host import Host

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
needs_docker = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")
RUN = ("run", "--rm", "--network", "none")


@pytest.fixture
async def api(host: Host) -> AsyncIterator[Path]:
    async with served(host.engine, host.root) as path:
        yield path


async def docker_command(api: Path, *words: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        "docker", "-H", f"unix://{api}", *words,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin)
    return process.returncode or 0, out, err


@needs_docker
async def test_run_shows_both_streams_and_ends_as_the_program_does(api: Path) -> None:
    code, out, err = await docker_command(api, *RUN, "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (code, out, err) == (3, b"out\n", b"err\n")
    code, _, err = await docker_command(api, *RUN, "busybox", "nosuch")
    assert (code, b"executable file not found" in err) == (127, True)
    code, _, err = await docker_command(api, *RUN, "busybox", "/etc/not-a-program")
    assert (code, b"permission denied" in err) == (126, True)
    assert (await docker_command(api, *RUN, "--init", "busybox", "sh", "-c", "kill -KILL $$"))[0] == 137
    assert (await docker_command(api, "ps", "-aq"))[1] == b""


@needs_docker
async def test_input_is_piped_through_run_and_exec(api: Path, host: Host) -> None:
    data = secrets.token_bytes(8 << 20)
    wanted = hashlib.sha256(data).digest()
    code, out, err = await docker_command(api, *RUN, "-i", "busybox", "cat", stdin=data)
    assert (code, hashlib.sha256(out).digest(), err) == (0, wanted, b"")
    await host.start("sleep", "1000", name="web")
    code, out, err = await docker_command(api, "exec", "-i", "web", "cat", stdin=data)
    assert (code, hashlib.sha256(out).digest(), err) == (0, wanted, b"")
    # Input that nobody reads is no reason for an error.
    code, out, _ = await docker_command(api, "exec", "-i", "web", "sh", "-c", "echo ok; exit 4", stdin=data)
    assert (code, out) == (4, b"ok\n")
    code, out, _ = await docker_command(api, "exec", "web", "nosuch")
    assert (code, b"executable file not found" in out) == (127, True)


@needs_docker
async def test_a_signal_to_the_command_is_the_programs(api: Path, host: Host) -> None:
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    process = await asyncio.create_subprocess_exec(
        "docker", "-H", f"unix://{api}", *RUN, "busybox", "sh", "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(2)
        assert await process.stdout.read() == b"caught\n"
        assert await process.wait() == 5


async def test_docker_py(api: Path, host: Host) -> None:
    await host.start("sleep", "1000", name="web")
    await host.make("cat", name="cat", open_stdin=True, stdin_once=True)

    def work() -> None:
        client = docker.DockerClient(base_url=f"unix://{api}", version="1.44")
        web = client.containers.get("web")
        command = ["sh", "-c", "sleep 0.2; for i in 1 2 3; do echo $i; echo e$i >&2; done; exit 2"]
        _, chunks = web.exec_run(command, stream=True, demux=True)
        pairs = list(chunks)
        assert b"".join(out for out, _ in pairs if out) == b"1\n2\n3\n"
        assert b"".join(err for _, err in pairs if err) == b"e1\ne2\ne3\n"
        result = web.exec_run(command, demux=True)
        assert (result.exit_code, result.output[0]) == (2, b"1\n2\n3\n")
        cat = client.containers.get("cat")
        attached = cat.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        cat.start()
        attached._sock.sendall(b"hello\n")
        assert attached.read(8) == b"\1\0\0\0\0\0\0\6"
        assert attached.read(6) == b"hello\n"
        attached._sock.shutdown(socket.SHUT_WR)
        assert attached.read(8) == b""
        for part in (attached._response, attached._sock):
            part.close()
        assert cat.wait()["StatusCode"] == 0
        client.close()

    await asyncio.to_thread(use, work)
