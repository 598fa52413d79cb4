"""Logs of real containers with options: what each line carries, and where it goes."""

import os

import pytest

from swarmd.runtime import log_drivers
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
