"""Many clients of one daemon's API at once, of whom some leave in the middle, and some never read what they asked for.

What must hold: each request is answered in time, never with an internal error, unless the daemon was killed just then.
"""

import asyncio
import contextlib
import io
import json
import os
import random
import signal
import tarfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

NAMES = ("one", "two", "three", "four", "five", "six")
ACTORS = 7
BOUND = 25.0  # s: what takes longer hangs
COMMANDS = (
    ["sleep", "1000"],  # which as a first process hears no SIGTERM
    ["sh", "-c", "trap 'exit 0' TERM; while :; do echo x; sleep 0.05; done"],
    ["sh", "-c", "sleep 0.2; exit 3"],
    ["true"],
    ["cat"],
    ["not-there"],
)
POLICIES = ({"Name": "no"}, {"Name": "always"}, {"Name": "on-failure", "MaximumRetryCount": 2})
CLOSE = "Connection: close\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


class Gone(Exception):
    """The daemon hung up, or is not there."""


class Clients:
    """kill: kills the daemon and starts it again; may be left out."""

    def __init__(self, path: Path, seed: int, kill: Callable[[], None] | None = None) -> None:
        self.path, self.seed, self._kill = path, seed, kill
        self.problems: list[str] = []
        self.done: deque[str] = deque(maxlen=400)
        self._waiting: list[tuple[str, asyncio.Task[Any]]] = []
        self._began = time.monotonic()

    async def act(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(ACTORS):
                group.create_task(self._actor(number, time.monotonic() + seconds))
            if self._kill:
                await asyncio.sleep(seconds / 2)
                await asyncio.to_thread(self._kill)
        await self._settle()
        for one in json.loads((await self.ask("GET", "/containers/json?all=1"))[1]):
            removal = self.said("DELETE", f"/containers/{one['Id']}?force=1")
            await self._bounded(f"the last removal of {one['Names']}", removal)
        for what, task in self._waiting:
            await self._bounded(f"{what}, after all are gone,", task)
        left = json.loads((await self.ask("GET", "/containers/json?all=1"))[1])
        assert not left and not self.problems, self._report(left)

    def _report(self, left: object) -> str:
        return "\n".join([f"seed {self.seed}, left {left}:", *self.problems[:10], "what was done last:", *self.done])

    async def _actor(self, number: int, deadline: float) -> None:
        choices = random.Random(f"{self.seed} {number}")
        while time.monotonic() < deadline:
            act = choices.choices(ACTS, WEIGHTS)[0]
            name = choices.choice(NAMES)
            what, doing = f"{act.__name__.strip('_')} {name}", act(self, choices, name)
            if choices.random() < 0.15:
                task = asyncio.create_task(self._bounded(what, doing, number))
                await asyncio.sleep(choices.random() * 0.1)
                task.cancel()  # its connection is closed, and the daemon need not have answered
                await asyncio.wait({task}, timeout=BOUND)
            else:
                await self._bounded(what, doing, number)
            await asyncio.sleep(choices.random() * 0.03)

    async def _bounded(self, what: str, doing: Awaitable[Any], actor: int = -1) -> None:
        begun = time.monotonic() - self._began
        said: object = ""
        try:
            async with asyncio.timeout(BOUND):
                said = await doing
        except asyncio.CancelledError:
            said = "left"
            raise
        except TimeoutError:
            said = f"has not ended within {BOUND:g} s"
            self.problems.append(f"{what} {said}")
        except (Gone, OSError) as error:
            said = repr(error)
            if not self._kill:
                self.problems.append(f"{what}: {said}")
        finally:
            ended = time.monotonic() - self._began
            self.done.append(f"{begun:6.3f} to {ended:6.3f} actor {actor} {what}: {said}"[:300])

    async def _settle(self) -> None:
        deadline = time.monotonic() + BOUND
        while wrong := await self._wrong():
            if time.monotonic() > deadline:
                self.problems.append(f"not so: {wrong}")
                return
            await asyncio.sleep(0.1)

    async def _wrong(self) -> list[str]:
        found, names = [], []
        for one in json.loads((await self.ask("GET", "/containers/json?all=1"))[1]):
            status, body = await self.ask("GET", f"/containers/{one['Id']}/json")
            if status != 200:
                continue
            shown = json.loads(body)
            state, name = shown["State"], shown["Name"]
            names.append(name)
            there = _alive(state["Pid"])
            if state["Running"] and not state["Restarting"] and not there:
                found.append(f"{name} runs, but its program {state['Pid']} is not there")
            if not state["Running"] and (state["Pid"] or state["Paused"]):
                found.append(f"{name} does not run, but says {state}")
        return [*found, *(f"{name} is the name of several" for name in set(names) if names.count(name) > 1)]

    def wait_for(self, what: str, doing: Coroutine[Any, Any, Any]) -> None:
        self._waiting = [(what, task) for what, task in self._waiting if not task.done()]
        if len(self._waiting) < 40:
            self._waiting.append((what, asyncio.create_task(doing)))
        else:
            doing.close()

    # Asking

    async def said(self, method: str, path: str, body: object = None, headers: str = "") -> str:
        status, answer = await self.ask(method, path, body, headers)
        text = answer[:200].decode(errors="replace")
        if status >= 500 and "the process that served it was killed" not in text:
            self.problems.append(f"{method} {path}: {status} {text}")
        return f"{status} {text}"

    async def ask(self, method: str, path: str, body: object = None, headers: str = "") -> tuple[int, bytes]:
        async with self.asked(method, path, body, headers) as (reader, status):
            return status, await _content(reader)

    @contextlib.asynccontextmanager
    async def asked(self, method: str, path: str, body: object = None, headers: str = "") -> "Any":
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.path))
        except OSError as error:
            raise Gone(str(error)) from None
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: d\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
            writer.write(f"{head}{headers or CLOSE}\r\n".encode() + data)
            lines = await reader.readuntil(b"\r\n\r\n")
            status = int(lines.split()[1])
            reader.chunked = b"chunked" in lines.lower()  # type: ignore[attr-defined]
            yield reader, status
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Gone(f"{method} {path}: hung up: {error}") from None
        finally:
            writer.transport.abort()


async def _content(reader: asyncio.StreamReader) -> bytes:
    if not reader.chunked:  # type: ignore[attr-defined]
        return await reader.read()
    found = b""
    while size := int(await reader.readline() or b"0", 16):
        found += await reader.readexactly(size)
        await reader.readline()
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def _create(clients: Clients, choices: random.Random, name: str) -> str:
    policy = choices.choice(POLICIES)
    network = choices.choice(("bridge", "mine", "none"))
    body: dict[str, Any] = {
        "Image": "busybox",
        "Cmd": choices.choice(COMMANDS),
        "Tty": choices.random() < 0.3,
        "OpenStdin": choices.random() < 0.4,
        "StopTimeout": 1,
        "HostConfig": {
            "NetworkMode": network,
            "RestartPolicy": policy,
            "AutoRemove": policy["Name"] == "no" and choices.random() < 0.5,
        },
    }
    if choices.random() < 0.3:
        body["Healthcheck"] = {"Test": ["CMD", "true"], "Interval": 10**8, "Timeout": 10**9}
    return await clients.said("POST", f"/containers/create?name={name}", body)


async def _run(clients: Clients, choices: random.Random, name: str) -> str:
    made = await _create(clients, choices, name)
    if choices.random() < 0.4:
        clients.wait_for(f"an attach to {name}", _attached(clients, name))
    if choices.random() < 0.3:
        clients.wait_for(f"a wait for {name}", clients.said("POST", f"/containers/{name}/wait?condition=next-exit"))
    return f"{made[:20]}, {await clients.said('POST', f'/containers/{name}/start')}"


async def _attached(clients: Clients, name: str) -> str:
    path = f"/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1&logs=1"
    async with clients.asked("POST", path, None, UPGRADE) as (reader, status):
        if status >= 500:
            clients.problems.append(f"attach: {status} {await reader.read()}")
        if status not in (101, 200):
            return f"{status}"
        return f"{len(await reader.read())} bytes"


async def _attach(clients: Clients, choices: random.Random, name: str) -> str:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(choices.random() * 0.4):
            return await _attached(clients, name)
    return "left"


async def _exec(clients: Clients, choices: random.Random, name: str) -> str:
    tty = choices.random() < 0.5
    body = {"Cmd": ["sleep", choices.choice(("0", "0.1", "5"))], "AttachStdout": True, "AttachStdin": True, "Tty": tty}
    status, answer = await clients.ask("POST", f"/containers/{name}/exec", body)
    if status >= 500:
        clients.problems.append(f"exec: {status} {answer!r}")
    if status != 201:
        return f"{status}"
    id = json.loads(answer)["Id"]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(choices.random() * 0.4):
            async with clients.asked("POST", f"/exec/{id}/start", {"Tty": tty}, UPGRADE) as (reader, status):
                if status >= 500:
                    clients.problems.append(f"exec start: {status} {await reader.read()}")
                for _ in range(choices.randrange(3)):
                    await clients.said("POST", f"/exec/{id}/resize?h=10&w=20")
                if status == 101:
                    await reader.read()
    return await clients.said("GET", f"/exec/{id}/json")


async def _follow(clients: Clients, choices: random.Random, name: str) -> str:
    doing = clients.said("GET", f"/containers/{name}/logs?follow=1&stdout=1&stderr=1")
    if choices.random() < 0.3:
        clients.wait_for(f"following the log of {name}", doing)
        return "waits"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(choices.random() * 0.4):
            return await doing
    return "left"


async def _wait(clients: Clients, choices: random.Random, name: str) -> str:
    condition = choices.choice(("not-running", "next-exit", "removed"))
    doing = clients.said("POST", f"/containers/{name}/wait?condition={condition}")
    if choices.random() < 0.5:
        clients.wait_for(f"a wait until {name} is {condition}", doing)
        return "waits"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(choices.random() * 0.2):
            return await doing
    return "left"


async def _events(clients: Clients, choices: random.Random, name: str) -> str:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(choices.random() * 0.5):
            return await clients.said("GET", "/events")
    return "left"


async def _copy_in(clients: Clients, choices: random.Random, name: str) -> str:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("copied")
        entry.size = 100000
        tar.addfile(entry, io.BytesIO(bytes(100000)))
    data = packed.getvalue()
    return await clients.said("PUT", f"/containers/{name}/archive?path=/tmp", data)


async def _kill_a_process(clients: Clients, choices: random.Random, name: str) -> str:
    """The program, its shim, an exec helper or the spawner."""
    wanted = choices.choice((b"swarmd-shim", b"swarmd-exec", b"swarmd-spawner", b"sleep", b"sh"))
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (place / "cmdline").read_bytes().startswith(wanted):
                found.append(int(place.name))
    if found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid := choices.choice(found), signal.SIGKILL)
        return f"{wanted!r} {pid}"
    return "none"


def _plain(name: str, method: str, *paths: str, body: object = None) -> Callable[..., Coroutine[Any, Any, str]]:
    async def act(clients: Clients, choices: random.Random, container: str) -> str:
        path = choices.choice(paths).replace("NAME", container).replace("OTHER", choices.choice(NAMES))
        given = json.loads(json.dumps(body).replace("NAME", container)) if body is not None else None
        return await clients.said(method, path, given)

    act.__name__ = name
    return act


_C, _MINE, _BRIDGE = "/containers/NAME", "/networks/mine", "/networks/bridge"
_OFTEN: dict[Callable[..., Coroutine[Any, Any, str]], int] = {
    _create: 2,
    _run: 14,
    _attach: 5,
    _exec: 6,
    _follow: 4,
    _wait: 5,
    _events: 2,
    _copy_in: 3,
    _kill_a_process: 4,
    _plain("start", "POST", f"{_C}/start"): 8,
    _plain("stop", "POST", f"{_C}/stop?t=0", f"{_C}/stop?t=1", f"{_C}/stop?t=4"): 6,
    _plain("restart", "POST", f"{_C}/restart?t=0", f"{_C}/restart?t=1"): 4,
    _plain("kill", "POST", f"{_C}/kill", f"{_C}/kill?signal=TERM"): 5,
    _plain("pause", "POST", f"{_C}/pause"): 3,
    _plain("unpause", "POST", f"{_C}/unpause"): 3,
    _plain("remove", "DELETE", _C): 3,
    _plain("remove by force", "DELETE", f"{_C}?force=1"): 5,
    _plain("rename", "POST", f"{_C}/rename?name=OTHER"): 3,
    _plain("update", "POST", f"{_C}/update", body={"RestartPolicy": {"Name": "no"}, "CpuShares": 200}): 2,
    _plain("look", "GET", f"{_C}/json?size=1", f"{_C}/top", f"{_C}/stats?stream=0", f"{_C}/changes"): 4,
    _plain("list", "GET", "/containers/json?all=1&size=1", "/containers/json", "/system/df"): 2,
    _plain("copy out", "GET", f"{_C}/archive?path=/etc", f"{_C}/archive?path=/bin/busybox", f"{_C}/export"): 3,
    _plain("commit", "POST", "/commit?container=NAME&repo=made"): 2,
    _plain("connect", "POST", f"{_MINE}/connect", f"{_BRIDGE}/connect", body={"Container": "NAME"}): 4,
    _plain("disconnect", "POST", f"{_MINE}/disconnect", f"{_BRIDGE}/disconnect", body={"Container": "NAME"}): 4,
    _plain("prune", "POST", "/containers/prune"): 1,
    _plain("network", "POST", "/networks/create", body={"Name": "mine"}): 1,
    _plain("network prune", "POST", "/networks/prune"): 1,
}
ACTS, WEIGHTS = list(_OFTEN), list(_OFTEN.values())
