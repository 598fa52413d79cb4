"""What users do with a container between its start and its end."""

import asyncio
import os
from typing import Any

import pytest

from swarmd.runtime import launch
from swarmd.runtime.errors import Conflict, Invalid, RuntimeFault
from swarmd.runtime.model import Limits, Phase
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]


async def test_a_pause_stops_it_where_it_is(host: Host) -> None:
    id = await host.start("sh", "-c", "while :; do echo x >> /count; sleep 0.01; done", stop_signal="KILL")
    count = host.root / f"data/containers/{id}/upper/count"
    await until("counting", lambda: count.exists() and count.stat().st_size > 4)
    await host.engine.pause(id)
    before = count.stat().st_size
    with pytest.raises(Conflict, match="paused: unpause it first"):
        await host.engine.exec(id, ["true"])
    assert host.engine.inspect(id).paused and count.stat().st_size == before
    await host.engine.unpause(id)
    await until("counting again", lambda: count.stat().st_size > before)
    await host.engine.pause(id)
    await asyncio.wait_for(host.engine.stop(id), 5)
    assert host.engine.inspect(id).phase is Phase.EXITED and not host.engine.inspect(id).paused


async def test_a_restart_keeps_even_what_is_removed_at_its_end(host: Host) -> None:
    id = await host.start("sleep", "60", auto_remove=True, stop_signal="KILL")
    first = host.engine.inspect(id).pid
    await host.engine.restart(id)
    assert host.engine.inspect(id).pid not in (0, first)
    await host.engine.kill(id)
    await until("its removal", lambda: not any(state.id == id for state in host.engine.list()))


async def test_other_limits_all_or_none(host: Host) -> None:
    id = await host.start("sleep", "60", limits=Limits(cpu_shares=100))
    await host.engine.update(id, Limits(cpu_shares=200, pids=9), "always")
    seen = await host.engine.exec(id, ["cat", "/sys/fs/cgroup/cpu/cpu.shares", "/sys/fs/cgroup/pids/pids.max"])
    assert seen.stdout.split() == [b"200", b"9"]
    with pytest.raises(RuntimeFault):
        await host.engine.update(id, Limits(cpu_shares=300, cpuset_cpus="999"), "no")
    seen = await host.engine.exec(id, ["cat", "/sys/fs/cgroup/cpu/cpu.shares"])
    assert seen.stdout == b"200\n"
    config = host.engine.inspect(id).config
    assert (config.limits.cpu_shares, config.restart) == (200, "always")


async def test_another_name(host: Host) -> None:
    id = await host.make("true", name="one")
    await host.make("true", name="two")
    with pytest.raises(Conflict, match="two is taken"):
        await host.engine.rename("one", "two")
    with pytest.raises(Invalid, match="must begin"):
        await host.engine.rename("one", "-x")
    await host.engine.rename("one", "three")
    assert host.engine.inspect("three").id == id


async def test_restarts_are_counted_until_the_user_starts_it(host: Host) -> None:
    id = await host.start("sh", "-c", "echo >> /runs; exit 1", restart="on-failure:2")
    runs = host.root / f"data/containers/{id}/upper/runs"

    def ended(times: int) -> bool:
        state = host.engine.inspect(id)  # which says RUNNING only when the program may have ended already
        over = state.phase is Phase.EXITED and state.exit and runs.exists() and state.exit.at > runs.stat().st_mtime_ns
        return bool(over) and runs.stat().st_size == times

    await until("the end of the last try", lambda: ended(3))
    assert host.engine.inspect(id).restart_count == 2
    await host.engine.start(id)
    await until("three more", lambda: ended(6))
    again = await host.start("false", restart="always")
    await until("a pause between", lambda: host.engine.inspect(again).restarting)
    await host.engine.stop(again)
    assert not host.engine.inspect(again).restarting
    await host.engine.remove(again)


async def test_while_its_policy_starts_it_it_is_restarting_and_can_be_removed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await host.start("sh", "-c", "[ -e /again ] && sleep 1000; touch /again; exit 1", restart="on-failure:1")
    reached, go_on = asyncio.Event(), asyncio.Event()
    prepare = launch.prepare

    async def held(*given: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await prepare(*given)

    monkeypatch.setattr(launch, "prepare", held)
    await asyncio.wait_for(reached.wait(), 20)
    state = host.engine.inspect(id)
    assert state.restarting and state.restart_count == 1
    with pytest.raises(Conflict, match="is being restarted: stop it first, or force its removal"):
        await host.engine.remove(id)
    removal = asyncio.create_task(host.engine.remove(id, force=True))
    await until("its second run is not wanted", lambda: not host.engine._find(id).record.wanted)
    go_on.set()
    await asyncio.wait_for(removal, 20)
    assert host.engine.list() == []


@pytest.mark.parametrize(("signal", "timeout"), [("KILL", 5.0), ("KILL", 0.0), ("TERM", 0.0)])
async def test_a_stop_tells_of_each_signal_once(host: Host, signal: str, timeout: float) -> None:
    id = await host.start("sleep", "60", stop_signal=signal)
    events = host.engine.events()
    await host.engine.stop(id, timeout)
    seen = []
    async with asyncio.timeout(10):
        async for event in events:
            seen.append((event.action, event.attributes.get("signal", "")))
            if event.action == "stop":
                break
    assert seen == [*([("kill", "15")] if signal == "TERM" else []), ("kill", "9"), ("die", ""), ("stop", "")]
