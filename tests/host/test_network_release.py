"""A container that ends while the cluster's networks are applied."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmd.runtime.model import ContainerConfig, NetworkRequest
from swarmd.runtime.network.manager import NetworkManager
from swarmd.runtime.network.values import Overlay, OverlayState, ServiceRoute
from swarmd.runtime.network.wiring import Wiring
from tests.host.leavings import taken_away

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
WITH_A_NEIGHBOUR = ("a" * 64, "b" * 64)


@asynccontextmanager
async def left_clean(directory: Path) -> AsyncIterator[NetworkManager]:
    with taken_away():
        async with NetworkManager.open(directory / "state", directory / "run") as manager:
            yield manager


def networks(vip: str) -> OverlayState:
    overlay = Overlay("net1", "app", "10.7.0.0/24", 4097, "10.7.0.11", "127.0.0.1", port=4789)
    return OverlayState(overlays=(overlay,), services=(ServiceRoute("web", ("web",), {"net1": vip}),))


async def test_it_is_no_failure_and_its_neighbour_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = WITH_A_NEIGHBOUR
    told: list[str] = []
    real = Wiring.set_virtual_addresses
    async with left_clean(tmp_path) as manager, asyncio.TaskGroup() as group:
        await manager.apply(networks("10.7.0.2"))
        for number, id in enumerate(WITH_A_NEIGHBOUR, 21):
            request = NetworkRequest("app", address=f"10.7.0.{number}/24")
            await manager.attach(id, id[0], ContainerConfig(image="none", networks=(request,)))
        loop = asyncio.get_running_loop()

        def late(self: Wiring, path: Path, text: str) -> None:
            """The release of the first, begun since it was looked at, has its turn before this."""
            if path.name == first and first in manager.sandboxes():
                loop.call_soon_threadsafe(lambda: group.create_task(manager.release(first)))
                while first in manager.sandboxes():
                    os.sched_yield()
                raise FileNotFoundError(2, "no such file or directory", str(path))
            real(self, path, text)
            told.append(path.name)

        monkeypatch.setattr(Wiring, "set_virtual_addresses", late)
        await manager.apply(networks("10.7.0.3"))
        assert told == [second]
        assert list(manager.sandboxes()) == [second]
        await manager.release(second)
        await manager.apply(OverlayState())
