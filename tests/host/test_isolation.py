"""Namespaces, ids, devices and mounts, as the program inside sees them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swarmd.runtime.errors import Conflict, Invalid, StartError
from swarmd.runtime.model import (
    BindMount,
    Device,
    DeviceRule,
    ImageMount,
    Limits,
    Namespaces,
    Security,
    TmpfsMount,
    Ulimit,
)
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]


def shell(command: str) -> None:
    subprocess.run(command, shell=True, check=True)


AUTO = Namespaces(user="auto")


def links(pid: int | str = "self") -> dict[str, str]:
    kinds = ("pid", "ipc", "uts", "cgroup", "user", "mnt", "net")
    return {kind: str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in kinds}


async def test_each_has_namespaces_of_its_own(host: Host) -> None:
    id = await host.start("sleep", "60")
    theirs, ours = links(host.engine.inspect(id).pid), links()
    assert {kind for kind in ours if ours[kind] == theirs[kind]} == {"user"}


async def test_those_of_the_host_when_asked(host: Host) -> None:
    wanted = Namespaces(pid="host", ipc="host", uts="host", cgroup="host")
    id = await host.start("sleep", "60", namespaces=wanted, network_mode="host")
    theirs, ours = links(host.engine.inspect(id).pid), links()
    assert {kind for kind in ours if ours[kind] != theirs[kind]} == {"mnt"}
    seen = await host.engine.exec(id, ["sh", "-c", f"ls -d /proc/{os.getpid()}; hostname; ls -d /dev/shm"])
    assert seen.stdout.decode().split() == [f"/proc/{os.getpid()}", os.uname().nodename, "/dev/shm"]
    await host.engine.kill(id)
    assert (await host.engine.wait(id)).code == 137


async def test_those_of_another_container(host: Host) -> None:
    owner = await host.start(
        *("sh", "-c", "echo shared > /dev/shm/x; exec sleep 60"), name="owner", namespaces=Namespaces(ipc="shareable")
    )
    await until("the file", lambda: Path(f"/proc/{host.engine.inspect(owner).pid}/root/dev/shm/x").exists())
    wanted = Namespaces(pid="container:owner", ipc="container:owner")
    ran = await host.run("cat /dev/shm/x; ps | grep -c '[s]leep 60'; ip -o link | wc -l",
                         namespaces=wanted, network_mode="container:owner")  # fmt: skip
    assert ran.out.split()[:2] == ["shared", "1"], ran
    id = await host.start("sleep", "60", namespaces=wanted, network_mode="container:owner")
    theirs, others = links(host.engine.inspect(id).pid), links(host.engine.inspect(owner).pid)
    assert {kind for kind in theirs if theirs[kind] == others[kind]} == {"pid", "ipc", "net", "user"}
    await host.engine.kill(id)
    await host.engine.wait(id)
    assert host.engine.inspect(owner).pid


async def test_what_is_not_running_shares_nothing(host: Host) -> None:
    await host.make("sleep", "60", name="owner")
    id = await host.make("true", namespaces=Namespaces(pid="container:owner"))
    with pytest.raises(Conflict, match="container owner is not running"):
        await host.engine.start(id)


async def test_no_shared_memory_when_ipc_is_none(host: Host) -> None:
    ran = await host.run("ls /dev/shm", namespaces=Namespaces(ipc="none"))
    assert "No such file" in ran.err


async def test_clocks_of_its_own(host: Host) -> None:
    ran = await host.run("cut -d. -f1 /proc/uptime", namespaces=Namespaces(boottime=1e6, monotonic=5.5))
    assert int(ran.out) > 1e6
    id = await host.start("sleep", "60", namespaces=Namespaces(boottime=1e6))
    inside = await host.engine.exec(id, ["cut", "-d.", "-f1", "/proc/uptime"])
    assert int(inside.stdout) > 1e6


# Ids of its own


async def test_ids_of_its_own(host: Host) -> None:
    id = await host.start("sh", "-c", "echo a > /tmp/file; exec sleep 60", namespaces=AUTO)
    pid = host.engine.inspect(id).pid
    first = int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])
    assert first >= 524288
    assert Path(f"/proc/{pid}").stat().st_uid == first
    assert links(pid)["user"] != links()["user"]
    upper = host.root / f"data/containers/{id}/upper/tmp/file"
    await until("the file", upper.exists)
    assert upper.stat().st_uid == 0, "nothing on the disk is shifted"
    script = "stat -c %u /tmp/file /bin/busybox /etc/hosts /dev/shm; id -u; cat /proc/self/uid_map"
    seen = await host.engine.exec(id, ["sh", "-c", script])
    assert seen.stdout.decode().split()[:5] == ["0", "0", "0", "0", "0"], seen
    assert seen.stdout.decode().split()[5:] == ["0", str(first), "65536"]
    other = await host.start("sleep", "60", namespaces=AUTO)
    assert Path(f"/proc/{host.engine.inspect(other).pid}").stat().st_uid != first


async def test_ids_of_its_own_reach_binds_as_root_does(host: Host) -> None:
    (host.root / "bound").mkdir()
    (host.root / "bound/theirs").write_text("x")
    bind = BindMount(source=str(host.root / "bound"), target="/b")
    ran = await host.run(
        "stat -c %u:%g /b/theirs; echo y > /b/ours; mkdir -p /b/d; chown 1000:1000 /b/d; touch /x",
        mounts=(bind,), namespaces=AUTO)  # fmt: skip
    assert (ran.out.split()[0], ran.err) == ("0:0", ""), ran
    assert (host.root / "bound/ours").stat().st_uid == 0
    assert (host.root / "bound/d").stat().st_uid == 1000


async def test_ids_of_its_own_still_leave_a_program_its_rights(host: Host) -> None:
    ran = await host.run(
        "touch /f; chown 1000:1000 /f; stat -c %u /f; su app -s /bin/sh -c 'id -u; cat /etc/shadow';"
        "httpd -p 80; cat /proc/net/tcp /proc/net/tcp6 | grep -c :0050; mkdir -p /new/dir; ls -ld /new | cut -c1-10",
        namespaces=AUTO, tty=False)  # fmt: skip
    lines = ran.out.split("\n")
    assert "1000" in lines and "1" in lines and "drwxr-xr-x" in lines, ran


async def test_ids_of_its_own_with_a_user_a_workdir_and_a_terminal(host: Host) -> None:
    ran = await host.run("id -u; pwd; stat -c %u . ; tty; stat -c %u /dev/console; echo z > /dev/null",
                         namespaces=AUTO, user="app", workdir="/made/here", tty=True)  # fmt: skip
    assert ran.out.split() == ["1000", "/made/here", "0", "/dev/pts/0", "1000"]


async def test_a_privileged_container_has_the_hosts_ids(host: Host) -> None:
    with pytest.raises(Invalid, match="privileged"):
        await host.make("true", namespaces=AUTO, security=Security(privileged=True))


# Devices


async def test_devices_that_were_asked_for_and_no_others(host: Host) -> None:
    kvm = Device(source="/dev/loop-control", target="/dev/mine", access="r")
    ran = await host.run(
        "stat -c '%F %t:%T' /dev/mine; (: < /dev/mine) && echo read; (: > /dev/mine);"
        "mknod /tmp/fuse c 10 229; (: < /tmp/fuse)", devices=(kvm,))  # fmt: skip
    assert ran.out.splitlines() == ["character special file a:ed", "read"]
    assert ran.err.count("can't") == 2, ran.err


async def test_a_device_that_is_not_there(host: Host) -> None:
    with pytest.raises(Invalid, match="/dev/nothing: it is not there"):
        await host.make("true", devices=(Device(source="/dev/nothing", target="/dev/nothing"),))


async def test_a_rule_lets_a_node_of_the_containers_own_be_used_when_it_may_be_made(host: Host) -> None:
    rule = DeviceRule(kind="c", major=1, minor=11, access="rwm")
    ran = await host.run("mknod /tmp/kmsg c 1 11; cat /tmp/kmsg", device_rules=(rule,))
    assert "can't open" in ran.err, "file systems are nodev, whatever the cgroup allows"


async def test_devices_by_name(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {
        "cdiVersion": "0.6.0",
        "kind": "acme.com/thing",
        "containerEdits": {"env": ["ALL=1"]},
        "devices": [
            {
                "name": "0",
                "containerEdits": {
                    "env": ["THING=zero"],
                    "deviceNodes": [{"path": "/dev/thing0", "hostPath": "/dev/loop-control", "permissions": "r"}],
                    "hooks": [
                        {
                            "hookName": "createRuntime",
                            "path": "/bin/sh",
                            "args": ["sh", "-c", f"cat > {host.root}/told"],
                        }
                    ],
                    "mounts": [{"hostPath": str(host.root), "containerPath": "/opt/thing", "options": ["ro", "bind"]}],
                },
            }
        ],
    }
    (host.root / "cdi").mkdir()
    (host.root / "cdi/acme.json").write_text(json.dumps(spec))
    monkeypatch.setattr("swarmd.runtime.cdi.DIRECTORIES", (host.root / "cdi",))
    monkeypatch.setattr("swarmd.runtime.cdi.edits.__defaults__", ((host.root / "cdi",),))
    ran = await host.run("echo $ALL $THING; : < /dev/thing0 && ls -d /opt/thing/cdi", cdi_devices=("acme.com/thing=0",))
    assert ran.out.split() == ["1", "zero", "/opt/thing/cdi"], ran
    assert json.loads((host.root / "told").read_text())["status"] == "creating"
    with pytest.raises(Invalid, match=r"no CDI spec in .* names it; there are acme.com/thing=0"):
        await host.make("true", cdi_devices=("acme.com/thing=1",))


# Mounts


async def test_an_image_as_a_mount(host: Host) -> None:
    whole, part = ImageMount(image="busybox", target="/i"), ImageMount(image="busybox", target="/p", subpath="etc")
    for namespaces in (Namespaces(), AUTO):
        ran = await host.run("ls /i/bin/busybox; ls /p; touch /i/x; stat -c %u /i/bin/busybox",
                             mounts=(whole, part), namespaces=namespaces)  # fmt: skip
        assert ran.out.split() == ["/i/bin/busybox", "group", "not-a-program", "passwd", "0"], ran
        assert "Read-only" in ran.err


@pytest.mark.parametrize("subpath", ["/../../../etc", "none", "etc/passwd"])
async def test_an_images_subpath_stays_in_the_image(host: Host, subpath: str) -> None:
    id = await host.make("ls", "/p", mounts=(ImageMount(image="busybox", target="/p", subpath=subpath),))
    if ".." in subpath:
        await host.engine.start(id)
        await host.engine.wait(id)
        return
    with pytest.raises(StartError, match="mount: "):
        await host.engine.start(id)


async def test_tmpfs_options_and_shared_memory_size(host: Host) -> None:
    tmpfs = TmpfsMount(target="/t", size=4 << 20, mode=0o700, options=("exec", "uid=1000"))
    for namespaces in (Namespaces(), AUTO):
        ran = await host.run(
            "cp /bin/busybox /t/echo && /t/echo runs; stat -c %u:%a /t; df -k /dev/shm | tail -1 | awk '{print $2}'",
            mounts=(tmpfs,), shm_size=3 << 20, namespaces=namespaces)  # fmt: skip
        assert ran.out.split() == ["runs", "1000:700", "3072"], ran


async def test_a_bind_read_only_all_the_way_down_or_not(host: Host) -> None:
    below = host.root / "top/below"
    below.mkdir(parents=True)
    shell(f"mount -t tmpfs below {below}")
    try:
        for deep, wanted in ((True, 2), (False, 1)):
            bind = BindMount(source=str(host.root / "top"), target="/b", read_only=True, read_only_recursive=deep)
            ran = await host.run("touch /b/x; touch /b/below/x", mounts=(bind,))
            assert ran.err.count("Read-only") == wanted
    finally:
        shell(f"umount {below}")


async def test_mounts_made_on_the_host_or_inside_are_shared_when_asked(host: Host) -> None:
    top = host.root / "top"
    (top / "late").mkdir(parents=True)
    shell(f"mount --bind {top} {top} && mount --make-shared {top}")
    try:
        slave = BindMount(source=str(top), target="/b", propagation="rslave")
        shared = BindMount(source=str(top), target="/b", propagation="rshared")
        id = await host.start("sleep", "60", mounts=(slave,))
        shell(f"mount -t tmpfs late {top}/late && touch {top}/late/seen")
        assert (await host.engine.exec(id, ["ls", "/b/late"])).stdout == b"seen\n"
        shell(f"umount {top}/late")
        await host.engine.remove(id, force=True)
        admin = Security(cap_add=("SYS_ADMIN",))
        others = (replace(slave, target="/c"), BindMount(source=str(top), target="/d"), replace(shared, target="/e"))
        id = await host.start("sh", "-c", "mount -t tmpfs x /b/late && touch /b/late/out; exec sleep 60",
                              mounts=(shared, *others), security=admin)  # fmt: skip
        await until("the mount made inside", (top / "late/out").exists)
        places = ["/c/late", "/d/late", "/e/late"]
        assert (await host.engine.exec(id, ["ls", *places])).stdout == b"/c/late:\nout\n\n/d/late:\n\n/e/late:\nout\n"
        await host.engine.remove(id, force=True)
        shell(f"umount {top}/late")
    finally:
        shell(f"umount -l {top}")


async def test_its_own_cgroup_is_what_it_sees(host: Host) -> None:
    ran = await host.run(
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; touch /sys/fs/cgroup/x;"
        "cat /proc/self/cgroup | grep -c swarmd", limits=Limits(memory=32 << 20))  # fmt: skip
    assert ran.out.split() == [str(32 << 20), "0"], ran
    assert "Read-only" in ran.err


# Others


async def test_what_a_sysctl_and_a_domain_are(host: Host) -> None:
    ran = await host.run(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/domainname; httpd -p 80",
        domainname="lab.example", user="app")  # fmt: skip
    assert (ran.out.split(), ran.err) == (["0", "lab.example"], "")


async def test_a_limit_that_cannot_be_raised_is_kept_as_high_as_it_can_be(host: Host) -> None:
    few = (Ulimit(name="nofile", soft=9, hard=9), Ulimit(name="fsize", soft=0, hard=0))
    assert (await host.run("ulimit -n; ulimit -f", ulimits=few, tty=True)).out == "9\r\n0\r\n"
    ran = await host.run("ulimit -n; ulimit -Hn", ulimits=(Ulimit(name="nofile", soft=1024, hard=1 << 30),))
    soft, hard = map(int, ran.out.split())
    assert soft == 1024 and hard > 1024


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"namespaces": Namespaces(pid="nope")}, "pid namespace mode 'nope'"),
        ({"namespaces": Namespaces(user="auto:size=0")}, "auto:size=0"),
        ({"namespaces": Namespaces(uts="host"), "hostname": "x"}, "hostname"),
        ({"limits": Limits(memory=1024)}, "memory limit 1024 is too small"),
        ({"limits": Limits(nano_cpus=10**12)}, "1000 CPUs asked for"),
        ({"security": Security(apparmor="mine")}, "AppArmor"),
        ({"mounts": (TmpfsMount(target="/t", options=("nope",)),)}, "option 'nope'"),
        ({"restart": "always", "auto_remove": True}, "contradict"),
    ],
)
async def test_refused_when_it_is_created(host: Host, config: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        await host.make("true", **config)
