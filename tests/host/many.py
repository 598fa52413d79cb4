"""Many users of one engine at once: each does what comes to its mind to the same few containers, by a seeded choice.

What must hold whatever they do: each thing that is done ends, and fails only by a RuntimeFault; what is said of a
container is so; whoever waits for its end hears of it.
"""

import asyncio
import contextlib
import io
import logging
import os
import random
import signal
import socket
import tarfile
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from swarmd.runtime.attach import Streams
from swarmd.runtime.engine import Engine
from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.exec import Command
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.logs import Selection
from swarmd.runtime.model import ContainerConfig, ContainerState, Health, Limits, NetworkRequest, Phase, PortMapping

NAMES = ("one", "two", "three", "four", "five", "six")
ACTORS = 7
BOUND = 25.0  # s: what takes longer hangs
COMMANDS = (
    ("sleep", "1000"),  # which as a first process hears no SIGTERM
    ("sh", "-c", "trap 'exit 0' TERM; while :; do echo x; sleep 0.05; done"),
    ("sh", "-c", "sleep 0.2; exit 3"),
    ("true",),
    ("cat",),
    ("not-there",),
)
POLICIES = ("no", "no", "always", "on-failure:2", "unless-stopped")


class Crowd:
    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.seed = engine, seed
        self.random = random.Random(seed)
        self.done: deque[str] = deque(maxlen=400)
        self.problems: list[str] = []
        self._waiting: list[tuple[str, asyncio.Task[Any]]] = []
        self._began = time.monotonic()

    async def act(self, seconds: float) -> None:
        """Do things for so long, then see that all is as it says, take everything away, and hear all waits end."""
        with _complaints(self.problems):
            async with asyncio.TaskGroup() as group:
                for number in range(ACTORS):
                    group.create_task(self._actor(number, time.monotonic() + seconds))
            await self._settle()
            await self._clear()
            for what, task in self._waiting:
                await self._bounded(f"{what}, after all are gone,", task)
        assert not self.problems, self._report()

    def _report(self) -> str:
        return "\n".join([f"seed {self.seed}:", *self.problems[:10], "", "what was done last:", *self.done])

    # Doing

    async def _actor(self, number: int, deadline: float) -> None:
        choices = random.Random(f"{self.seed} {number}")
        while time.monotonic() < deadline:
            act = choices.choices(ACTS, WEIGHTS)[0]
            name = choices.choice(NAMES)
            doing = act(self, choices, name)
            what = f"{act.__name__.strip('_')} {name}"
            if choices.random() < 0.1:
                task = asyncio.create_task(self._bounded(what, doing, number))
                await asyncio.sleep(choices.random() * 0.1)
                task.cancel()  # whoever asked has gone
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait_for(task, BOUND)
            else:
                await self._bounded(what, doing, number)
            await asyncio.sleep(choices.random() * 0.03)

    async def _bounded(self, what: str, doing: Awaitable[Any], actor: int = -1) -> None:
        begun = time.monotonic() - self._began
        said: object = ""
        try:
            async with asyncio.timeout(BOUND) as bound:
                said = await doing
        except RuntimeFault as fault:
            said = f"{type(fault).__name__}: {fault}"
        except asyncio.CancelledError:
            said = "cancelled"
            raise
        except TimeoutError as error:
            said = f"TimeoutError: {error}"
            if bound.expired():
                said = f"has not ended within {BOUND:g} s"
                self.problems.append(f"{what} {said}; tasks:\n{_stacks()}")
            elif "it took longer than" not in str(error):
                self.problems.append(f"{what}: {said}")
        except Exception as error:
            said = f"{error!r}"
            self.problems.append(f"{what}: {said} {''.join(traceback.format_exception(error))}")
        finally:
            ended = time.monotonic() - self._began
            self.done.append(f"{begun:6.3f} to {ended:6.3f} actor {actor} {what}: {said}")

    # Seeing

    async def _settle(self) -> None:
        deadline = time.monotonic() + BOUND
        while wrong := self._wrong():
            if time.monotonic() > deadline:
                self.problems.append(f"not so: {wrong}")
                return
            await asyncio.sleep(0.05)

    def _wrong(self) -> list[str]:
        found = []
        groups = set(self.engine._host.cgroups.list())
        for state in self.engine.list():
            running = state.phase is Phase.RUNNING
            if running and not _alive(state.pid):
                found.append(f"{state.name} runs, but its program {state.pid} is not there")
            if not running and (state.pid or state.paused or state.networks or state.ports):
                found.append(f"{state.name} does not run, but says {state}")
            if not running and state.id in groups:
                found.append(f"{state.name} does not run, but has a cgroup")
            if running and state.restarting:
                found.append(f"{state.name} runs, and is said to be restarting")
        names = [state.name for state in self.engine.list()]
        found += [f"{name} is the name of several" for name in set(names) if names.count(name) > 1]
        return found

    async def _clear(self) -> None:
        for state in self.engine.list():
            await self._bounded(f"the last removal of {state.name}", self.engine.remove(state.id, force=True))
        left = [state.name for state in self.engine.list()]
        if left:
            self.problems.append(f"not removed: {left}")

    def wait_for(self, what: str, doing: Coroutine[Any, Any, Any]) -> None:
        """What lasts as long as its container."""
        self._waiting = [(what, task) for what, task in self._waiting if not task.done() or _failed(task)]
        self._waiting.append((what, asyncio.create_task(doing)))

    def state(self, name: str) -> ContainerState:
        return self.engine.inspect(name)


def _failed(task: asyncio.Task[Any]) -> bool:
    error = None if task.cancelled() else task.exception()
    return error is not None and not isinstance(error, RuntimeFault)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _stacks() -> str:
    text = io.StringIO()
    for task in asyncio.all_tasks():
        task.print_stack(limit=6, file=text)
    return text.getvalue()


@contextlib.contextmanager
def _complaints(problems: list[str]) -> Iterator[None]:
    """What the daemon writes to its log as an error."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            problems.append(f"logged: {logging.Formatter().format(record)}")

    handler = Handler(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


# What they do


async def _create(crowd: Crowd, choices: random.Random, name: str) -> str:
    policy = choices.choice(POLICIES)
    networks = (NetworkRequest(network=choices.choice(("bridge", "mine"))),) if choices.random() < 0.6 else ()
    health = Health(test=("CMD", "true"), interval=0.1, timeout=1) if choices.random() < 0.3 else None
    tty = choices.random() < 0.3
    config = ContainerConfig(
        image="busybox",
        command=choices.choice(COMMANDS),
        restart=policy,
        auto_remove=policy == "no" and choices.random() < 0.4,
        network_mode="bridge" if networks else "none",
        networks=networks,
        ports=(PortMapping(container_port=80),) if networks and choices.random() < 0.3 else (),
        health=health,
        tty=tty,
        open_stdin=choices.random() < 0.4,
        init=choices.random() < 0.2,
        stop_timeout=0.2,
    )
    return await crowd.engine.create(config, name)


async def _run(crowd: Crowd, choices: random.Random, name: str) -> None:
    id = await _create(crowd, choices, name)
    await crowd.engine.start(id)


async def _start(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.start(name)


async def _stop(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.stop(name, choices.choice((0.0, 0.1, 0.5, 3.0)))


async def _restart(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.restart(name, choices.choice((0.0, 0.3)))


async def _kill(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.kill(name, choices.choice((9, 9, 15, 2, 1)))


async def _kill_program(crowd: Crowd, choices: random.Random, name: str) -> None:
    if pid := crowd.state(name).pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _kill_shim(crowd: Crowd, choices: random.Random, name: str) -> None:
    run = crowd.engine._find(name).directory.run()
    if run and run.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.shim, signal.SIGKILL)


async def _kill_spawner(crowd: Crowd, choices: random.Random, name: str) -> None:
    os.kill(crowd.engine.spawner_pid, signal.SIGKILL)


async def _pause(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.pause(name)


async def _unpause(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.unpause(name)


async def _remove(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.remove(name)


async def _remove_by_force(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.remove(name, force=True)


async def _rename(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.rename(name, choices.choice(NAMES))


async def _update(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.update(name, Limits(cpu_shares=choices.choice((100, 200))), choices.choice(("no", "always")))


async def _exec(crowd: Crowd, choices: random.Random, name: str) -> object:
    command = choices.choice((["true"], ["sleep", "0.2"], ["sleep", "100"], ["nothing"]))
    return (await crowd.engine.exec(name, command, timeout=0.5)).exit_code


async def _exec_alone(crowd: Crowd, choices: random.Random, name: str) -> None:
    tty = choices.random() < 0.5
    made = crowd.engine.exec_create(
        name, Command(command=("sleep", choices.choice(("0", "0.1", "5"))), tty=tty), Streams(stdin=True, stdout=True)
    )
    attached = choices.random() < 0.6
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        await crowd.engine.exec_start(made, (lambda: theirs) if attached else None)
        for _ in range(choices.randrange(4)):
            await asyncio.sleep(choices.random() * 0.1)
            crowd.engine.exec_resize(made, 20, 30)
            crowd.engine.exec_inspect(made)


async def _attach(crowd: Crowd, choices: random.Random, name: str) -> None:
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as left:
        for end in (ours, theirs):
            end.setblocking(False)
            left.enter_context(end)
        await crowd.engine.attach(name, lambda: theirs, Streams(stdin=choices.random() < 0.5, stdout=True, stderr=True))
        left.pop_all()  # theirs is the engine's
    if choices.random() < 0.5:
        crowd.wait_for(f"an attach to {name}", _read_all(ours))
        return
    with ours:
        await asyncio.sleep(choices.random() * 0.2)


async def _read_all(connection: socket.socket) -> None:
    with connection:
        while await asyncio.get_running_loop().sock_recv(connection, 65536):
            pass


async def _resize(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.resize(name, 10, 20)


async def _logs(crowd: Crowd, choices: random.Random, name: str) -> None:
    batches = crowd.engine.log_batches(name, Selection(), follow=True)
    if choices.random() < 0.3:
        crowd.wait_for(f"following the log of {name}", _all(batches))
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(choices.random() * 0.3), contextlib.aclosing(batches):
            async for _ in batches:
                pass


async def _all(batches: "Any") -> None:
    async for _ in batches:
        pass


async def _wait(crowd: Crowd, choices: random.Random, name: str) -> None:
    id = crowd.state(name).id
    crowd.wait_for(f"waiting for {name} {id[:12]}", crowd.engine.wait(id))


async def _wait_for_removal(crowd: Crowd, choices: random.Random, name: str) -> None:
    id = crowd.state(name).id
    crowd.wait_for(f"waiting for the removal of {name} {id[:12]}", _gone(crowd.engine.events(), id))


async def _gone(events: AsyncIterator[Any], id: str) -> None:
    async for event in events:
        if event.id == id and event.action == "destroy":
            return


async def _copy_out(crowd: Crowd, choices: random.Random, name: str) -> None:
    async for _ in crowd.engine.file_archive(name, choices.choice(("/etc", "/bin/busybox", "/none"))):
        if choices.random() < 0.05:
            return


async def _copy_in(crowd: Crowd, choices: random.Random, name: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("copied")
        entry.size = 1000
        tar.addfile(entry, io.BytesIO(bytes(1000)))

    async def content() -> AsyncIterator[bytes]:
        data = packed.getvalue()
        for start in range(0, len(data), 600):
            yield data[start : start + 600]
            await asyncio.sleep(choices.random() * 0.01)

    await crowd.engine.file_unpack(name, "/tmp", content())


async def _export(crowd: Crowd, choices: random.Random, name: str) -> None:
    async for _ in crowd.engine.export(name):
        if choices.random() < 0.2:
            return


async def _commit(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.commit(name, (), ImageConfig(), pause=choices.random() < 0.7)


async def _look(crowd: Crowd, choices: random.Random, name: str) -> None:
    id = crowd.state(name).id
    with contextlib.suppress(RuntimeFault):
        crowd.engine.stats(id)
    with contextlib.suppress(RuntimeFault):
        crowd.engine.pids(id)
    await asyncio.to_thread(crowd.engine.sizes, id)
    await asyncio.to_thread(crowd.engine.changes, id)


async def _connect(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.connect(name, NetworkRequest(network=choices.choice(("mine", "bridge"))))


async def _disconnect(crowd: Crowd, choices: random.Random, name: str) -> None:
    await crowd.engine.disconnect(name, choices.choice(("mine", "bridge")))


Act = Callable[[Crowd, random.Random, str], Coroutine[Any, Any, Any]]
_OFTEN: dict[Act, int] = {
    _create: 2,
    _run: 14,
    _start: 8,
    _stop: 6,
    _restart: 4,
    _kill: 5,
    _kill_program: 3,
    _kill_shim: 2,
    _kill_spawner: 1,
    _pause: 3,
    _unpause: 3,
    _remove: 3,
    _remove_by_force: 5,
    _rename: 3,
    _update: 2,
    _exec: 4,
    _exec_alone: 4,
    _attach: 4,
    _resize: 1,
    _logs: 3,
    _wait: 3,
    _wait_for_removal: 2,
    _copy_out: 3,
    _copy_in: 3,
    _export: 1,
    _commit: 2,
    _look: 2,
    _connect: 4,
    _disconnect: 4,
}
ACTS, WEIGHTS = list(_OFTEN), list(_OFTEN.values())
