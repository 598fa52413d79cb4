"""What flags of `run` come to inside a container, by Docker's command line and by ours: what users found broken."""

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from swarmd.runtime.model import Health
from tests.host.attached import served
from tests.host.engine_host import Host, add_image, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
CLIENTS = ["swarmctl", pytest.param("docker", marks=pytest.mark.skipif(not shutil.which("docker"), reason="no docker"))]

Said = tuple[int, str, str]
Client = Callable[..., Awaitable[Said]]


@pytest.fixture
async def api(host: Host) -> AsyncIterator[Path]:
    async with served(host.engine, host.root) as path:
        yield path


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, api: Path) -> Client:
    program = ["docker"] if request.param == "docker" else [sys.executable, "-m", "swarmd.swarmctl.main"]

    async def run(*words: str) -> Said:
        process = await asyncio.create_subprocess_exec(
            *program, "-H", f"unix://{api}", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    return run


async def test_effects(host: Host, client: Client) -> None:
    await add_image(host.engine.images, "full", entrypoint=("sleep",), cmd=("1",), labels={"of": "image"})
    file, profile = host.root / "file", host.root / "profile.json"
    file.write_text("bound\n")
    actions = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    profile.write_text(json.dumps(actions))
    here = socket.gethostname()
    for flags, command, wanted in (
        (("--entrypoint", "", "full"), ("echo", "own"), "own\n"),
        (("-v", f"{file}:/etc/motd:ro", "busybox"), ("cat", "/etc/motd"), "bound\n"),
        (("-v", f"{host.root}/new/one:/x", "busybox"), ("ls", "-d", "/x"), "/x\n"),
        (("--network", "host", "busybox"), ("hostname",), f"{here}\n"),
        (("--network", "host", "-h", "own", "busybox"), ("hostname",), "own\n"),
        (("--device-cgroup-rule", "c 1:3 rwm", "busybox"), ("sh", "-c", "mknod /n c 1 3; cat /n; echo ok"), "ok\n"),
        (("--security-opt", f"seccomp={profile}", "busybox"), ("sh", "-c", "mkdir /d 2>&1; true"), "mkdir: can't"),
    ):  # fmt: skip
        network = () if "--network" in flags else ("--network", "none")
        code, out, err = await client("run", "--rm", *network, *flags, *command)
        assert (code, err) == (0, "") and out.startswith(wanted), (flags, code, out, err)
    code, out, err = await client("run", "--rm", "--network", "none", "busybox", "sh", "-c", "mknod /n c 1 3; cat /n")
    assert code == 1 and "permission denied" in err.lower()


async def test_refusals(host: Host, client: Client) -> None:
    """Each before anything is made, in a sentence that names what is wrong, and with the code of what never ran."""
    there, file = ("-v", f"{host.root}:/x"), host.root / "file"
    file.touch()
    for flags, sentence in (
        (("-w", "relative"), "working directory relative is not absolute"),
        (("--cpus", "0.001"), "0.001 CPUs are too few"),
        (("--cpu-quota", "100"), "CPU quota 100 is too small"),
        (("--cpu-period", "2000000"), "CPU period 2000000 is too long"),
        (("--cpu-shares", "-5"), "CPU shares -5 is too small"),
        (("--cpuset-cpus", "0-500"), "processors 0-500 are not all on this host"),
        (("--cpuset-cpus", "a"), "'a' is no list of numbers"),
        (("-v", f"{host.root}:/proc/x"), "mount: /proc/x: "),
        (("--oom-score-adj", "3000"), "3000 is not from -1000 to 1000"),
        ((*there, "--tmpfs", "/x/"), "mount target /x is given twice"),
        (("--mount", "type=bind,src=/not/here,dst=/x"), "the source /not/here of a mount is not on this host"),
        (("-v", f"{file}/below:/x"), f"{file}/below of a mount can't be made: not a directory"),
        (("--volumes-from", "nosuch"), "no such container: nosuch"),
        (("--add-host", "db:nowhere"), "nowhere"),
        (("--dns", "nowhere"), "nowhere"),
        (("--device", "/dev/nothing"), "device /dev/nothing: it is not there"),
        (("--sysctl", "net.ipv4.nothing=1"), "nothing: is not there"),
        (("-v", "name:/x"), "named volumes are not supported"),
        (("--mount", "type=volume,src=name,dst=/x"), "there are no volumes yet"),
        (("-v", "/x"), "there are no volumes yet"),
        (("--storage-opt", "size=1g"), "has no quota"),
        (("--cgroup-parent", "/mine"), "swarmd's own group"),
        (("--health-cmd", "true", "--health-retries", "-1"), "etries"),
    ):
        code, out, err = await client("run", "--rm", "--network", "none", *flags, "busybox", "true")
        assert (code, out) == (125, "") and sentence in err, (flags, code, out, err)
        assert "Unable to find image" not in err and "internal error" not in err
    assert [state for state in host.engine.list() if not state.started] == host.engine.list() == []


async def test_one_that_is_restarted_again_and_again_is_seen(host: Host, client: Client) -> None:
    await host.start("false", name="web", restart="always", labels={"tier": "front"})
    await until("a pause between starts", lambda: host.engine.inspect("web").restart_count > 4)
    for _ in range(5):
        code, out, _ = await client("ps", "--format", "{{.Names}}")
        assert (code, out) == (0, "web\n")
    await until("the pause", lambda: host.engine.inspect("web").restarting)
    code, _, err = await client("rm", "web")
    assert code == 1 and "stop it first" in err
    assert (await client("stop", "web"))[0] == 0
    assert (await client("ps", "--format", "{{.Names}}"))[1] == ""


async def test_what_the_image_says_is_filtered_for_and_inspected(host: Host, client: Client) -> None:
    probe = Health(test=("CMD", "true"), interval=7.0, timeout=3.0)
    await add_image(
        host.engine.images, "full", labels={"of": "image"}, exposed_ports=("90/sctp", "7777/tcp"),
        stop_signal="SIGUSR1", health=probe, volumes=("/data",),
    )  # fmt: skip
    code, _, err = await client(
        "run", "-d", "--name", "web", "--network", "none", "--health-retries", "9", "full", "sleep", "99"
    )
    assert code == 0, err
    for given, found in (("label=of=image", "web\n"), ("label=of=other", ""), ("expose=7777", "web\n")):
        assert (await client("ps", "--filter", given, "--format", "{{.Names}}"))[1] == found
    told = ("events", "--since", "1m", "--until", "1s", "--filter", "label=of=image", "--format", "{{.Action}}")
    async with asyncio.timeout(20):
        while "start" not in (await client(*told))[1].split():  # Docker's command asks for whole seconds
            pass
    config = json.loads((await client("inspect", "--format", "{{json .Config}}", "web"))[1])
    assert (config["StopSignal"], config["Volumes"]) == ("SIGUSR1", {"/data": {}})
    check = config["Healthcheck"]
    assert (check["Test"], check["Interval"], check["Timeout"]) == (["CMD", "true"], 7 * 10**9, 3 * 10**9)
    assert (check["Retries"], check["StartInterval"]) == (9, 5 * 10**9)


async def test_exec_goes_only_where_there_is_something(host: Host, client: Client) -> None:
    await host.start("sleep", "99", name="web")
    code, out, err = await client("exec", "-w", "/nowhere", "web", "true")
    assert code == 126 and "working directory: /nowhere" in out + err
    code, _, err = await client("exec", "-w", "etc", "web", "true")
    assert code == 1 and "working directory etc is not absolute" in err
    assert (await client("exec", "web", "ls", "-d", "/nowhere", "/etc"))[1] == "/etc\n"


async def test_a_shared_network_has_its_owners_name(host: Host, client: Client) -> None:
    owner = await host.start("sleep", "99", name="web", hostname="front")
    shared = ("run", "--rm", "--network", "container:web")
    assert await client(*shared, "busybox", "sh", "-c", "hostname; cat /etc/hostname; echo $HOSTNAME") == (
        *(0, "front\nfront\nfront\n", ""),
    )
    await host.engine.remove(owner, force=True)
