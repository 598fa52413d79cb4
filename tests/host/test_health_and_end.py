"""A health check never stands in the way of a container's end or pause."""

import asyncio
import os

import pytest

from swarmd.runtime.model import Health, HealthState, Phase
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
PROBE = Health(test=("CMD", "true"), interval=0.05, retries=1, timeout=5)


async def test_a_short_run_ends_whatever_its_probe_meets(host: Host) -> None:
    for _ in range(8):
        id = await host.start("sh", "-c", "exit 3", health=PROBE)
        assert (await asyncio.wait_for(host.engine.wait(id), 10)).code == 3


async def test_one_that_is_paused_is_not_asked_and_its_end_is_seen(host: Host) -> None:
    id = await host.start("sleep", "100", health=PROBE)
    await until("healthy", lambda: host.engine.inspect(id).health is HealthState.HEALTHY)
    await host.engine.pause(id)
    before = host.engine.inspect(id).health_log
    await asyncio.wait_for(host.engine.exec(await host.start("sleep", "100"), ["sleep", "0.7"]), 20)
    assert host.engine.inspect(id).health is HealthState.HEALTHY
    assert (
        len({probe.start for probe in (*before, *host.engine.inspect(id).health_log)} - {p.start for p in before}) < 2
    )
    await host.engine.unpause(id)
    last = before[-1].start
    await until("asked again", lambda: host.engine.inspect(id).health_log[-1].start > last)
    await host.engine.kill(id)
    assert (await asyncio.wait_for(host.engine.wait(id), 10)).code == 137
    assert host.engine.inspect(id).phase is Phase.EXITED
