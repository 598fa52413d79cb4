"""What the cache of builds keeps, finds and gives back, by the API of a real engine."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.host.attached import served
from tests.host.builds import Builds
from tests.host.engine_host import Host
from tests.host.test_docker_build import said

pytestmark = pytest.mark.root


@pytest.fixture
async def api(host: Host) -> AsyncIterator[Path]:
    async with served(host.engine, host.root) as path:
        yield path


async def asked(api: Path, method: str, path: str, **query: str) -> Any:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(api))) as session,
        session.request(method, f"http://host{path}", params=query) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def kept(api: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await asked(api, "GET", "/system/df", type="build-cache"))["BuildCache"]
    return found


async def pruned(api: Path, filters: dict[str, list[str]] | None = None, **query: str) -> dict[str, Any]:
    more = {"filters": json.dumps(filters)} if filters else {}
    found: dict[str, Any] = await asked(api, "POST", "/build/prune", **query, **more)
    return found


MEGABYTE = 1 << 20


async def test_the_cache_shrinks_to_what_is_asked_for(api: Path, host: Host) -> None:
    builder = Builds(host)
    for name in ("a", "b", "c"):
        await builder.build(f"FROM busybox\nRUN head -c {MEGABYTE} /dev/urandom > /{name}\n")
    for image in [image for image in host.engine.images.list() if not image.refs]:
        await host.engine.images.remove(image.id)
    rows = sorted(await kept(api), key=lambda row: row["LastUsedAt"])
    sizes = [row["Size"] for row in rows]
    assert len(rows) == 3 and all(2 * MEGABYTE < size < 2.2 * MEGABYTE for size in sizes)  # packed and unpacked
    assert (await pruned(api, **{"keep-storage": str(sum(sizes))}))["CachesDeleted"] is None
    done = await pruned(api, **{"max-used-space": str(sum(sizes) - 1)})
    assert done == {"CachesDeleted": [rows[0]["ID"]], "SpaceReclaimed": sizes[0]}
    assert (await pruned(api, **{"min-free-space": "1"}))["CachesDeleted"] is None
    enormous = {"min-free-space": str(1 << 60), "reserved-space": str(sizes[2] + 1)}
    assert (await pruned(api, **enormous))["CachesDeleted"] == [rows[1]["ID"]]
    assert (await pruned(api, {"id": [rows[2]["ID"][:9]]}))["CachesDeleted"] == [rows[2]["ID"]]
    assert await kept(api) == []


async def test_directories_of_cache_mounts_go_when_they_are_meant_and_not_in_use(api: Path, host: Host) -> None:
    builder = Builds(host)
    text = "FROM busybox\nRUN --mount=type=cache,target=/c,id=mine {}\n"
    await builder.build(text.format(f"head -c {MEGABYTE} /dev/zero > /c/big"))
    assert [row["Description"] for row in await kept(api) if row["Type"] == "exec.cachemount"] == ["cached mount mine"]
    assert not any(len(id) == 32 for id in (await pruned(api))["CachesDeleted"] or [])
    running = asyncio.ensure_future(builder.build(text.format("echo begun; until test -e /c/go; do sleep 0.05; done")))
    async with asyncio.timeout(30):
        while "begun" not in builder.output():
            assert not running.done(), running.exception()
            await asyncio.sleep(0.01)
        assert [row["InUse"] for row in await kept(api) if row["Type"] == "exec.cachemount"] == [True]
        assert [len(id) for id in (await pruned(api, all="1"))["CachesDeleted"]] == [64]  # the first build's step
        next((host.root / "data/builds/mounts").glob("*/tree")).joinpath("go").touch()
        await running
    done = await pruned(api, {"type": ["exec.cachemount"]})
    assert len(done["CachesDeleted"]) == 1 and done["SpaceReclaimed"] >= MEGABYTE
    assert [row["Type"] for row in await kept(api)] == ["regular"]


def git(place: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", "-C", str(place), *who, *words], check=True, capture_output=True, timeout=20)


async def test_a_clone_elsewhere_has_the_steps_of_the_first_and_the_same_digest(api: Path, host: Host) -> None:
    first, second = host.root / "first", host.root / "second"
    first.mkdir()
    git(first, "init", "-q", "-b", "main")
    (first / "src").mkdir()
    (first / "src/a").write_text("a\n")
    (first / "src/run").write_text("#!/bin/sh\n")
    (first / "src/run").chmod(0o755)
    (first / "link").symlink_to("src/a")
    text = "FROM busybox\nCOPY . /app/\nWORKDIR /app/made\nRUN date > when && cp -p ../src/a copy\n"
    (first / "Dockerfile").write_text(text)
    git(first, "add", ".")
    git(first, "commit", "-qm", "first")
    (first / ".dockerignore").write_text(".git\n")
    git(host.root, "clone", "-q", str(first), str(second))
    (second / ".dockerignore").write_text(".git\n")
    for path in (second, *second.rglob("*")):
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    await said(api, "swarmctl", "build", "-t", "one", str(first))
    again = await said(api, "swarmctl", "build", "--progress", "plain", "-t", "two", str(second))
    assert again.count(" CACHED\n") == 3
    one, two = (host.engine.images.get(name).id for name in ("one", "two"))
    assert one == two


async def test_a_source_date_makes_the_same_of_files_of_any_times(
    api: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1500000000")
    place = host.root / "context"
    place.mkdir()
    (place / "a").write_text("a\n")
    (place / "Dockerfile").write_text("FROM busybox\nCOPY a /d/a\nWORKDIR /w\nRUN echo $SOURCE_DATE_EPOCH > f\n")
    found = []
    for time in (1_600_000_000, 1_700_000_000):
        os.utime(place / "a", (time, time))
        text = await said(api, "swarmctl", "build", "-q", "--no-cache", str(place))
        found.append(text.strip())
    assert found[0] == found[1]
    image = host.engine.images.get(found[0])
    assert image.variant.document.created == "2017-07-14T02:40:00Z"
    ran = await host.run("stat -c %Y /d /d/a /w /w/f", image=found[0])
    assert {*ran.out.split()} == {"1500000000"}, ran
