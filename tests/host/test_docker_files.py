"""The docker command on a real engine: cp in every form it has, export and diff; and archives that are cut off."""

import asyncio
import io
import os
import shutil
import signal
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from swarmd.runtime.model import Security
from tests.host.attached import served
from tests.host.engine_host import Host, until
from tests.host.test_docker_attach import docker_command
from tests.host.test_files import archive

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
needs_docker = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")


@pytest.fixture
async def api(host: Host) -> AsyncIterator[Path]:
    async with served(host.engine, host.root) as path:
        yield path


async def said(api: Path, *words: str, stdin: bytes = b"") -> bytes:
    """What a command that succeeds prints."""
    code, out, err = await docker_command(api, *words, stdin=stdin)
    assert code == 0, f"{words}: {err.decode()}"
    return out


def names(data: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return set(tar.getnames())


@needs_docker
async def test_cp_in(api: Path, host: Host) -> None:
    here = host.root / "here"
    (here / "d").mkdir(parents=True)
    (here / "d/f").write_text("1")
    (here / "one").write_text("one")
    os.chown(here / "one", 1234, 1234)
    await host.start("sleep", "60", name="web", user="app")
    await said(api, "cp", f"{here}/one", "web:/tmp")
    await said(api, "cp", f"{here}/one", "web:/tmp/two")
    await said(api, "cp", f"{here}/d", "web:/tmp/made")  # is not there: becomes it
    await said(api, "cp", f"{here}/d", "web:/tmp/made")  # is there: goes into it
    await said(api, "cp", f"{here}/d/.", "web:/home")
    await said(api, "cp", "-a", f"{here}/one", "web:/tmp/mine")
    await said(api, "cp", "-", "web:/var", stdin=archive(("t", "dir", ""), ("t/f", "file", b"tar")))
    listing = "cd /; for f in tmp/one tmp/two tmp/made/f tmp/made/d/f home/f var/t/f; do echo $f $(cat $f); done"
    seen = await said(api, "exec", "-u", "0", "web", "sh", "-c", f"{listing}; stat -c %u tmp/one tmp/mine")
    assert seen.decode().splitlines() == [
        *("tmp/one one", "tmp/two one", "tmp/made/f 1", "tmp/made/d/f 1", "home/f 1", "var/t/f tar", "1234", "1000")
    ]
    for words, message in (
        ((f"{here}/one", "web:/nope/x"), b"could not find the file /nope in container web"),
        ((f"{here}/d", "web:/tmp/one"), b"cannot copy directory"),
    ):
        code, _, err = await docker_command(api, "cp", *words)
        assert code == 1 and message in err.lower(), err
    await said(api, "exec", "-u", "0", "web", "sh", "-c", "ln -s made /tmp/a; ln -s a /tmp/b")
    await said(api, "cp", f"{here}/one", "web:/tmp/b")  # a link to a link to a directory
    assert await said(api, "exec", "web", "cat", "/tmp/made/one") == b"one"
    sealed = await host.start("sleep", "60", name="sealed", security=Security(read_only_root=True))
    code, _, err = await docker_command(api, "cp", f"{here}/one", f"{sealed}:/tmp")
    assert code == 1 and b"read-only" in err


@needs_docker
async def test_cp_out(api: Path, host: Host) -> None:
    there = host.root / "there"
    there.mkdir()
    script = "mkdir -p /d/e; echo 1 > /d/f; ln -s d /l; ln -s l /m; echo secret > /d/e/g"
    id = await host.start("sh", "-c", script, name="web")
    await host.engine.wait(id)
    await said(api, "cp", "web:/d/f", f"{there}/new")
    await said(api, "cp", "web:/d", str(there))
    await said(api, "cp", "web:/d", f"{there}/made")
    await said(api, "cp", "web:/d/.", f"{there}/inner")
    await said(api, "cp", "web:/m", f"{there}/link")
    await said(api, "cp", "-L", "web:/m", f"{there}/followed")
    await said(api, "cp", "web:/m/.", f"{there}/through")
    assert (there / "new").read_text() == "1\n" and (there / "link").is_symlink()
    for copy in ("d", "made", "inner", "followed", "through"):
        assert (there / copy / "e/g").read_text() == "secret\n"
    assert names(await said(api, "cp", "web:/d", "-")) == {"d", "d/e", "d/e/g", "d/f"}
    await said(api, "cp", "web:/", f"{there}/whole")
    assert (there / "whole/d/f").read_text() == "1\n" and sorted(p.name for p in there.iterdir()) == sorted(
        ("d", "followed", "inner", "link", "made", "new", "through", "whole")
    )
    code, _, err = await docker_command(api, "cp", "web:/nope", str(there))
    assert code == 1 and b"could not find the file /nope in container web" in err.lower()


@needs_docker
async def test_export_and_diff(api: Path, host: Host) -> None:
    id = await host.start("sh", "-c", "echo 1 > /new; rm /etc/group; mkdir /d; mkdir /tmp/t", name="web")
    await host.engine.wait(id)
    assert {"new", "bin/busybox", "d"} <= names(await said(api, "export", "web"))
    assert (await said(api, "diff", "web")).decode().splitlines() == [
        *("A /d", "C /etc", "D /etc/group", "A /new", "C /tmp", "A /tmp/t")
    ]


@pytest.mark.parametrize("path", ["archive?path=/", "export"])
async def test_an_archive_that_is_cut_off_is_not_taken_for_a_whole_one(api: Path, host: Host, path: str) -> None:
    id = await host.start("sh", "-c", "dd if=/dev/zero of=/big bs=1M count=48; exec sleep 60")
    await until("the file", lambda: (host.root / f"data/containers/{id}/upper/big").exists())
    connector = aiohttp.UnixConnector(str(api))
    url = f"http://docker/containers/{id}/{path}"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        assert response.status == 200
        await response.content.readexactly(1000)
        killed = archivers()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(response.content.read(), 20)
    assert len(killed) == 1


def archivers() -> list[int]:
    """The processes that make archives for this test's spawner."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().partition("(")[2].rpartition(")")
            parent = int(rest.split()[1])
            if name == "swarmd-archive" and Path(f"/proc/{parent}/stat").read_text().split()[3] == str(os.getpid()):
                found.append(int(status.parent.name))
        except (OSError, ValueError):
            continue
    return found
