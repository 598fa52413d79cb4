"""Builds with contexts that have names, stages that are built anew, and what is said of files that were left out."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.host.attached import served
from tests.host.engine_host import Host
from tests.host.test_docker_build import needs_docker, needs_registry, said, shown
from tests.registry.distribution import registry

pytestmark = pytest.mark.root


@pytest.fixture
async def api(host: Host) -> AsyncIterator[Path]:
    async with served(host.engine, host.root) as path:
        yield path


@pytest.fixture
def place(host: Host) -> Path:
    place = host.root / "context"
    place.mkdir()
    return place


async def test_directories_and_images_by_name(api: Path, host: Host, place: Path) -> None:
    lib, base = host.root / "lib", host.root / "base"
    (lib / "sub").mkdir(parents=True)
    (lib / "sub/f").write_text("lib\n")
    (lib / "link").symlink_to("sub/f")
    (base / "bin").mkdir(parents=True)
    (base / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (base / "bin/busybox").chmod(0o755)
    (base / "bin/sh").symlink_to("busybox")
    (place / "own").write_text("own\n")
    (place / "Dockerfile").write_text("""\
FROM nothing-anywhere AS stage
RUN exit 1
FROM debian:latest AS tools
COPY --from=lib link /copied
COPY own /
RUN --mount=from=lib,source=sub,target=/m cat /m/f > /mounted
FROM root
COPY --from=tools /copied /mounted /own /
COPY --from=stage /sub/f /stage
""")
    contexts = [f"lib={lib}", f"stage={lib}", f"root={base}", "docker.io/library/debian=docker-image://busybox"]
    words = [word for text in contexts for word in ("--build-context", text)]
    await said(api, "swarmctl", "build", *words, "-t", "made", str(place))
    assert await shown(host, "made", "cat /copied /mounted /own /stage; ls /") == (
        "lib\nlib\nown\nlib\nbin\ncopied\ndev\netc\nmounted\nown\nproc\nstage\nsys\n"
    )
    assert len(host.engine.images.get("made").layers) == 3
    again = await said(api, "swarmctl", "build", *words, "--progress", "plain", str(place))
    assert again.count(" CACHED\n") == 6
    (lib / "sub/f").write_text("other\n")
    await said(api, "swarmctl", "build", *words, "-t", "made", str(place))
    assert await shown(host, "made", "cat /copied /stage") == "other\nother\n"
    refused = await said(api, "swarmctl", "build", *words[2:], str(place), code=1)
    assert "Dockerfile:4: " in refused and "there is no such stage before this one\n    4 | COPY" in refused


async def test_a_directory_beside_a_repository(api: Path, host: Host, place: Path) -> None:
    (place / "f").write_text("beside\n")
    text = b"FROM busybox\nCOPY --from=d f /f\n"
    await said(api, "swarmctl", "build", "--build-context", f"d={place}", "-t", "made", "-", stdin=text)
    assert await shown(host, "made", "cat /f") == "beside\n"


async def test_a_stage_is_built_anew(api: Path, place: Path) -> None:
    (place / "Dockerfile").write_text(
        "FROM busybox AS one\nRUN echo 1 > /1\nFROM busybox AS two\nRUN echo 2 > /2\nCOPY --from=one /1 /\n"
    )
    for words, cached in (([], 0), ([], 3), (["--no-cache-filter", "TWO"], 1), (["--no-cache-filter", "one,two"], 0)):
        text = await said(api, "swarmctl", "build", "--progress", "plain", *words, str(place))
        assert text.count(" CACHED\n") == cached, text
    wrong = await said(api, "swarmctl", "build", "--no-cache-filter", "tow", str(place), code=1)
    assert "Dockerfile has no stage 'tow': did you mean two?" in wrong


@pytest.mark.parametrize("program", ["swarmctl", pytest.param("docker", marks=needs_docker)])
async def test_what_dockerignore_left_out_is_said(api: Path, place: Path, program: str) -> None:
    (place / "a.log").touch()
    (place / "kept").touch()
    (place / ".dockerignore").write_text("# no logs\n*.log\n!b.log\n")

    async def refused(source: str) -> str:
        (place / "Dockerfile").write_text(f"FROM busybox\nCOPY {source} /x/\n")
        return await said(api, program, "build", str(place), code=1)

    assert "'a.log' is not in the build context: .dockerignore leaves it out with '*.log'\n" in await refused("a.log")
    assert "'b.log' is not in the build context\n" in await refused("b.log")
    assert "'kep' is not in the build context: did you mean 'kept'?\n" in await refused("kep")


async def test_a_context_without_files(api: Path) -> None:
    text = await said(api, "swarmctl", "build", "-", code=1, stdin=b"FROM busybox\nCOPY a /\n")
    assert "'a' is not in the build context, which is empty\n" in text


@needs_registry
async def test_a_newer_base_is_pulled_if_that_is_asked_for(api: Path, host: Host) -> None:
    with registry(host.root / "registry") as address:
        name = f"{address}/base"
        for word in ("new", "old"):
            await said(
                api, "swarmctl", "build", "-t", name, "-", stdin=f"FROM busybox\nRUN echo {word} > /w\n".encode()
            )
            if word == "new":
                await said(api, "swarmctl", "push", "-q", name)
        for words, found in (([], "old\n"), (["--pull"], "new\n")):
            await said(api, "swarmctl", "build", *words, "-t", "made", "-", stdin=f"FROM {name}\nRUN true\n".encode())
            assert await shown(host, "made", "cat /w") == found


async def test_patterns_beside_a_dockerfile_in_an_archive(api: Path, host: Host, place: Path) -> None:
    (place / "sub").mkdir()
    for name, text in {
        "a": "a",
        "b": "b",
        "sub/Dockerfile": "FROM busybox\nCOPY . /c/\n",
        "sub/Dockerfile.dockerignore": "b\n**/Dockerfile*\n",
        ".dockerignore": "a\n",
    }.items():
        (place / name).write_text(text)
    archive = await asyncio.to_thread(subprocess.check_output, ["tar", "-C", place, "-c", "."], timeout=20)
    await said(api, "swarmctl", "build", "-f", "sub/Dockerfile", "-t", "made", "-", stdin=archive)
    assert await shown(host, "made", "cd /c; find . | sort | tr '\\n' ' '") == ". ./.dockerignore ./a ./sub "


async def test_an_image_as_docker_keeps_it_in_an_archive(api: Path, host: Host, place: Path) -> None:
    (place / "Dockerfile").write_text("FROM busybox\nRUN echo made > /made\n")
    out = host.root / "out.tar"
    await said(api, "swarmctl", "build", "-o", f"type=docker,dest={out}", "-t", "made:1", str(place))
    await said(api, "swarmctl", "rmi", "made:1")
    await said(api, "swarmctl", "load", "-i", str(out))
    assert await shown(host, "made:1", "cat /made") == "made\n"


async def test_a_check_knows_what_dockerignore_leaves_out(api: Path, place: Path) -> None:
    (place / ".dockerignore").write_text("*.log\n")
    text = "# check=skip=WorkdirRelativePath\nFROM busybox\nCOPY ./a.log b.txt /x/\nCOPY --from=busybox c.log /x/\n"
    (place / "Dockerfile").write_text(text)
    found = await said(api, "swarmctl", "build", "--check", str(place), code=1)
    why = "./a.log does not come into the build: .dockerignore leaves it out with '*.log'"
    assert found == f"Dockerfile:3: CopyIgnoredFile: {why}\n"
    (place / "Dockerfile").write_text(text.replace("WorkdirRelativePath", "CopyIgnoredFile"))
    assert "nothing is doubtful" in await said(api, "swarmctl", "build", "--check", str(place))


@needs_registry
async def test_a_build_is_pushed_and_described(api: Path, host: Host, place: Path) -> None:
    (place / "Dockerfile").write_text("FROM busybox\nLABEL x=y\n")
    with registry(host.root / "registry") as address:
        name = f"{address}/made:1"
        file = host.root / "metadata"
        words = ["--push", "--annotation", "org.example=yes", "--metadata-file", str(file), "-t", name]
        await said(api, "swarmctl", "build", *words, str(place))
        told = json.loads(file.read_text())
        assert told["image.name"] == name and told["containerimage.digest"] == host.engine.images.get(name).id
        curl = [
            "curl",
            "-sf",
            f"http://{address}/v2/made/manifests/1",
            "-H",
            "Accept: application/vnd.oci.image.manifest.v1+json",
        ]
        manifest = json.loads(await asyncio.to_thread(subprocess.check_output, curl, timeout=20))
        assert manifest["annotations"] == {"org.example": "yes"}
