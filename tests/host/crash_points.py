"""Kills a daemon at each step that a crash could part from the next: `python -m tests.host.crash_points MODE ROOT
PARENT FIRST EVERY` goes through the life of one container again and again, each time one step further, until it ends by
itself.  After each, an engine is opened again: everything it was told is so, nothing is blocked, nothing is left.

MODE kill: the daemon alone ends, in the middle of what it did to files, networks, cgroups or the spawner.
MODE power: the host too; a file that was written and not synced is whole, empty or not there then.

Every daemon is a fork of this process, which has no threads and no engine; run it by `tests/apart`.  It ends with
a line: the last point at which there was a daemon to kill; or with what was wrong after one of them.
"""

import asyncio
import contextlib
import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from swarmd.runtime import cgroups
from swarmd.runtime.engine import Engine, EngineConfig, opened
from swarmd.runtime.errors import NotFound
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.model import ContainerConfig, Phase, PortMapping
from swarmd.runtime.network.manager import NetworkManager
from swarmd.runtime.network.netlink import Netlink
from swarmd.runtime.network.nft import Nft
from swarmd.runtime.spawner_client import Spawner
from swarmd.runtime.stages import files
from tests.host.engine_host import add_image, engine_in, leftovers

NAME, PATIENCE, LIFE = "crashing", 20.0, 60  # s, until what a killed daemon began has ended; s, of one daemon
STEPS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
PR_SET_CHILD_SUBREAPER = 36
TOLD = ("created", "started", "stopped", "removed")
SECOND_BOOT = "a boot after that one"


class Crash:
    """Ends this process at a step, counted from 0; `at` is None before it counts."""

    def __init__(self, mode: str, root: Path, after: int) -> None:
        self._mode, self._root, self._point, self._left = mode, root, after, after
        self._synced: set[tuple[int, int]] = set()
        self._counting, self._lock = False, threading.RLock()

    def arm(self) -> None:
        sys.addaudithook(self._audit)
        fsync = os.fsync

        def synced(fd: int) -> None:
            self.step()
            fsync(fd)
            found = os.fstat(fd)
            self._synced.add((found.st_dev, found.st_ino))

        os.fsync = synced
        for owner, name in ((Netlink, "_request"), (Nft, "run"), (Spawner, "send")):
            self._wrap(owner, name)
        self._counting = True

    def _wrap(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return real(*args, **kwargs)

        setattr(owner, name, counted)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event in STEPS or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            self.step()

    def step(self) -> None:
        with self._lock:
            if self._counting:
                self._left -= 1
                if self._left < 0:
                    self._counting = False
                    if self._mode == "power":
                        self._lose()
                    os._exit(9)

    def _lose(self) -> None:
        """What a host that goes down may lose of files: what is not synced."""
        for path in (self._root / "data/containers").rglob("*.json"):
            found = path.stat()
            # exit.json: its shim syncs it, in another process.
            if (found.st_dev, found.st_ino) in self._synced or path.name == "exit.json":
                continue
            if self._point % 3 == 1:
                os.truncate(path, 0)
            elif self._point % 3 == 2 and path.name != "state.json":
                path.unlink()


def config(mode: str) -> ContainerConfig:
    networked: dict[str, Any] = {"network_mode": "none", "restart": "unless-stopped"}
    if mode == "kill":
        networked = {"ports": (PortMapping(container_port=80),)}
    return ContainerConfig(image="busybox", command=("sleep", "100"), stop_signal="KILL", **networked)


@asynccontextmanager
async def engine_of(mode: str, root: Path, parent: str) -> AsyncIterator[Engine]:
    if mode == "power":
        async with engine_in(root, parent) as engine:
            yield engine
        return
    paths = EngineConfig(root / "data", root / "run", parent)
    spawner = Spawner()
    spawner.start()
    try:
        async with (
            NetworkManager.open(paths.data_root / "networks", paths.run_root) as networks,
            opened(paths, ImageStore(paths.data_root / "images"), networks, spawner) as engine,
        ):
            yield engine
    finally:
        spawner.close()


async def prepare(mode: str, root: Path, parent: str) -> None:
    async with engine_of(mode, root, parent) as engine:
        await add_image(engine.images)


async def live(mode: str, root: Path, parent: str, point: int, told: int) -> None:
    """Tell of each thing that is done, as a client would hear of it."""
    async with engine_of(mode, root, parent) as engine:
        Crash(mode, root, point).arm()
        id = await engine.create(config(mode), NAME)
        os.write(told, b"c")
        await engine.start(id)
        os.write(told, b"s")
        await engine.stop(id)
        os.write(told, b"s")
        await engine.remove(id)
        os.write(told, b"r")


def legal(done: int, restarts: bool) -> set[str]:
    """Phases, or gone, that a container may be in when this much was told and the next was under way."""
    after = ["gone", "created", "running", "exited", "gone"]
    found = {after[done], after[min(done + 1, 4)]}
    if done == 1:
        found.add("exited")  # a start that is known to have failed
    return found | {"running"} if restarts and "running" in found else found


async def check(mode: str, root: Path, parent: str, done: int) -> None:
    if mode == "power":
        restart_host(root, parent)
    async with engine_of(mode, root, parent) as engine:
        states = engine.list()
        assert len(states) <= 1, f"{len(states)} containers"
        if mode == "power" and done == 2 and states[0].phase is not Phase.RUNNING:
            await until_running(engine)  # by its restart policy, unless its stop had begun
        phase = str(states[0].phase) if states else "gone"
        allowed = legal(done, mode == "power")
        assert phase in allowed, f"it is {phase}, not one of {sorted(allowed)}"
        if states:
            if engine.inspect(NAME).phase is not Phase.RUNNING:
                await engine.start(NAME)
            await has_process(engine)
            await engine.remove(NAME, force=True)
        await engine.create(config(mode), NAME)
        await engine.remove(NAME)
        if mode == "kill":
            assert not engine.networks.sandboxes(), "a sandbox is held"
            left = sorted(p.name for p in (root / "run/netns").iterdir())
            assert not left, f"namespaces {left}"
            prefix = engine.networks._prefix
            links = [p.name for p in Path("/sys/class/net").glob(f"{prefix}v*")]
            assert not links, f"interfaces {links}"
            elements = engine.networks._wiring._nft.run(f"list table ip {engine.networks._wiring.table}")
            assert "dnat to" not in elements or "tcp ." not in elements, elements
        rest = sorted(p.name for p in (root / "data/containers").iterdir())
        assert not rest, f"directories {rest}"
    deadline = time.monotonic() + PATIENCE
    while found := leftovers(root, parent):
        assert time.monotonic() < deadline, f"left: {found}"
        await asyncio.sleep(0.01)


async def has_process(engine: Engine) -> None:
    """What runs has one; one whose stop was cut short may be dying, and then it must be said that it ended."""
    deadline = time.monotonic() + PATIENCE
    while (state := engine.inspect(NAME)).phase is Phase.RUNNING and not Path(f"/proc/{state.pid}").exists():
        assert time.monotonic() < deadline, f"it runs without a process: {state}"
        await asyncio.sleep(0.005)


async def until_running(engine: Engine) -> None:
    deadline = time.monotonic() + 1
    while engine.inspect(NAME).phase is not Phase.RUNNING and engine.inspect(NAME).restarting:
        assert time.monotonic() < deadline, f"its restart policy was not followed: {engine.inspect(NAME)}"
        await asyncio.sleep(0.005)


def restart_host(root: Path, parent: str) -> None:
    """What a host that comes up again does not have: run directories, namespaces, cgroups."""
    shutil.rmtree(root / "run", ignore_errors=True)
    hierarchy = cgroups.detect(parent)
    for id in hierarchy.list():
        hierarchy.load(id).kill()
        hierarchy.load(id).remove()
    for path in Path("/run/netns").glob("st-*") if Path("/run/netns").is_dir() else ():
        subprocess.run(["ip", "netns", "del", path.name], check=True)
    files.boot_id = lambda: SECOND_BOOT


def forked(work: Callable[[], Coroutine[None, None, None]]) -> int:
    """Return the exit code of a process of its own that does it; 1 after it has said what was wrong."""
    pid = os.fork()
    if not pid:
        signal.alarm(LIFE)
        code = 1
        try:
            asyncio.run(work())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def end_processes(parent: str) -> None:
    """All that was forked from a daemon that has ended, which is ours then (PR_SET_CHILD_SUBREAPER)."""
    hierarchy = cgroups.detect(parent)
    for id in hierarchy.list():
        with contextlib.suppress(OSError, NotFound):  # half made
            hierarchy.load(id).thaw()  # it ended in the middle of a kill, and what is frozen does not die
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while pids := [int(pid) for pid in children.read_text().split()]:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def main() -> None:
    mode, root, parent, point, every = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    assert forked(functools.partial(prepare, mode, root, parent)) == 0
    if mode == "power":
        # Those of another run side by side look like ours.
        Path("/run/netns").mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "netns", "/run/netns"], check=True)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    code = 9
    while code:
        reader, told = os.pipe()
        code = forked(functools.partial(live, mode, root, parent, point, told))
        os.close(told)
        done = len(os.read(reader, 16))
        os.close(reader)
        if mode == "power":
            end_processes(parent)
        said = f"point {point}, after it was told of {' and '.join(TOLD[:done]) or 'nothing'}"
        assert code in (0, 9), f"{said}: the daemon ended with {code}"
        assert forked(functools.partial(check, mode, root, parent, done)) == 0, f"{said}: see above"
        point += every
    print(point - every)


if __name__ == "__main__":
    main()
