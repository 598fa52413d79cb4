"""Real containers: what the program inside sees, how it ends, and that nothing of it is left."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from swarmd.runtime import launch
from swarmd.runtime.errors import Conflict, Invalid, NotFound, StartError
from swarmd.runtime.model import (
    BindMount,
    Health,
    HealthState,
    Limits,
    LogConfig,
    Phase,
    Security,
    TmpfsMount,
    Ulimit,
)
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]


async def test_the_program_is_confined(host: Host) -> None:
    ran = await host.run("echo $$; hostname; cat /proc/self/status; ls /proc/self/fd; umask", hostname="here")
    lines = ran.out.splitlines()
    assert lines[:2] == ["1", "here"]
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status["CapEff"] == status["CapBnd"] == "00000000a80425fb"
    assert status["CapInh"] == status["CapAmb"] == "0000000000000000"
    assert status["Seccomp"] == "2"
    assert lines[-5:] == ["0", "1", "2", "3", "0022"], "descriptor 3 is ls's own"


async def test_the_host_is_out_of_sight(host: Host) -> None:
    ran = await host.run(
        "wc -c < /proc/timer_list; ls /sys/firmware | wc -l; echo 1 > /proc/sys/vm/swappiness; touch /sys/x;"
        "mknod /tmp/d b 254 0 && cat /tmp/d; ip link | grep -c ': '; mount | grep -c old"
    )
    assert ran.out.split() == ["0", "0", "1", "0"]
    assert ran.err.count("Read-only file system") == 2
    assert "can't open '/tmp/d'" in ran.err


async def test_a_user_by_name_has_its_groups_and_no_capabilities(host: Host) -> None:
    ran = await host.run("id; echo $HOME; pwd; grep -E 'CapEff|NoNew' /proc/self/status", user="app", workdir="/a/b",
                         security=Security(no_new_privileges=True))  # fmt: skip
    assert ran.out.splitlines()[:3] == [
        "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)",
        "/home/app",
        "/a/b",
    ]
    assert "CapEff:\t0000000000000000" in ran.out
    assert "NoNewPrivs:\t1" in ran.out


async def test_mounts_are_as_asked_for(host: Host) -> None:
    source = host.root / "source"
    source.mkdir()
    (source / "file").write_text("from the host")
    mounts = (
        BindMount(source=str(source), target="/data/ro", read_only=True),
        BindMount(source=str(source / "file"), target="/etc/one"),
        TmpfsMount(target="/data", size=1 << 20),
    )
    script = "cat /data/ro/file /etc/one; touch /data/ro/x; touch /x; dd if=/dev/zero of=/data/big bs=1M count=2"
    ran = await host.run(script, mounts=mounts, security=Security(read_only_root=True))
    assert ran.out == "from the host" * 2
    assert ran.err.count("Read-only file system") == 2
    assert "No space left" in ran.err


async def test_a_symlink_in_the_image_leads_no_mount_out_of_it(host: Host) -> None:
    id = await host.make("cat", "/trap/inside/file")
    upper = host.root / "data/containers" / id / "upper"
    outside = host.root / "outside"
    outside.mkdir()
    (upper / "trap").symlink_to(outside)
    await host.engine.remove(id)
    source = host.root / "file"
    source.write_text("x")
    id = await host.make("true", mounts=(BindMount(source=str(source), target="/trap/file"),))
    (host.root / "data/containers" / id / "upper" / "trap").symlink_to(outside)
    with pytest.raises(StartError, match="symlink that leads nowhere"):
        await host.engine.start(id)
    assert not list(outside.iterdir())


async def test_init_reaps_and_passes_signals_on(host: Host) -> None:
    script = "trap 'exit 9' TERM; echo $$; head -1 /proc/1/status; while :; do sleep 0.1; done"
    id = await host.start("sh", "-c", script, init=True, stop_timeout=10)
    log = host.root / "data/containers" / id / "container.log"
    await until("output", lambda: "swarmd-init" in log.read_text())
    await host.engine.stop(id)
    assert (await host.engine.wait(id)).code == 9


async def test_a_terminal(host: Host) -> None:
    ran = await host.run("tty; test -t 0 && test -t 2 && echo yes; cat /dev/console > /dev/null & exit 5", tty=True)
    assert ran.exit.code == 5
    assert ran.out == "/dev/pts/0\r\nyes\r\n"


async def test_sysctls_and_ulimits(host: Host) -> None:
    ran = await host.run(
        "cat /proc/sys/net/ipv4/ip_forward; ulimit -n",
        sysctls={"net.ipv4.ip_forward": "1"},
        ulimits=(Ulimit(name="nofile", soft=99, hard=100),),
    )
    assert ran.out.split() == ["1", "99"]


async def test_privileged_has_what_the_host_has(host: Host) -> None:
    ran = await host.run("mount -t tmpfs x /tmp && grep Seccomp: /proc/self/status", security=Security(privileged=True))
    assert ran.out.strip() == "Seccomp:\t0"


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("sh -c 'kill -TERM $$'; exit $?", 143)])
async def test_exit_codes(host: Host, script: str, code: int) -> None:
    assert (await host.run(script)).exit.code == code


async def test_memory_limit_ends_in_137_with_a_reason(host: Host) -> None:
    ended = (await host.run("x=a; while :; do x=$x$x; done", limits=Limits(memory=16 << 20))).exit
    assert (ended.code, ended.oom_killed) == (137, True)


async def test_a_device_that_was_not_given_can_be_made_but_not_opened(host: Host) -> None:
    script = "mount -t tmpfs t /tmp; cd /tmp; mknod kmsg c 1 11 && mknod null c 1 3; echo > null && echo fine; cat kmsg"
    ran = await host.run(script, security=Security(cap_add=("SYS_ADMIN",)))
    assert (ran.out, ran.err) == ("fine\n", "cat: can't open 'kmsg': Operation not permitted\n")


async def test_pids_limit(host: Host) -> None:
    ran = await host.run("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait", limits=Limits(pids=5))
    assert "can't fork" in ran.err


@pytest.mark.parametrize(
    ("command", "config", "code", "message"),
    [
        (("nosuch",), {}, 127, "program: nosuch: executable file not found in $PATH"),
        (("/nosuch",), {}, 127, "program: /nosuch: no such file or directory in the image"),
        (("/etc/not-a-program",), {}, 126, "program: /etc/not-a-program: permission denied"),
        (("true",), {"user": "ghost"}, 126, "user: ghost: no such user"),
        (
            ("true",),
            {"mounts": (BindMount(source="/bin/busybox", target="/etc"),)},
            125,
            "mount: /etc: a file can't take the place of a directory",
        ),
        (("true",), {"workdir": "/etc/passwd"}, 126, "working directory: /etc/passwd"),
    ],
)
async def test_a_start_that_fails_says_why(
    host: Host, command: tuple[str, ...], config: dict[str, Any], code: int, message: str
) -> None:
    id = await host.make(*command, **config)
    with pytest.raises(StartError, match=re.escape(message)) as caught:
        await host.engine.start(id)
    state = host.engine.inspect(id)
    assert caught.value.exit_code == code
    assert state.phase is Phase.EXITED
    assert state.exit is not None and state.exit.code == code and message in state.exit.error


async def test_what_can_never_work_is_refused_when_created(host: Host) -> None:
    with pytest.raises(NotFound, match="No such image: nosuch"):
        await host.make("true", image="nosuch")
    with pytest.raises(Invalid, match="capability CAP_FLY"):
        await host.make("true", security=Security(cap_add=("fly",)))
    with pytest.raises(Invalid, match=r"sysctl kernel.panic"):
        await host.make("true", sysctls={"kernel.panic": "1"})
    await host.make("true", name="web")
    with pytest.raises(Conflict, match="the name web is taken"):
        await host.make("true", name="web")


async def test_stop_waits_for_the_grace_period_then_kills_all(host: Host) -> None:
    id = await host.start("sh", "-c", "trap '' TERM; sleep 100 & sleep 100")
    await host.engine.stop(id, timeout=0.1)
    assert (await host.engine.wait(id)).code == 137
    id = await host.start("sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.05; done")
    await host.engine.stop(id, timeout=10)
    assert (await host.engine.wait(id)).code == 4


async def test_exec(host: Host) -> None:
    id = await host.start("sleep", "100", name="web", env=("A=1",))
    result = await host.engine.exec(
        "web", ["sh", "-c", "echo $A$B; echo err >&2; id -u; cat /proc/self/status; exit 4"], env=["B=2"], user="app"
    )
    assert (result.exit_code, result.stderr) == (4, b"err\n")
    assert result.stdout.startswith(b"12\n1000\n")
    assert b"CapBnd:\t00000000a80425fb" in result.stdout and b"Seccomp:\t2" in result.stdout
    with pytest.raises(TimeoutError):
        await host.engine.exec("web", ["sleep", "50"], timeout=0.1)
    with pytest.raises(StartError, match="program: nosuch"):
        await host.engine.exec("web", ["nosuch"])
    big = await host.engine.exec("web", ["dd", "if=/dev/zero", "bs=1M", "count=3"])
    assert len(big.stdout) == 1 << 20
    assert (await host.engine.exec(id, ["ps"])).stdout.count(b"sleep") == 1


async def test_health_follows_the_probe(host: Host) -> None:
    events = host.engine.events()
    probe = Health(test=("CMD-SHELL", "test -e /ok"), interval=0.05, retries=2, timeout=5)
    id = await host.start("sh", "-c", "sleep 0.3; touch /ok; sleep 100", health=probe)
    assert host.engine.inspect(id).health is HealthState.STARTING
    await until("healthy or unhealthy", lambda: host.engine.inspect(id).health is not HealthState.STARTING)
    await until("healthy", lambda: host.engine.inspect(id).health is HealthState.HEALTHY)
    await host.engine.exec(id, ["rm", "/ok"])
    await until("unhealthy", lambda: host.engine.inspect(id).health is HealthState.UNHEALTHY)
    assert host.engine.inspect(id).health_log[-1].exit_code == 1
    seen: list[str] = []
    async for event in events:
        seen.append(event.action)
        if seen[-2:] == ["health_status: healthy", "health_status: unhealthy"]:
            break
    assert seen[:2] == ["create", "start"]


async def test_logs_are_followed_across_rotation_to_the_last_line(host: Host) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; printf 'no newline \\377'"
    id = await host.make("sh", "-c", script, log=LogConfig(max_size=40_000, max_file=20))
    await host.engine.start(id)
    lines = [entry.data async for entry in host.engine.logs(id, follow=True)]
    assert lines == [*(b"line %d\n" % i for i in range(3000)), b"no newline \xff"]
    assert [e.data async for e in host.engine.logs(id, tail=1)] == [b"no newline \xff"]
    assert len(list((host.root / "data/containers" / id).glob("container.log*"))) > 3


async def test_compressed_logs_are_followed_to_the_last_line(host: Host) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"
    id = await host.make("sh", "-c", script, log=LogConfig(driver="local", compress=True, max_size=20_000, max_file=99))
    await host.engine.start(id)
    assert [entry.data async for entry in host.engine.logs(id, follow=True)] == [b"line %d\n" % i for i in range(3000)]
    rotated = list((host.root / "data/containers" / id).glob("container.log.*"))
    assert len(rotated) > 3 and {path.suffix for path in rotated} == {".gz"}


async def test_without_a_log_the_output_goes_nowhere(host: Host) -> None:
    device = Path("/dev/null").stat().st_rdev
    id = await host.start("sh", "-c", "dd if=/dev/zero bs=64k count=10", log=LogConfig(driver="none", max_size=1000))
    assert (await host.engine.wait(id)).code == 0
    assert Path("/dev/null").stat().st_rdev == device
    with pytest.raises(Invalid, match="keeps no log"):
        host.engine.logs(id)


async def test_on_failure_restarts_so_often_and_no_more(host: Host) -> None:
    id = await host.start("sh", "-c", "exit 1", restart="on-failure:2")
    await until("two restarts", lambda: host.engine.inspect(id).restart_count == 2)
    await until("its end", lambda: host.engine.inspect(id).phase is Phase.EXITED)


async def test_always_restarts_until_stopped(host: Host) -> None:
    id = await host.start("sleep", "100", restart="always")
    first = host.engine.inspect(id).pid
    os.kill(first, 9)
    second = await until("a new pid", lambda: host.engine.inspect(id).pid not in (0, first))
    assert second
    await host.engine.stop(id, timeout=0)
    assert host.engine.inspect(id).phase is Phase.EXITED


async def test_auto_remove(host: Host) -> None:
    await host.start("true", name="gone", auto_remove=True)
    await until("its removal", lambda: not host.engine.list())
    await host.make("true", name="gone")


async def test_auto_remove_after_a_start_that_failed_in_whatever_way(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ValueError("something nobody thought of")

    monkeypatch.setattr(launch, "prepare", broken)
    with pytest.raises(ValueError, match="nobody thought of"):
        await host.start("true", auto_remove=True)
    assert host.engine.list() == []
