"""Attaching to containers: what is sent, from when on, whose input is read, and who is not held up by it."""

import asyncio
import hashlib
import os
import secrets

import pytest

from swarmd.runtime.attach import Streams
from swarmd.runtime.errors import Conflict, StartError
from swarmd.runtime.model import Phase
from tests.host.attached import ALL, Attached, interrupt
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
_MEBIBYTE = 1 << 20


async def attached(host: Host, id: str, streams: Streams = ALL, *, framed: bool = True) -> Attached:
    client = Attached(framed=framed)
    await host.engine.attach(id, lambda: client.theirs, streams)
    return client


async def test_who_attaches_before_the_start_misses_nothing(host: Host) -> None:
    id = await host.make("sh", "-c", "echo first; echo problem >&2; exit 3")
    with await attached(host, id) as both, await attached(host, id, Streams(stderr=True)) as one:
        await host.engine.start(id)
        assert (await both.end(), both.err) == (b"first\n", b"problem\n")
        assert (await one.end(), one.err) == (b"", b"problem\n")
    assert (await host.engine.wait(id)).code == 3
    assert [entry.data async for entry in host.engine.logs(id)].count(b"first\n") == 1


async def test_input_goes_through_unchanged_and_its_end_too(host: Host) -> None:
    data = secrets.token_bytes(8 * _MEBIBYTE)
    id = await host.make("cat", open_stdin=True, stdin_once=True)
    with await attached(host, id) as client:
        await host.engine.start(id)
        sending = asyncio.create_task(client.send(data, last=True))
        out = await client.end(60)
        await sending
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
    assert (await host.engine.wait(id)).code == 0


async def test_input_is_there_for_the_next_client_unless_it_was_meant_for_one(host: Host) -> None:
    id = await host.start("cat", open_stdin=True)
    with await attached(host, id) as first:
        await first.send(b"one\n")
        await first.until(b"one\n")
        first.ours.shutdown(1)
        assert await first.end() == b"one\n"  # as with Docker: who ends the input here has left
    with await attached(host, id) as second:
        await second.send(b"two\n")
        await second.until(b"two\n")
    assert host.engine.inspect(id).phase is Phase.RUNNING

    id = await host.start("cat", open_stdin=True, stdin_once=True)
    with await attached(host, id) as only:
        await only.send(b"x")
    assert (await asyncio.wait_for(host.engine.wait(id), 10)).code == 0  # it left, so the input has ended


async def test_without_open_stdin_there_is_no_input(host: Host) -> None:
    id = await host.make("cat")
    with await attached(host, id) as client:
        await client.send(b"nobody reads this")
        await host.engine.start(id)
        assert await client.end() == b""


async def test_the_log_and_what_follows_it_are_one(host: Host) -> None:
    script = "i=0; while ! test -e /enough; do echo $i; printf 'part '; i=$((i+1)); done"
    id = await host.start("sh", "-c", script)
    client = Attached()

    async def replay(moment: int) -> None:
        async for entry in host.engine.logs(id, until=moment):
            client.out += entry.data

    with client:
        await host.engine.attach(id, lambda: client.theirs, ALL, replay)
        reading = asyncio.create_task(client.end())
        await host.engine.exec(id, ["touch", "/enough"])
        out = await reading
    assert out == b"".join(b"%d\npart " % i for i in range(out.count(b"part ")))


async def test_a_client_that_does_not_read_slows_down_and_one_that_left_does_not(host: Host) -> None:
    id = await host.make("sh", "-c", "head -c 8000000 /dev/zero; touch /done; sleep 100")
    upper = host.root / "data/containers" / id / "upper/done"
    client = await attached(host, id)
    await host.engine.start(id)
    await client.until(b"\0")
    assert not upper.exists()
    client.ours.close()
    await until("the program goes on", upper.exists)


async def test_a_slow_client_does_not_put_off_the_end_and_still_gets_all(host: Host) -> None:
    id = await host.make("head", "-c", "400000", "/dev/zero")
    with await attached(host, id) as client:
        await host.engine.start(id)
        await client.until(b"\0")
        while len(client.out) < 150000:
            await client.more()
        assert (await asyncio.wait_for(host.engine.wait(id), 10)).code == 0
        assert len(await client.end()) == 400000


async def test_a_terminal_has_a_size_from_its_start_and_changes_it(host: Host) -> None:
    id = await host.make("sh", tty=True, open_stdin=True, console_size=(30, 100))
    with await attached(host, id, framed=False) as client:
        await host.engine.start(id)
        await client.send(b"stty size; test -t 1 && echo is-$((1+1))-terminal\n")
        await client.until(b"30 100")
        await client.until(b"is-2-terminal")
        await host.engine.resize(id, 41, 123)
        await client.send(b"stty size\n")
        await client.until(b"41 123")
        await interrupt(client)
        await client.send(b"exit 7\n")
        await client.end()
    assert (await host.engine.wait(id)).code == 7
    with pytest.raises(Conflict, match="not running"):
        await host.engine.resize(id, 1, 1)


async def test_a_start_that_fails_and_a_removal_let_the_clients_go(host: Host) -> None:
    id = await host.make("nosuch")
    with await attached(host, id) as client:
        with pytest.raises(StartError):
            await host.engine.start(id)
        assert await client.end() == b""
    id = await host.make("true")
    with await attached(host, id) as client:
        await host.engine.remove(id)
        assert await client.end() == b""


async def test_who_leaves_before_the_start_is_forgotten(host: Host) -> None:
    id = await host.make("echo", "ok")
    (await attached(host, id)).ours.close()
    with await attached(host, id) as client:
        await client.send(b"", last=True)  # half closed is not gone
        await host.engine.start(id)
        assert await client.end() == b"ok\n"
