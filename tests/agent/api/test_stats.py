"""GET /containers/{id}/stats: what is shown of a reading, and how often one is made."""

import asyncio
import json

import aiohttp
import pytest

from swarmd.runtime.cgroups.interface import BLKIO, Stats, Transferred
from swarmd.runtime.model import ContainerConfig
from tests.agent.api.conftest import Api

V1 = Stats(
    memory_usage=9,
    memory_peak=11,
    memory_failures=2,
    memory_stat={"cache": 1, "total_inactive_file": 3},
    blkio=dict.fromkeys(BLKIO, ()) | {"time": (Transferred(major=8, minor=0, kind="", value=4),)},
)
V2 = Stats(memory_usage=9, memory_peak=11, memory_stat={"anon": 5}, blkio={"io_service_bytes": ()})


@pytest.fixture
async def url(api: Api, rootfs: bytes) -> str:
    async with api.http.post("http://d/images/create?fromSrc=-&repo=demo", data=rootfs) as response:
        await response.text()
    await api.engine.start(await api.engine.create(ContainerConfig(image="demo"), "one"))
    return "http://d/containers/one/stats"


@pytest.mark.parametrize("measured", [V1, V2])
async def test_memory_and_block_devices_are_shown_as_the_version_of_cgroups_has_them(
    api: Api, url: str, monkeypatch: pytest.MonkeyPatch, measured: Stats
) -> None:
    monkeypatch.setattr(api.engine, "stats", lambda id: measured)
    async with api.http.get(f"{url}?stream=0&one-shot=1") as response:
        shown = await response.json()
    memory, blocks = shown["memory_stats"], shown["blkio_stats"]
    assert memory.pop("limit") > 0
    if measured is V1:
        assert memory == {"usage": 9, "max_usage": 11, "failcnt": 2, "stats": {"cache": 1, "total_inactive_file": 3}}
        assert blocks.pop("io_time_recursive") == [{"major": 8, "minor": 0, "op": "", "value": 4}]
        assert len(blocks) == 7 and not any(blocks.values()) and None not in blocks.values()
    else:
        assert memory == {"usage": 9, "stats": {"anon": 5}}
        assert blocks.pop("io_service_bytes_recursive") == [] and set(blocks.values()) == {None}


async def test_streams_of_one_container_share_their_readings(
    api: Api, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = 0

    def read(id: str) -> Stats:
        nonlocal readings
        readings += 1
        return Stats(cpu_usage=readings)

    monkeypatch.setattr(api.engine, "stats", read)

    async def lines(response: aiohttp.ClientResponse) -> list[int]:
        async with asyncio.timeout(10):
            found = [json.loads(await response.content.readline()) for _ in range(3)]
        assert "total_usage" not in found[0]["precpu_stats"].get("cpu_usage", {})
        assert found[2]["precpu_stats"] == found[1]["cpu_stats"]
        return [line["cpu_stats"]["cpu_usage"]["total_usage"] for line in found]

    async with api.http.get(url) as one, api.http.get(url) as two, api.http.get(url) as three:
        seen = await asyncio.gather(lines(one), lines(two), lines(three))
    assert len({number for numbers in seen for number in numbers}) <= 5, f"{seen}: nine if each had its own"
