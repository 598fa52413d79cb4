"""What the kernel refuses is tried again, and nobody hears that it is done before it is."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from swarmd.agent.network_keeper import MEND, NetworkKeeper
from swarmd.agent.network_state import NetworkState
from swarmd.proto.dispatcher_pb2 import Assignments
from swarmd.runtime.errors import Exhausted
from swarmd.runtime.network.values import OverlayState
from tests.simulation import virtual


class Kernel:
    def __init__(self) -> None:
        self.broken = False
        self.tried: list[float] = []

    async def apply(self, desired: OverlayState) -> None:
        self.tried.append(asyncio.get_running_loop().time())
        if self.broken:
            raise Exhausted(f"no interface is left (attempt {len(self.tried)})")


def play(directory: Path, scene: Callable[[NetworkKeeper, Kernel], Awaitable[None]]) -> None:
    """Run a scene beside a keeper, on virtual time."""

    async def stage() -> None:
        kernel = Kernel()
        keeper = NetworkKeeper(kernel, NetworkState(directory / "networks.pb", "n1"), virtual.VirtualClock())
        async with asyncio.TaskGroup() as group:
            running = group.create_task(keeper.run())
            await scene(keeper, kernel)
            running.cancel()

    virtual.run(stage())


def test_what_is_applied_is_said_at_once(tmp_path: Path) -> None:
    async def scene(keeper: NetworkKeeper, kernel: Kernel) -> None:
        said: list[int] = []
        await keeper.update(Assignments(full=True))
        keeper.once_applied(lambda: said.append(1))
        assert (said, len(kernel.tried)) == ([1], 1)

    play(tmp_path, scene)


def test_what_is_refused_is_tried_again_ever_later_said_when_done_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scene(keeper: NetworkKeeper, kernel: Kernel) -> None:
        said: list[int] = []
        kernel.broken = True
        for revision in (1, 2):
            await keeper.update(Assignments(full=True))
            keeper.once_applied(lambda revision=revision: said.append(revision))  # type: ignore[misc]
        await asyncio.sleep(120)
        assert not said, "nothing is done yet"
        pauses = [later - earlier for earlier, later in zip(kernel.tried[2:], kernel.tried[3:], strict=False)]
        assert pauses[0] < 1 < pauses[-1] <= MEND
        assert len(pauses) < 35
        kernel.broken = False
        await asyncio.sleep(MEND)
        assert said == [1, 2]
        kernel.tried.clear()
        await asyncio.sleep(10 * MEND)
        assert 9 <= len(kernel.tried) <= 10, "compared now and then"
        assert said == [1, 2]

    play(tmp_path, scene)
    assert [record.message for record in caplog.records if record.name.endswith("network_keeper")] == [
        "the cluster's networks are not as they should be: no interface is left (attempt 1)",
        "the cluster's networks are as they should be again",
    ]
