"""Logs of real containers with options: what each line carries, and where it goes."""

import asyncio
import os
import re
import socket
from pathlib import Path

import pytest

from swarmd.runtime import log_drivers
from swarmd.runtime.errors import Invalid
from tests.host.engine_host import Host

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]


@pytest.mark.parametrize("mode", ["blocking", "non-blocking"])
async def test_each_line_carries_what_was_asked_for(host: Host, mode: str) -> None:
    log = log_drivers.parse("json-file", {"labels": "team", "env": "LEVEL", "tag": "{{.Name}}", "mode": mode})
    id = await host.start("sh", "-c", "echo out; echo err >&2", log=log, labels={"team": "a"}, env=("LEVEL=3",))
    await host.engine.wait(id)
    entries = [entry async for entry in host.engine.logs(id)]
    assert sorted((e.stream, e.data) for e in entries) == [("stderr", b"err\n"), ("stdout", b"out\n")]
    name = host.engine.inspect(id).name
    assert all(entry.attributes == {"team": "a", "LEVEL": "3", "tag": name} for entry in entries)


async def test_a_log_that_does_not_block_loses_nothing_it_has_room_for(host: Host) -> None:
    options = {"mode": "non-blocking", "max-buffer-size": "16m", "max-size": "100k", "max-file": "99"}
    log = log_drivers.parse("local", options)
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    id = await host.start("sh", "-c", script, log=log)
    lines = [entry.data async for entry in host.engine.logs(id, follow=True)]
    assert lines == [b"line %d\n" % number for number in range(20000)]


async def test_syslog_and_what_is_kept_here(host: Host) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        address = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        log = log_drivers.parse("syslog", {"syslog-address": address, "tag": "{{.Name}}"})
        id = await host.start("sh", "-c", "echo hello", log=log)
        received = (await asyncio.to_thread(receiver.recv, 9999)).decode()
    assert re.fullmatch(rf"<30>.* {host.engine.inspect(id).name}\[\d+\]: hello", received)
    assert [entry.data async for entry in host.engine.logs(id, follow=True)] == [b"hello\n"]


@pytest.mark.parametrize("mode", ["blocking", "non-blocking"])
async def test_the_journal_alone(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    log = log_drivers.parse("journald", {"cache-disabled": "true", "mode": mode, "labels": "com.x.team"})
    monkeypatch.setattr(log_drivers, "JOURNAL", tmp_path / "journal")
    with pytest.raises(Invalid, match=r"there is no .*journal on this host"):
        await host.make("true", log=log)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        receiver.settimeout(10)
        id = await host.start("sh", "-c", "echo hello", log=log, labels={"com.x.team": "a"})
        received = await asyncio.to_thread(receiver.recv, 9999)
    fields = dict(line.split("=", 1) for line in received.decode().splitlines())
    assert (fields["MESSAGE"], fields["PRIORITY"], fields["COM_X_TEAM"]) == ("hello", "6", "a")
    assert (fields["CONTAINER_ID_FULL"], fields["SYSLOG_IDENTIFIER"]) == (id, id[:12])
    with pytest.raises(Invalid, match="its log driver is journald and its cache is disabled"):
        host.engine.logs(id)


async def test_a_receiver_that_is_away_holds_up_no_program(host: Host, tmp_path: Path) -> None:
    log = log_drivers.parse("syslog", {"syslog-address": f"unixgram://{tmp_path}/nobody"})
    id = await host.start("sh", "-c", "echo hello", log=log)
    assert (await asyncio.wait_for(host.engine.wait(id), 10)).code == 0
    assert [entry.data async for entry in host.engine.logs(id)] == [b"hello\n"]
