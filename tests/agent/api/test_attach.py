"""Connections taken over from HTTP, with and without an upgrade, and by websocket; sizes of terminals."""

import asyncio
import json

from swarmd.runtime.model import ContainerConfig, LogEntry
from tests.agent.api.conftest import Api
from tests.agent.api.fakes import NOW

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


async def container(api: Api, rootfs: bytes, *, tty: bool = False) -> str:
    async with api.http.post("http://d/images/create?fromSrc=-&repo=demo", data=rootfs) as response:
        await response.text()
        assert response.status == 200
    return await api.engine.create(ContainerConfig(image="demo", tty=tty), "one")


async def taken(
    api: Api, path: str, headers: str = UPGRADE, body: object = None, given: bytes = b""
) -> tuple[str, bytes]:
    """Send one request, then input and its end if there is any; return the answer's head and what followed it."""
    content = json.dumps(body).encode() if body is not None else b""
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    head = f"POST {path} HTTP/1.1\r\nHost: d\r\n{headers}Content-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    async with asyncio.timeout(10):
        answered = (await reader.readuntil(b"\r\n\r\n")).decode()
        if given:
            writer.write(given)
            writer.write_eof()
        rest = await reader.read()
    writer.close()
    return answered, rest


async def test_attach_upgrades_the_connection_and_ends_each_side_by_itself(api: Api, rootfs: bytes) -> None:
    await container(api, rootfs)
    head, rest = await taken(api, "/v1.44/containers/one/attach?stream=1&stdin=1&stdout=1", given=b"input")
    assert head.startswith("HTTP/1.1 101 UPGRADED\r\n")
    assert "Content-Type: application/vnd.docker.multiplexed-stream" in head
    assert rest == b"\1\0\0\0\0\0\0\x10True True False\n\1\0\0\0\0\0\0\5input"


async def test_without_an_upgrade_the_answer_is_the_stream(api: Api, rootfs: bytes) -> None:
    await container(api, rootfs, tty=True)
    api.engine.lines = [LogEntry(at=NOW, stream="stdout", data=b"logged\n")]
    head, rest = await taken(api, "/containers/one/attach?logs=1&stdout=1", headers="")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "Content-Type: application/vnd.docker.raw-stream" in head
    assert rest == b"logged\n"


async def test_an_exec_is_started_on_its_connection(api: Api, rootfs: bytes) -> None:
    await container(api, rootfs)
    await api.engine.start(api.engine.inspect("one").id)
    for tty, expected in ((True, b"a b"), (False, b"\1\0\0\0\0\0\0\3a b\2\0\0\0\0\0\0\4oops")):
        asked = {"Cmd": ["a", "b"], "Tty": tty, "AttachStdout": True, "AttachStderr": True, "ConsoleSize": [10, 20]}
        status, made = await api.call("POST", "/containers/one/exec", asked)
        assert status == 201
        assert isinstance(made, dict)
        head, rest = await taken(api, f"/exec/{made['Id']}/start", body={"Tty": tty})
        assert head.startswith("HTTP/1.1 101 UPGRADED\r\n")
        assert rest == expected
        _, shown = await api.call("GET", f"/exec/{made['Id']}/json")
        assert isinstance(shown, dict)
        assert (shown["ExitCode"], shown["Running"], shown["ProcessConfig"]["tty"]) == (3, False, tty)
        assert (await api.call("POST", f"/exec/{made['Id']}/resize?h=41&w=123"))[0] == 200
    assert [size[1:] for size in api.engine.resized] == [(41, 123)] * 2


async def test_websocket(api: Api, rootfs: bytes) -> None:
    await container(api, rootfs)
    path = "http://d/containers/one/attach/ws?stream=1&stdin=1&stdout=1"
    async with api.http.ws_connect(path) as client, asyncio.timeout(10):
        assert (await client.receive_bytes()) == b"True True False\n"
        await client.send_bytes(b"binary")
        assert (await client.receive_bytes()) == b"binary"
        await client.send_str("text")
        assert (await client.receive_bytes()) == b"text"


async def test_what_is_refused(api: Api, rootfs: bytes) -> None:
    await container(api, rootfs)
    assert (await api.call("POST", "/containers/nosuch/attach?stream=1"))[0] == 404
    assert (await api.call("POST", "/containers/one/attach"))[0] == 400
    status, refusal = await api.call("POST", "/containers/one/resize?h=70000&w=1")
    assert status == 400
    assert "h and w go up to 65535" in str(refusal)
    assert (await api.call("POST", "/containers/one/resize?h=7&w=9"))[0] == 200
    assert api.engine.resized == [("one", 7, 9)]
