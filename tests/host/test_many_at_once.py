"""Many things done to the same containers at once: whatever comes between two steps of one of them, all of it ends.

SWARMD_CROWD_SEEDS names other seeds, SWARMD_CROWD_SECONDS how long each crowd is at it.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmd.runtime.engine import Engine, EngineConfig
from tests.host.engine_host import add_image, leftovers, remove_parents, rootfs_tar, until
from tests.host.leavings import taken_away
from tests.host.many import Crowd
from tests.host.many_clients import Clients, Gone
from tests.host.swarmd_process import Swarmd
from tests.run import RUN

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
PARENT = f"st-many-{RUN}"
SEEDS = [int(seed) for seed in os.environ.get("SWARMD_CROWD_SEEDS", "1 2").split()]
SECONDS = float(os.environ.get("SWARMD_CROWD_SECONDS", "2"))


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    with taken_away():
        async with Engine.open(EngineConfig(tmp_path / "data", tmp_path / "run", PARENT)) as engine:
            await add_image(engine.images)
            await engine.networks.create("mine", subnet="10.77.0.0/24")
            yield engine
        await until("nothing is left", lambda: not leftovers(tmp_path, PARENT))
    remove_parents(PARENT)
    shutil.rmtree(tmp_path)


def open_files(process: int | str) -> int:
    return len([*Path(f"/proc/{process}/fd").iterdir()])


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_crowd_at_one_engine(engine: Engine, seed: int) -> None:
    before = open_files("self")
    await Crowd(engine, seed).act(SECONDS)
    await until("no more open files than before", lambda: open_files("self") <= before + 3)


@pytest.mark.parametrize(("seed", "killed"), [(seed, bool(seed % 2)) for seed in SEEDS])
async def test_a_crowd_of_clients(tmp_path: Path, seed: int, killed: bool) -> None:
    with taken_away():
        daemon = Swarmd(tmp_path, Path(f"/tmp/swarmd-test-{RUN}-many.sock"), PARENT)

        def again() -> None:
            daemon.kill()
            daemon.start()

        clients = Clients(daemon.socket, seed, again if killed else None)
        try:
            await answers(clients)
            await clients.said("POST", "/images/create?fromSrc=-&repo=busybox", rootfs_tar())
            await clients.said("POST", "/networks/create", {"Name": "mine"})
            before = open_files(daemon.process.pid)
            await clients.act(SECONDS)
            if not killed:
                await until("no more open files than before", lambda: open_files(daemon.process.pid) <= before + 3)
        finally:
            daemon.process.terminate()
            daemon.process.wait(20)
        assert "Traceback" not in daemon.log(), daemon.log()
        await until("nothing is left", lambda: not leftovers(tmp_path, PARENT))
    remove_parents(PARENT)
    shutil.rmtree(tmp_path)


async def answers(clients: Clients) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            assert (await clients.ask("GET", "/_ping"))[0] == 200
            return
        except Gone:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
