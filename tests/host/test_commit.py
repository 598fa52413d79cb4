"""Images made of containers: their files, deletions and configuration, of those that run and those that have ended."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.runtime.images.saving import save
from swarmd.runtime.model import Event, Phase
from tests.host.attached import served
from tests.host.engine_host import Host
from tests.host.test_docker_attach import docker_command

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
needs_docker = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")


@pytest.fixture
async def api(host: Host) -> AsyncIterator[Path]:
    async with served(host.engine, host.root) as path:
        yield path


async def said(api: Path, *words: str) -> str:
    code, out, err = await docker_command(api, *words)
    assert code == 0, f"{words}: {err.decode()}"
    return out.decode().strip()


async def inspected(api: Path, ref: str) -> dict[str, Any]:
    (found,) = json.loads(await said(api, "image", "inspect", ref))
    assert isinstance(found, dict)
    return found


@needs_docker
async def test_a_commit_has_what_was_made_and_not_what_was_removed(api: Path, host: Host) -> None:
    script = "echo new > /made; mkdir -p /d/e; rm /etc/group; ln -s made /link; ln /made /hard; chown app /d"
    id = await host.start("sh", "-c", script, name="web")
    await host.engine.wait(id)
    before = host.engine.images.list()[0]
    made = await said(
        api, "commit", "-a", "me <m@e>", "-m", "why", "-c", 'CMD ["cat", "/made"]', "-c", "ENV X=1", "web", "out:1"
    )
    shown = await inspected(api, "out:1")
    assert shown["Id"] == made and shown["Author"] == "me <m@e>" and shown["Comment"] == "why"
    assert shown["Config"]["Cmd"] == ["cat", "/made"] and "X=1" in shown["Config"]["Env"]
    assert shown["RootFS"]["Layers"][:-1] == list(before.variant.diff_ids)
    top = host.engine.images.get("out:1").layers[-1]
    names = {str(path.relative_to(top)) for path in top.rglob("*")}
    assert names == {"made", "d", "d/e", "etc", "etc/group", "link", "hard"}, names
    assert (top / "made").stat().st_nlink == 2 and (top / "d").stat().st_uid == 1000
    look = 'test "$(cat /made)" = new && ls -ld /d | grep -q app && test ! -e /etc/group'
    second = await host.start("sh", "-c", look, image="out:1")
    assert (await host.engine.wait(second)).code == 0


@needs_docker
async def test_a_container_that_runs_is_paused_meanwhile(api: Path, host: Host) -> None:
    id = await host.start("sh", "-c", "echo 1 > /f; exec sleep 600", name="web")
    seen: list[Event] = []

    async def listen() -> None:
        async for event in host.engine.events():
            seen.append(event)  # noqa: PERF401  (read while it grows)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await said(api, "exec", "web", "true")
    await said(api, "commit", "web", "one")
    assert [event.action for event in seen if event.action in ("pause", "unpause", "commit")] == [
        *("pause", "unpause", "commit")
    ]
    seen.clear()
    await said(api, "commit", "--pause=false", "web", "two")
    assert "pause" not in [event.action for event in seen]
    listening.cancel()
    state = host.engine.inspect(id)
    assert state.phase is Phase.RUNNING and not state.paused
    shown = await inspected(api, "one")
    assert shown["Config"]["Cmd"] == ["sh", "-c", "echo 1 > /f; exec sleep 600"]


@needs_docker
async def test_a_container_that_changed_nothing_adds_no_layer(api: Path, host: Host) -> None:
    id = await host.start("true", name="web")
    await host.engine.wait(id)
    before = host.engine.images.list()[0]
    await said(api, "commit", "web", "same")
    image = host.engine.images.get("same")
    assert image.variant.diff_ids == before.variant.diff_ids and image.id != before.id
    async for _ in save(host.engine.images, [(image, image.refs)]):
        pass


@needs_docker
async def test_what_cannot_be_committed_is_said(api: Path, host: Host) -> None:
    await host.start("sleep", "600", name="web")
    for words, message in (
        (("nosuch", "x"), b"nosuch"),
        (("web", "sha256"), b"digest"),
        (("-c", "RUN x", "web", "x"), b"change"),
    ):
        code, _, err = await docker_command(api, "commit", *words)
        assert code == 1 and message in err, err
    assert len(host.engine.images.list()) == 1
    assert not host.engine.inspect("web").paused
