"""Containers on networks of this host: names, connecting and disconnecting, and what is told of it."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.runtime.engine import Engine, EngineConfig, opened
from swarmd.runtime.errors import Conflict, Invalid, NotFound
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.model import ContainerConfig, Event, Link, NetworkRequest, PortMapping
from swarmd.runtime.network.manager import NetworkManager
from swarmd.runtime.spawner_client import Spawner
from tests.host.engine_host import add_image, leftovers, remove_parents, until
from tests.run import RUN

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
PARENT = f"st-connecting-{RUN}"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine with real networks; its bridges and rules, which stay when it ends, are taken away at the end."""
    config = EngineConfig(tmp_path / "data", tmp_path / "run", PARENT)
    images, spawner = ImageStore(config.data_root / "images"), Spawner()
    spawner.start()
    async with (
        NetworkManager.open(config.data_root / "networks", config.run_root) as networks,
        opened(config, images, networks, spawner) as engine,
    ):
        await add_image(images)
        await networks.create("mine", subnet="10.77.0.0/24")
        yield engine
        for state in engine.list():
            await engine.remove(state.id, force=True)
        bridges, table = [network.bridge for network in networks.list()], networks._wiring.table
    spawner.close()
    for bridge in bridges:
        await run("ip", "link", "del", bridge)
    await run("nft", "delete", "table", "ip", table)
    await until("nothing is left", lambda: not leftovers(tmp_path, PARENT))
    remove_parents(PARENT)
    shutil.rmtree(tmp_path)


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, command
    return out.decode()


async def start(engine: Engine, name: str, **config: Any) -> str:
    defaults: dict[str, Any] = {"image": "busybox", "command": ("sleep", "100"), "stop_signal": "KILL"}
    id = await engine.create(ContainerConfig(**(defaults | config)), name)
    await engine.start(id)
    return id


async def said(engine: Engine, id: str, *command: str) -> str:
    return (await engine.exec(id, command, timeout=20)).stdout.decode()


async def resolves(engine: Engine, client: str, name: str) -> bool:
    return (await engine.exec(client, ("nslookup", name), timeout=20)).exit_code == 0


async def test_names_with_their_network_and_names_for_one_alone(engine: Engine) -> None:
    db = await start(engine, "db", networks=(NetworkRequest(network="mine", address="10.77.0.50"),))
    await start(engine, "other")
    links = (Link(container="db", alias="Database"), Link(container="other", alias="far"))
    web = await start(engine, "web", networks=(NetworkRequest(network="mine"),), links=links)
    for name in ("db", "db.mine", "DB.Mine", "database"):
        assert "10.77.0.50" in await said(engine, web, "nslookup", name), name
    assert engine.inspect("other").networks[0].address.partition("/")[0] not in await said(
        engine, web, "nslookup", "far"
    )
    for name in ("db.other", "database.mine"):
        assert not await resolves(engine, web, name), name
    assert not await resolves(engine, db, "database")
    assert engine.inspect(web).config.links[0].container == db
    with pytest.raises(Invalid, match="no such container: nosuch"):
        await start(engine, "lost", links=(Link(container="nosuch", alias="x"),))


async def seen(events: AsyncIterator[Event], *last: str) -> list[tuple[str, str, str]]:
    """Of events of networks, up to one of these actions: the action, and the network's and the container's name."""
    found = []
    async with asyncio.timeout(10):
        async for event in events:
            if event.type == "network":
                found.append((event.action, event.attributes["name"], event.attributes["container"]))
            if event.action in last:
                return found
    raise AssertionError("no more events")


async def test_a_new_name_is_found_and_the_old_one_no_longer(engine: Engine) -> None:
    web = await start(engine, "web")
    other = await start(engine, "other", networks=(NetworkRequest(network="bridge", aliases=("Db", "cache")),))
    far = await start(engine, "far", networks=(NetworkRequest(network="mine", aliases=("far-away",)),))
    assert await resolves(engine, other, "web")
    for taken in ("db", "cache"):
        with pytest.raises(Conflict, match="alias of container other on network bridge"):
            await engine.rename(web, taken)
    assert engine.inspect(web).name == "web" and await resolves(engine, other, "web")
    await engine.rename(other, "cache")  # its own alias
    await engine.rename(web, "far-away")  # on a network where it is not
    for client in (other, web):
        assert await resolves(engine, client, "far-away")
        assert not await resolves(engine, client, "web")
    assert "web" not in await said(engine, web, "cat", "/etc/hosts")
    assert far


async def test_networks_are_joined_and_left_at_start_and_end(engine: Engine) -> None:
    events = engine.events()
    both = (NetworkRequest(network="bridge"), NetworkRequest(network="mine"))
    id = await start(engine, "two", networks=both)
    assert await seen(events, "start") == [("connect", "bridge", id), ("connect", "mine", id)]
    await engine.stop(id)
    assert await seen(events, "die") == [("disconnect", "bridge", id), ("disconnect", "mine", id)]
    await engine.start(id)
    event = next(e for e in [e async for e in _kept(engine)] if e.type == "network")
    assert event.id == engine.networks.inspect("bridge").id
    assert event.attributes == {"container": id, "name": "bridge", "type": "bridge"}


async def _kept(engine: Engine) -> AsyncIterator[Event]:
    async with asyncio.timeout(10):
        async for event in engine.events(1):
            yield event
            if event.action == "start":
                return


async def test_a_running_container_is_connected_and_disconnected(engine: Engine) -> None:
    port = PortMapping(container_port=80, host_port=18080)
    web = await start(engine, "web", command=("httpd", "-f", "-p", "80", "-h", "/etc"), ports=(port,))
    peer = await start(engine, "peer", networks=(NetworkRequest(network="mine"),))
    events = engine.events()
    assert not await resolves(engine, peer, "web")
    await engine.connect(web, NetworkRequest(network="mine", address="10.77.0.9", aliases=("www",)))
    assert "10.77.0.9/24" in await said(engine, web, "ip", "-4", "addr", "show", "eth1")
    assert "root" in await said(engine, peer, "wget", "-qO-", "http://www/passwd")
    assert await resolves(engine, web, "peer")
    with pytest.raises(Conflict, match="is on network mine already"):
        await engine.connect(web, NetworkRequest(network="mine"))
    with pytest.raises(Conflict, match="already in use"):
        await engine.connect(await start(engine, "late"), NetworkRequest(network="mine", address="10.77.0.9"))
    assert [one.network for one in engine.inspect(web).networks] == ["bridge", "mine"]

    # Without the network it began with: default route, resolver and published port move to the other.
    await engine.disconnect(web, "bridge")
    assert await seen(events, "disconnect") == [
        *(("connect", "mine", web), ("connect", "bridge", engine.inspect("late").id), ("disconnect", "bridge", web))
    ]
    assert "eth0" not in await said(engine, web, "ip", "link")
    assert "default via 10.77.0.1" in await said(engine, web, "ip", "route")
    assert await resolves(engine, web, "peer")
    assert "root" in await published()
    await engine.connect(web, NetworkRequest(network="bridge"))  # again: eth0 is free
    assert "eth0" in await said(engine, web, "ip", "link")
    await engine.disconnect(web, "mine")
    assert "root" in await published() and not await resolves(engine, peer, "www")
    with pytest.raises(NotFound, match="is not on network mine"):
        await engine.disconnect(web, "mine")
    late = engine.inspect("late").id
    await engine.disconnect(late, "bridge")
    assert "eth" not in await said(engine, late, "ip", "link")
    await engine.restart(late)
    assert engine.inspect(late).networks == () and "eth" not in await said(engine, late, "ip", "link")
    with pytest.raises(Invalid, match="publishes ports but has no network"):
        await engine.disconnect(web, "bridge")
        await engine.restart(web)


async def published() -> str:
    return await run("curl", "-sS", "-m5", "http://127.0.0.1:18080/passwd")


async def test_one_that_does_not_run_joins_at_its_start(engine: Engine) -> None:
    id = await engine.create(ContainerConfig(image="busybox", command=("sleep", "100"), stop_signal="KILL"), "made")
    await engine.connect(id, NetworkRequest(network="mine"))
    await engine.disconnect(id, "bridge")
    await engine.start(id)
    assert [one.network for one in engine.inspect(id).networks] == ["mine"]
    await engine.stop(id)
    await engine.connect(id, NetworkRequest(network="bridge"))
    await engine.start(id)
    assert [one.network for one in engine.inspect(id).networks] == ["mine", "bridge"]
    host = await engine.create(ContainerConfig(image="busybox", command=("true",), network_mode="host"), "host")
    with pytest.raises(Invalid, match="uses the host's network"):
        await engine.connect(host, NetworkRequest(network="mine"))
