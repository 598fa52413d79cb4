"""swarmctl build and docker build on a real engine: contexts, secrets, outputs, the cache of other hosts, Ctrl-C."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.host.attached import served
from tests.host.engine_host import Host, until
from tests.registry.distribution import registry

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
needs_docker = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")
needs_registry = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")


@pytest.fixture
async def api(host: Host) -> AsyncIterator[Path]:
    async with served(host.engine, host.root) as path:
        yield path


@pytest.fixture
def place(host: Host) -> Path:
    """A context."""
    place = host.root / "context"
    place.mkdir()
    return place


async def _begun(api: Path, program: str, *words: str) -> asyncio.subprocess.Process:
    commands = {"swarmctl": (sys.executable, "-m", "swarmd.swarmctl.main"), "docker": ("docker",)}
    env = {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": "/nosuch", "SWARMCTL_CONFIG": "/nosuch"}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *commands[program], "-H", f"unix://{api}", *words, stdin=pipe, stdout=pipe, stderr=pipe, env=env
    )


async def said(api: Path, *words: str, code: int = 0, stdin: bytes = b"") -> str:
    """What a command prints, standard error last."""
    process = await _begun(api, *words)
    async with asyncio.timeout(50):
        out, err = await process.communicate(stdin)
    text = (out + err).decode()
    assert process.returncode == code, f"{words}: {text}"
    return text


async def shown(host: Host, image: str, script: str) -> str:
    ran = await host.run(script, image=image, entrypoint=())
    assert ran.exit.code == 0, ran
    return ran.out


async def test_swarmctl_builds(api: Path, host: Host, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHO", "world")
    (place / "src").mkdir()
    (place / "src/main").write_text("main\n")
    (place / "src/main").chmod(0o755)
    (place / "secret.txt").write_text("not sent")
    (place / ".dockerignore").write_text("secret.txt\nDockerfile\n")
    (place / "Dockerfile").write_text("""\
FROM busybox AS tools
RUN echo tool > /tool
FROM busybox
ARG WHO
COPY . /app/
COPY --from=tools /tool /app/
RUN --mount=type=secret,id=key --mount=type=ssh \\
    wc -c < /run/secrets/key > /app/key; test -S $SSH_AUTH_SOCK; echo hello $WHO | tee /app/said
maintainer me
""")
    (host.root / "key").write_bytes(b"k" * 300_000)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(f"/tmp/agent-{host.root.name}")
        agent.listen()
        try:
            words = ["--secret", f"id=key,src={host.root}/key", "--ssh", f"default=/tmp/agent-{host.root.name}"]
            words += ["--build-arg", "WHO", "--progress", "plain", "-t", "made", str(place)]
            text = await said(api, "swarmctl", "build", *words)
            again = await said(api, "swarmctl", "build", *words)
        finally:
            Path(f"/tmp/agent-{host.root.name}").unlink()
    assert "hello world\n" in text and "] RUN --mount" in text and "MaintainerDeprecated" in text
    assert again.count(" CACHED\n") == 4 and "4 of them cached" in again and "as made:latest in" in again
    script = "cat /app/said /app/key /app/tool; find /app | sort; /bin/ls -l /app/src/main | cut -c1-10"
    found = ["/app", "/app/.dockerignore", "/app/key", "/app/said", "/app/src", "/app/src/main", "/app/tool"]
    assert (await shown(host, "made", script)).splitlines() == ["hello world", "300000", "tool", *found, "-rwxr-xr-x"]
    assert "tools" not in await said(api, "swarmctl", "build", "--target", "tools", "-q", str(place))
    checked = await said(api, "swarmctl", "build", "--check", str(place), code=1)
    assert checked.splitlines()[0].startswith("Dockerfile:9: ")


async def test_a_dockerfile_from_standard_input_and_one_elsewhere(api: Path, host: Host, place: Path) -> None:
    (place / "f").write_text("context\n")
    other = host.root / "Other"
    other.write_text("FROM busybox\nCOPY f /f\n")
    await said(api, "swarmctl", "build", "-f", str(other), "-t", "one", "--compress", str(place))
    assert await shown(host, "one", "cat /f") == "context\n"
    await said(api, "swarmctl", "build", "-t", "two", "-", stdin=b"FROM one\nRUN echo more >> /f\n")
    assert await shown(host, "two", "cat /f") == "context\nmore\n"
    wrong = await said(api, "swarmctl", "build", "-f", "-", str(place), code=1, stdin=b"FROM busybox\nCOPY g /f\n")
    assert "Dockerfile:2: 'g' is not in the build context" in wrong and "    2 | COPY g /f\n      |      ^\n" in wrong
    failed = await said(api, "swarmctl", "build", "-", code=7, stdin=b"FROM busybox\nRUN echo why; exit 7\n")
    assert "ended with exit code 7: why" in failed


async def test_outputs(api: Path, host: Host, place: Path) -> None:
    (place / "Dockerfile").write_text("FROM busybox\nRUN echo made > /f; ln /f /etc/hard; rm /bin/wget\n")
    out = host.root / "out"
    words = ["-o", str(out), "-o", f"type=tar,dest={out}.tar", "-o", f"type=oci,dest={out}.oci"]
    text = await said(api, "swarmctl", "build", *words, str(place))
    assert "swarmd-build-output" not in text
    assert (out / "f").read_text() == "made\n" and (out / "f").stat().st_nlink == 2
    assert (out / "bin/busybox").exists() and not (out / "bin/wget").is_symlink()
    with tarfile.open(f"{out}.tar") as tar:
        assert {"f", "etc/hard", "bin/busybox"} <= {*tar.getnames()} and "bin/wget" not in tar.getnames()
    with tarfile.open(f"{out}.oci") as tar:
        assert {"oci-layout", "index.json"} <= {*tar.getnames()}
    assert [image.refs for image in host.engine.images.list()] == [("docker.io/library/busybox:latest",)]
    await said(api, "swarmctl", "load", "-i", f"{out}.oci")
    assert len(host.engine.images.list()) == 2


async def test_ctrl_c_leaves_nothing(api: Path, host: Host, place: Path) -> None:
    (place / "Dockerfile").write_text("FROM busybox\nRUN echo begun; sleep 1000\n")
    process = await _begun(api, "swarmctl", "build", "-t", "never", "--progress", "plain", str(place))
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while b" begun" not in await process.stderr.readline():
            pass
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        await process.communicate()
    assert process.returncode == 130
    await until("the step's container is gone", lambda: not host.engine.list())
    work = host.root / "data/builds/work"
    await until("its files are gone", lambda: work.is_dir() and [path.name for path in work.iterdir()] == ["empty"])
    assert len(host.engine.images.list()) == 1


async def test_a_client_that_goes_while_it_sends_leaves_nothing(api: Path, host: Host) -> None:
    process = await _begun(api, "swarmctl", "build", "-")
    assert process.stdin is not None
    header = tarfile.TarInfo("big")
    header.size = 8 << 20
    process.stdin.write(header.tobuf() + bytes(4 << 20))
    work = host.root / "data/builds/work"
    await until("it has begun", lambda: [*work.glob("*/context")])
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        await process.communicate()
    assert process.returncode == 130
    await until("its files are gone", lambda: [path.name for path in work.iterdir()] == ["empty"])


async def test_what_is_refused_before_the_context_is_read(api: Path, place: Path) -> None:
    (place / "Dockerfile").write_text("FROM busybox\n")
    (place / "big").write_bytes(os.urandom(20 << 20))
    refused = await said(api, "swarmctl", "build", "-t", "UPPER", str(place), code=1)
    assert refused.splitlines()[-1].startswith("swarmctl: ") and "UPPER" in refused


WRONG = (b"", b"no JSON\n", b'{"secrets": 1}\n', b'{"secrets": {"a": "?"}}\n', b'{"odd": 1}\n')


@pytest.mark.parametrize("line", WRONG)
async def test_a_wrong_line_before_the_context_is_refused(api: Path, line: bytes) -> None:
    headers = {"Content-Type": "application/vnd.swarmd.build"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(api))) as session,
        session.post("http://host/build", data=line, headers=headers) as answer,
    ):
        assert answer.status == 400
        assert "line of JSON" in (await answer.json())["message"]


@needs_docker
async def test_docker_builds(api: Path, host: Host, place: Path) -> None:
    (place / "a").write_text("a\n")
    (place / "b").write_text("b\n")
    (place / ".dockerignore").write_text("b\nDockerfile\n")
    (place / "Dockerfile").write_text("FROM busybox\nARG V=1\nCOPY . /c/\nRUN echo $V > /v\nCMD cat /v\n")
    text = await said(api, "docker", "build", "-t", "made", "--build-arg", "V=2", "--label", "x=y", str(place))
    assert "Step 4/5 : RUN echo $V > /v" in text and "Successfully tagged made:latest" in text
    assert "[Warning] Dockerfile:5: JSONArgsRecommended" in text
    assert await shown(host, "made", "cat /v; ls -A /c") == "2\n.dockerignore\na\n"
    assert host.engine.images.get("made").config.labels == {"x": "y"}
    again = await said(api, "docker", "build", "-q", "--build-arg", "V=2", "--label", "x=y", str(place))
    assert again.split()[0] == host.engine.images.get("made").id
    bad = await said(api, "docker", "build", "-", code=1, stdin=b"FROM busybox\nCOPPY a b\n")
    assert "unknown instruction COPPY: did you mean COPY?\n    2 | COPPY a b\n      | ^^^^^\n" in bad
    failed = await said(api, "docker", "build", "-", code=3, stdin=b"FROM busybox\nRUN exit 3\n")
    assert "ended with exit code 3" in failed
    assert "Build Cache" in await said(api, "docker", "system", "df")
    assert "Total reclaimed space: " in await said(api, "docker", "builder", "prune", "-af")
    assert "Total:" in await said(api, "swarmctl", "builder", "du")


@needs_registry
@pytest.mark.parametrize("program", ["swarmctl", pytest.param("docker", marks=needs_docker)])
async def test_steps_are_taken_from_an_image_in_a_registry(api: Path, host: Host, place: Path, program: str) -> None:
    (place / "f").write_text("f\n")
    (place / "Dockerfile").write_text("FROM busybox\nCOPY f /f\nRUN date +%N > /when; echo ran\nRUN true\n")
    with registry(host.root / "registry") as address:
        name = f"{address}/cached:1"
        inline = ["--build-arg", "BUILDKIT_INLINE_CACHE=1"]
        await said(api, program, "build", *inline, "-t", name, str(place))
        first = host.engine.images.get(name)
        when = await shown(host, name, "cat /when")
        tells = json.loads(host.engine.images.blobs.read(first.variant.configuration.digest))
        assert len(tells["swarmd.build.steps"]) == 3
        await said(api, "swarmctl", "push", "-q", name)
        await said(api, "swarmctl", "rmi", name)
        await said(api, "swarmctl", "builder", "prune", "-af")
        assert not host.engine.builder.records()
        (place / "f").write_text("other\n")
        await said(api, program, "build", "--cache-from", name, "-t", "other", str(place))
        assert not any(map(host.engine.images.layers.has, first.variant.diff_ids[1:]))  # none was of any use
        (place / "f").write_text("f\n")
        text = await said(api, program, "build", *inline, "--cache-from", name, "-t", "again", str(place))
        assert text.count("Using cache" if program == "docker" else " CACHED\n") == 3
        assert host.engine.images.get("again").id == first.id
        assert await shown(host, "again", "cat /when") == when
        other = await said(api, program, "build", "--cache-from", f"{address}/nosuch", "-t", "x", str(place))
        assert f"no steps of {address}/nosuch can be used" in other
