"""Logs of containers as clients get them: frames, times, details."""

from swarmd.agent.api.streams import frame
from swarmd.runtime.model import ContainerConfig, LogEntry
from tests.agent.api.conftest import Api
from tests.agent.api.fakes import NOW


async def test_frames_times_and_details(api: Api, rootfs: bytes) -> None:
    async with api.http.post("http://d/images/create?fromSrc=-&repo=demo", data=rootfs) as response:
        await response.text()
    await api.engine.create(ContainerConfig(image="demo"), "one")
    api.engine.lines = [
        LogEntry(at=NOW, stream="stdout", data=b"out\n", attributes={"b": "x y", "a/": "1,2"}),
        LogEntry(at=NOW, stream="stderr", data=b"err\n"),
    ]

    async def logs(options: str) -> bytes:
        async with api.http.get(f"http://d/containers/one/logs?stdout=1&stderr=1&{options}") as response:
            assert response.status == 200
            return await response.read()

    assert await logs("") == frame("stdout", b"out\n") + frame("stderr", b"err\n")
    # As Docker writes them: sorted, escaped as in a query, and a space also where there are none.
    assert await logs("details=1") == frame("stdout", b"a%2F=1%2C2,b=x+y out\n") + frame("stderr", b" err\n")
    stamped = await logs("details=1&timestamps=1")
    assert stamped.endswith(b"Z  err\n") and b"Z a%2F=1%2C2,b=x+y out\n" in stamped
