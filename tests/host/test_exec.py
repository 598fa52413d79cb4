"""Programs run inside a running container: attached, detached, with a terminal, with more than the container has."""

import asyncio
import hashlib
import os
import secrets

import pytest

from swarmd.runtime.attach import Streams
from swarmd.runtime.errors import Conflict, NotFound, StartError
from swarmd.runtime.exec import Command
from tests.host.attached import Attached, interrupt, run_exec
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]


async def idle(host: Host, **config: object) -> str:
    return await host.start("sleep", "1000", **config)


async def test_output_comes_as_it_is_written_and_the_code_is_there_with_its_end(host: Host) -> None:
    id = await idle(host)
    with await run_exec(host.engine, id, "sh", "-c", "echo out; read line; echo $line >&2; exit 7") as client:
        await client.until(b"out\n")
        made = host.engine.exec_inspect(client.exec)  # type: ignore[attr-defined]
        assert made.exit_code is None
        assert made.pid > 1
        await client.send(b"heard\n")
        await client.end()
        assert client.err == b"heard\n"
        assert host.engine.exec_inspect(made.id).exit_code == 7
    with pytest.raises(Conflict, match="already run"):
        await host.engine.exec_start(made.id)
    await host.engine.remove(id, force=True)
    with pytest.raises(NotFound):
        host.engine.exec_inspect(made.id)


async def test_bytes_both_ways_without_bound(host: Host) -> None:
    data = secrets.token_bytes(16 << 20)
    with await run_exec(host.engine, await idle(host), "cat") as client:
        sending = asyncio.create_task(client.send(data, last=True))
        out = await client.end(60)
        await sending
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


async def test_streams_that_are_not_attached(host: Host) -> None:
    id = await idle(host)
    wants = Streams(stderr=True)
    with await run_exec(host.engine, id, "sh", "-c", "cat; echo out; echo err >&2", streams=wants) as client:
        assert (await client.end(), client.err) == (b"", b"err\n")


async def test_a_terminal_of_the_container(host: Host) -> None:
    id = await idle(host)
    with await run_exec(host.engine, id, "sh", tty=True, size=(30, 100), user="app") as client:
        await client.send(b"stty size; tty; id -un; echo x > $(tty) && echo $TERM\n")
        for wanted in (b"30 100", b"/dev/pts/0", b"app", b"xterm"):
            await client.until(wanted)
        host.engine.exec_resize(client.exec, 41, 123)  # type: ignore[attr-defined]
        await client.send(b"sleep 0.1; stty size\n")
        await client.until(b"41 123")
        await interrupt(client)
        await client.send(b"exit 9\n")
        await client.end()
        assert host.engine.exec_inspect(client.exec).exit_code == 9  # type: ignore[attr-defined]


async def test_detached_it_needs_nobody(host: Host) -> None:
    id = await idle(host)
    made = host.engine.exec_create(id, Command(command=("sh", "-c", "echo lost; touch /detached; exit 4")), Streams())
    await host.engine.exec_start(made)
    assert host.engine.exec_inspect(made).pid
    await until("its end", lambda: host.engine.exec_inspect(made).exit_code == 4)
    assert (host.root / "data/containers" / id / "upper/detached").exists()
    missing = host.engine.exec_create(id, Command(command=("nosuch",)), Streams())
    with pytest.raises(StartError, match="not found in"):
        await host.engine.exec_start(missing)
    assert host.engine.exec_inspect(missing).exit_code == 127


async def test_it_goes_on_when_its_client_leaves(host: Host) -> None:
    id = await idle(host)
    script = "echo ready; read line; head -c 3000000 /dev/zero; touch /went-on"
    client = await run_exec(host.engine, id, "sh", "-c", script)
    await client.until(b"ready")
    client.ours.close()
    await until("the program goes on", (host.root / "data/containers" / id / "upper/went-on").exists)


async def test_a_client_that_reads_slowly_slows_it_down(host: Host) -> None:
    id = await idle(host)
    with await run_exec(host.engine, id, "sh", "-c", "head -c 20000000 /dev/zero; touch /written") as client:
        await client.until(b"\0")
        helper = host.engine.exec_inspect(client.exec).pid  # type: ignore[attr-defined]
        assert helper
        assert not (host.root / "data/containers" / id / "upper/written").exists()
        assert len(await client.end()) == 20000000


async def test_why_it_could_not_be_run_is_told_in_the_stream(host: Host) -> None:
    id = await idle(host)
    client = Attached()
    made = host.engine.exec_create(id, Command(command=("nosuch",)), Streams(stdout=True))
    with client, pytest.raises(StartError):
        await host.engine.exec_start(made, lambda: client.theirs)
    client = Attached()
    made = host.engine.exec_create(id, Command(command=("nosuch",)), Streams(stdout=True))
    with client:
        with pytest.raises(StartError):
            await host.engine.exec_start(made, lambda: client.theirs)
        assert b"nosuch: executable file not found" in await client.end()
    assert host.engine.exec_inspect(made).exit_code == 127


async def test_privileged_has_what_the_container_has_not(host: Host) -> None:
    id = await idle(host)
    command = ("sh", "-c", "mount -t tmpfs none /tmp && echo mounted; umount /tmp")
    with await run_exec(host.engine, id, *command) as client:
        assert await client.end() == b""
    with await run_exec(host.engine, id, *command, privileged=True) as client:
        assert await client.end() == b"mounted\n", client.err


async def test_in_user_and_other_namespaces_of_its_own(host: Host) -> None:
    with await run_exec(host.engine, await idle(host, init=True), "sh", tty=True) as client:
        await client.send(b"tty; cat /proc/1/comm; exit 0\n")
        await client.until(b"/dev/pts/0")
        await client.end()


async def test_only_in_a_container_that_runs(host: Host) -> None:
    id = await host.make("true")
    with pytest.raises(Conflict, match="not running"):
        host.engine.exec_create(id, Command(command=("true",)), Streams())
