"""What comes between two steps of something that is done to a container: a step is held until the other was there."""

import asyncio
import errno
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarmd.runtime import container, launch
from swarmd.runtime.attach import Streams
from swarmd.runtime.errors import Conflict, NotFound
from swarmd.runtime.exec import Command
from swarmd.runtime.health_watch import HealthWatch
from swarmd.runtime.model import ContainerConfig, Health, Limits, Phase
from swarmd.runtime.records import Directory
from tests.host.attached import ALL, Attached, run_exec
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]


class Held:
    """Holds a function until `go_on` is set, in a thread or in the loop; `reached`: it was called."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool = False) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        held = getattr(owner, name)

        def in_thread(*given: Any, **options: Any) -> Any:
            self.reached.set()
            assert self.go_on.wait(20)
            return held(*given, **options)

        async def in_loop(*given: Any, **options: Any) -> Any:
            found = await held(*given, **options) if after else None
            self.reached.set()
            await until(f"{name} may go on", self.go_on.is_set, 20)
            return found if after else await held(*given, **options)

        patch.setattr(owner, name, in_loop if asyncio.iscoroutinefunction(held) else in_thread)


async def is_reached(held: Held) -> None:
    await until("the step is reached", held.reached.is_set)


async def test_what_an_exec_was_told_and_did_not_read_harms_nobody(host: Host) -> None:
    id = await host.start("sleep", "1000")
    with await run_exec(host.engine, id, "sleep", "1000", tty=True) as client:
        made = host.engine.exec_inspect(client.exec)  # type: ignore[attr-defined]
        status = Path(f"/proc/{made.pid}/status").read_text()
        helper = int(status.partition("PPid:")[2].split()[0])
        os.kill(helper, signal.SIGSTOP)
        host.engine.exec_resize(made.id, 10, 20)
        os.kill(helper, signal.SIGKILL)
        assert await until("its end", lambda: made.exit_code) == 137
    assert (await host.engine.exec(id, ["true"])).exit_code == 0
    await host.engine.kill(id)
    assert (await asyncio.wait_for(host.engine.wait(id), 20)).code == 137


async def test_an_end_in_the_middle_of_a_pause(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await host.start("sleep", "1000")
    group = type(host.engine._host.cgroups.load(id))
    held = Held(monkeypatch, group, "freeze")
    pausing = asyncio.create_task(host.engine.pause(id))
    await is_reached(held)
    os.kill(host.engine.inspect(id).pid, signal.SIGKILL)
    waiting = asyncio.create_task(host.engine.wait(id))
    await until("its end", lambda: host.engine._find(id)._handles.has_ended())
    held.go_on.set()
    await asyncio.wait({pausing})
    await asyncio.wait_for(waiting, 20)
    assert not host.engine.inspect(id).paused
    await host.engine.start(id)
    assert (await host.engine.exec(id, ["true"])).exit_code == 0


async def test_one_that_is_being_killed_is_not_paused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await host.start("sleep", "1000")
    held = Held(monkeypatch, type(host.engine._host.cgroups.load(id)), "kill")
    killing = asyncio.create_task(host.engine.kill(id))
    await is_reached(held)
    pausing = asyncio.create_task(host.engine.pause(id))
    await asyncio.sleep(0)
    held.go_on.set()
    await killing
    with pytest.raises(Conflict, match=r"is being stopped|is not running"):
        await pausing
    assert (await asyncio.wait_for(host.engine.wait(id), 20)).code == 137


async def test_a_name_taken_while_the_rename_waited(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await host.make("sleep", "1000", name="one")
    held = Held(monkeypatch, launch, "prepare")
    starting = asyncio.create_task(host.engine.start(one))
    await is_reached(held)
    renaming = asyncio.create_task(host.engine.rename(one, "two"))
    await asyncio.sleep(0)  # it has looked, and waits for the start
    await host.make("true", name="two")
    held.go_on.set()
    await starting
    with pytest.raises(Conflict, match="two is taken"):
        await renaming


async def test_a_stop_without_end_holds_nobody_up(host: Host) -> None:
    id = await host.start("sleep", "1000")  # which as a first process hears no SIGTERM
    endless = asyncio.create_task(host.engine.stop(id, -1))
    await until("it is to stop", lambda: not host.engine._find(id).record.wanted)
    async with asyncio.timeout(20):
        await host.engine.update(id, Limits(cpu_shares=200), "no")
        with pytest.raises(Conflict, match="is running"):
            await host.engine.remove(id)
        await host.engine.stop(id, 0.1)
        await endless
    assert host.engine.inspect(id).phase is Phase.EXITED


async def test_a_stop_kills_no_later_run(host: Host) -> None:
    id = await host.start("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done")
    events = host.engine.events()
    stopping = asyncio.create_task(host.engine.stop(id, 5))
    async for event in events:
        if event.action == "die":
            break
    await host.engine.start(id)
    await asyncio.wait_for(stopping, 20)
    assert host.engine.inspect(id).phase is Phase.RUNNING


@pytest.mark.parametrize("who", ["a client", "a stop", "a rename", "a wait for its removal"])
async def test_what_comes_while_it_is_removed_ends(host: Host, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    id = await host.make("sleep", "1000", name="one")
    held = Held(monkeypatch, Directory, "remove")
    removing = asyncio.create_task(host.engine.remove(id))
    await is_reached(held)
    client = Attached()
    with client:
        if who == "a client":
            await host.engine.attach(id, lambda: client.theirs, Streams(stdout=True))
            coming: asyncio.Task[Any] = asyncio.create_task(client.end())
        else:
            client.theirs.close()
            coming = asyncio.create_task(
                host.engine.stop(id)
                if who == "a stop"
                else host.engine.rename(id, "two")
                if who == "a rename"
                else _destroyed(host, id)
            )
            await asyncio.sleep(0)
        if who == "a wait for its removal":
            removing.cancel()  # who asked for it leaves
        held.go_on.set()
        await asyncio.wait({removing, coming}, timeout=20)
        assert coming.done() and removing.done()
        assert host.engine.list() == []
        if who in ("a stop", "a rename"):
            assert isinstance(coming.exception(), NotFound)
        else:
            await coming


async def _destroyed(host: Host, id: str) -> None:
    async for event in host.engine.events():
        if event.id == id and event.action == "destroy":
            return


async def test_one_whose_maker_left_is_not_there(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, Directory, "make")
    config = ContainerConfig(image="busybox", command=("true",), network_mode="none")
    making = asyncio.create_task(host.engine.create(config, "one"))
    await is_reached(held)
    gone = asyncio.create_task(_destroyed(host, host.engine.inspect("one").id))
    await asyncio.sleep(0)
    making.cancel()
    held.go_on.set()
    await asyncio.wait_for(gone, 20)
    with pytest.raises(asyncio.CancelledError):
        await making
    assert host.engine.list() == [] and not [*(host.root / "data/containers").iterdir()]


async def test_a_start_whose_asker_leaves_when_the_program_runs_already(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await host.make("sleep", "1000")
    held = Held(monkeypatch, host.engine._host.spawner, "ask", after=True)
    starting = asyncio.create_task(host.engine.start(id))
    await is_reached(held)
    handing = Held(monkeypatch, container, "attach")
    with Attached() as client:
        await host.engine.attach(id, lambda: client.theirs, ALL)  # it does not run yet, and has taken its clients
        held.go_on.set()
        await is_reached(handing)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await client.end()
    state = host.engine.inspect(id)
    assert state.phase is Phase.EXITED and not list(host.engine._host.cgroups.list())
    monkeypatch.undo()
    await host.engine.start(id)
    await asyncio.wait_for(host.engine.stop(id), 20)


async def test_a_start_that_fails_and_can_not_be_released_ends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await host.make("not-there")

    async def refuse(*given: object) -> None:
        raise TimeoutError("a process stays")

    with monkeypatch.context() as patch:
        patch.setattr(launch, "release", refuse)
        with pytest.raises(Exception, match="not found"):
            await host.engine.start(id)
        assert (await asyncio.wait_for(host.engine.wait(id), 20)).code == 127
        with pytest.raises(TimeoutError):  # told to whoever removes it, who may try again
            await host.engine.remove(id)
    await host.engine.remove(id)


async def test_a_probe_that_breaks_hides_no_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*given: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(HealthWatch, "run", broken)
    id = await host.start("sleep", "1000", health=Health(test=("CMD", "true")))
    await host.engine.kill(id)
    assert (await asyncio.wait_for(host.engine.wait(id), 20)).code == 137


async def test_what_is_asked_of_one_that_is_being_released(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await host.start("sleep", "1000")
    held = Held(monkeypatch, launch, "release", after=True)
    os.kill(host.engine.inspect(id).pid, signal.SIGKILL)
    await is_reached(held)
    with pytest.raises(Conflict, match="is not running"):
        host.engine.exec_create(id, Command(command=("true",)), Streams())
    with pytest.raises(Conflict, match="has just ended"):  # its cgroup is gone, and its end not yet told
        host.engine.stats(id)

    def gone() -> None:
        raise OSError(errno.ENODEV, "gone between open and read")

    with monkeypatch.context() as patch:
        patch.setattr(host.engine._host.cgroups, "load", lambda id: SimpleNamespace(stats=gone))
        with pytest.raises(Conflict, match="has just ended"):
            host.engine.stats(id)
    held.go_on.set()
    assert (await asyncio.wait_for(host.engine.wait(id), 20)).code == 137
