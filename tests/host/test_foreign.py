"""Containers run by another OCI runtime: the same config, the same life."""

import os
import shutil
from pathlib import Path

import pytest

from swarmd.runtime.errors import Invalid, StartError
from swarmd.runtime.model import ImageMount, Limits, Namespaces, Security, TmpfsMount, Ulimit
from tests.host.engine_host import Host

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups"),
    pytest.mark.skipif(not shutil.which("runc"), reason="runc is not installed"),
]


async def test_runc_runs_what_ours_runs(host: Host) -> None:
    mounts = (TmpfsMount(target="/t"), ImageMount(image="busybox", target="/i"))
    nofile = Ulimit(name="nofile", soft=1 << 30, hard=1 << 30)
    ran = await host.run(
        "id; hostname; pwd; touch /x; grep -c Seccomp:.2 /proc/self/status; grep CapEff /proc/self/status;"
        "ls /i/bin/sh; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null;"
        "ulimit -n; echo err >&2; exit 7",
        runtime="runc", user="app", groups=("5",), hostname="here", workdir="/tmp", mounts=mounts, ulimits=(nofile,),
        limits=Limits(memory=64 << 20, pids=30), security=Security(read_only_root=True))  # fmt: skip
    lines = ran.out.splitlines()
    assert lines[:3] == ["uid=1000(app) gid=1000(app) groups=5,1000(app),2000(extra)", "here", "/tmp"], ran
    assert lines[3:6] == ["1", "CapEff:\t0000000000000000", "/i/bin/sh"]
    assert lines[6] == str(64 << 20) and int(lines[7]) > 1024
    assert "Read-only" in ran.err and ran.err.endswith("err\n") and ran.exit.code == 7


async def test_exec_signals_and_a_restart(host: Host) -> None:
    id = await host.start("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done", runtime="runc")
    inside = await host.engine.exec(id, ["sh", "-c", "echo in; id -u"])
    assert inside.stdout == b"in\n0\n"
    await host.engine.stop(id, 5)
    state = host.engine.inspect(id)
    assert state.exit is not None and state.exit.code == 9
    await host.engine.start(id)
    await host.engine.remove(id, force=True)


async def test_a_terminal(host: Host) -> None:
    ran = await host.run("tty; stty size", runtime="runc", tty=True)
    assert ran.out.startswith("/dev/pts/0")


async def test_what_it_says_when_it_fails(host: Host) -> None:
    id = await host.make("nosuch", runtime="runc")
    with pytest.raises(StartError, match=r"runc create: .*nosuch.*not found"):
        await host.engine.start(id)
    id = await host.make("true", runtime="runc", user="nobody-here")
    with pytest.raises(StartError, match="no such user"):
        await host.engine.start(id)


@pytest.mark.skipif(not shutil.which("crun"), reason="crun is not installed")
async def test_crun_too(host: Host) -> None:
    id = await host.make("sh", "-c", "exit 7", runtime="crun")
    try:
        await host.engine.start(id)
    except StartError as error:
        # crun refuses a cgroup v2 hierarchy with controllers beside those of v1; tests/vm has no such thing.
        assert "hybrid mode" in str(error) and Path("/sys/fs/cgroup/unified").is_dir()
        return
    assert (await host.engine.wait(id)).code == 7


async def test_what_it_can_not_do_is_refused(host: Host) -> None:
    with pytest.raises(Invalid, match="runtime nosuch is not on this host"):
        await host.make("true", runtime="nosuch")
    with pytest.raises(Invalid, match="an init can't be given by runtime runc"):
        await host.make("true", runtime="runc", init=True)
    with pytest.raises(Invalid, match="ids of its own can't be given by runtime runc"):
        await host.make("true", runtime="runc", namespaces=Namespaces(user="auto"))
