"""Containers that try to get out: one test for each way that others were got out of."""

import asyncio
import contextlib
import hashlib
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from swarmd.runtime.errors import StartError
from swarmd.runtime.model import BindMount, Limits, LogConfig, Namespaces, Security
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]

INTERPRETER = os.path.realpath(sys.executable)
# What a Python inside needs of the host's files, read-only.
BORROWED = tuple(
    BindMount(source=path, target=path, read_only=True)
    for path in dict.fromkeys(("/usr", "/lib", "/lib64", sys.base_prefix))
    if Path(path).is_dir() and not (path != "/usr" and path.startswith("/usr"))
)


def python(code: str) -> tuple[str, ...]:
    return (INTERPRETER, "-I", "-c", textwrap.dedent(code))


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


async def attempt(host: Host, code: str, **config: Any) -> str:
    """Run a hostile Python program; return all it said."""
    id = await host.start(*python(code), mounts=BORROWED, **config)
    await asyncio.wait_for(host.engine.wait(id), 20)
    said = b"".join([entry.data async for entry in host.engine.logs(id)]).decode()
    await host.engine.remove(id)
    return said


SEEK = """
    import glob, os, time
    fds, mounts, wrote, interpreter = {}, set(), [], os.stat("/proc/self/exe").st_ino
    end = time.monotonic() + 15
    while time.monotonic() < end and not os.path.exists("/stop"):
        for exe in glob.glob("/proc/[0-9]*/exe"):
            pid = exe.split("/")[2]
            if int(pid) == os.getpid() or pid in fds:
                continue
            try:
                fds[pid] = os.open(exe, os.O_RDONLY)
                open(f"/seen-{pid}", "w").close()
            except OSError:
                continue
        for fd in fds.values():
            if os.fstat(fd).st_ino != interpreter:
                continue
            mounts.add("read-only" if os.fstatvfs(fd).f_flag & os.ST_RDONLY else "writable")
            try:
                os.close(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY))
                wrote.append(fd)
            except OSError:
                pass
    print("wrote", wrote, "mounts", sorted(mounts))
"""


async def test_the_hosts_interpreter_cannot_be_written_through_proc(host: Host) -> None:
    """CVE-2019-5736: run the runtime's own program in the container, hold its file, write it once it has ended.

    As long as any process runs it, a write is refused in any case (text file busy); so what refuses must be the mount.
    """
    before = digest(INTERPRETER)
    id = await host.start(*python(SEEK), mounts=BORROWED, name="seeker")
    upper = host.root / f"data/containers/{id}/upper"
    wait = "import os, time\nwhile not os.path.exists(f'/seen-{os.getpid()}'): time.sleep(0.01)\n"
    (upper / "script").write_text(f"#!/proc/self/exe\n{wait}")
    (upper / "script").chmod(0o755)
    for command in (["/proc/self/exe", "-c", wait], ["/script"], ["true"]):
        with contextlib.suppress(StartError):
            await host.engine.exec(id, command)
    (upper / "stop").touch()
    await asyncio.wait_for(host.engine.wait(id), 20)
    said = b"".join([entry.data async for entry in host.engine.logs(id)]).decode()
    assert said.strip() == "wrote [] mounts ['read-only']"
    assert digest(INTERPRETER) == before


async def test_a_script_of_the_images_own_cannot_become_the_interpreter(host: Host) -> None:
    id = await host.make("/script")
    script = host.root / f"data/containers/{id}/upper/script"
    script.write_text("#!/proc/self/exe\nopen('/proc/self/exe', 'r+b')\n")
    script.chmod(0o755)
    before = digest(INTERPRETER)
    try:
        await host.engine.start(id)
        await asyncio.wait_for(host.engine.wait(id), 20)
    except StartError:
        pass
    assert digest(INTERPRETER) == before


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 10, 64])
async def test_no_descriptor_leads_to_the_host(host: Host, number: int) -> None:
    """CVE-2024-21626: a working directory that is a descriptor the runtime forgot to close."""
    id = await host.make("ls", workdir=f"/proc/self/fd/{number}")
    with pytest.raises(StartError, match="working directory"):
        await host.engine.start(id)
    running = await host.start("sleep", "60")
    with pytest.raises(StartError, match="working directory"):
        await host.engine.exec(running, ["ls"], workdir=f"/proc/self/fd/{number}")
    inside = await host.engine.exec(running, ["ls", "/proc/self/fd"])
    assert inside.stdout.split() == [b"0", b"1", b"2", b"3"], "3 is ls's own"


async def test_files_of_the_image_that_are_links_lead_nowhere_else(host: Host) -> None:
    """CVE-2021-30465 and the like: what is mounted on, and what is read, is looked up beneath the root."""
    id = await host.make("cat", "/etc/hostname", user="root", workdir="/w")
    upper = host.root / f"data/containers/{id}/upper"
    target = host.root / "outside"
    target.mkdir()
    (target / "secret").write_text("secret")
    (upper / "etc").mkdir()
    for name in ("hostname", "hosts", "resolv.conf", "passwd", "group"):
        (upper / "etc" / name).symlink_to(f"../../../../../../../..{target}/{name}")
    (upper / "w").symlink_to(target)
    for name in ("dev", "proc", "sys"):
        (upper / name).symlink_to(target)
    try:
        await host.engine.start(id)
        await asyncio.wait_for(host.engine.wait(id), 20)
    except StartError:
        pass
    assert {path.name for path in target.iterdir()} == {"secret"}


async def test_a_passwd_file_that_never_ends_or_never_answers(host: Host) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        id = await host.make("id", "-u", user="root")
        etc = host.root / f"data/containers/{id}/upper/etc"
        etc.mkdir()
        make(etc / "passwd")
        try:
            await asyncio.wait_for(host.engine.start(id), 10)
            await asyncio.wait_for(host.engine.wait(id), 10)
        except StartError as refused:
            assert "no such user" in str(refused)
        await host.engine.remove(id, force=True)


@pytest.mark.parametrize("user", ["", "auto"])
async def test_what_the_kernel_offers_a_root_is_refused(host: Host, user: str) -> None:
    said = await attempt(
        host,
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        def tried(name, result):
            print(name, "YES" if result >= 0 else os.strerror(ctypes.get_errno()))
        def opened(path, flags=os.O_WRONLY):
            try:
                os.close(os.open(path, flags)); print(path, "YES")
            except OSError as error:
                print(path, error.strerror)
        tried("mount-cgroup", libc.mount(b"x", b"/tmp", b"cgroup", 0, b"memory"))
        tried("mount-proc", libc.mount(b"x", b"/tmp", b"proc", 0, None))
        tried("mount-bind", libc.mount(b"/", b"/tmp", None, 4096, None))
        tried("remount-proc-sys", libc.mount(None, b"/proc/sys", None, 32 | 4096, None))
        tried("umount-mask", libc.umount2(b"/proc/keys", 2))
        tried("unshare-user", libc.unshare(0x10000000))
        tried("unshare-net", libc.unshare(0x40000000))
        tried("setns", libc.setns(os.open("/proc/1/ns/mnt", 0), 0))
        tried("keyctl", libc.syscall(250, 0, -3, 0))
        tried("bpf", libc.syscall(321, 0, 0, 0))
        tried("userfaultfd", libc.syscall(323, 0))
        tried("open-by-handle", libc.syscall(304, 0, 0, 0))
        tried("ptrace-1", libc.ptrace(16, 1, 0, 0) if os.getpid() != 1 else -1)
        tried("init-module", libc.syscall(175, 0, 0, 0))
        tried("kexec", libc.syscall(246, 0, 0, 0, 0))
        tried("reboot", libc.reboot(0))
        tried("swapon", libc.swapon(b"/x", 0))
        tried("settime", libc.syscall(227, 0, ctypes.byref(ctypes.create_string_buffer(16))))
        tried("acct", libc.acct(b"/tmp/x"))
        tried("pivot", libc.syscall(155, b"/", b"/"))
        opened("/proc/sys/kernel/core_pattern"); opened("/proc/sysrq-trigger"); opened("/proc/sys/kernel/modprobe")
        opened("/sys/kernel/uevent_helper")
        for base, _, names in os.walk("/sys/fs/cgroup"):
            for name in names:
                if name in ("release_agent", "notify_on_release", "cgroup.procs", "devices.allow"):
                    try:
                        os.close(os.open(os.path.join(base, name), os.O_WRONLY)); print(base, name, "YES")
                    except OSError:
                        pass
        print("done")
        """,
        namespaces=Namespaces(user=user),
    )
    assert said.rstrip().endswith("done"), said
    assert "YES" not in said, said


async def test_terminal_injection(host: Host) -> None:
    """TIOCSTI into the terminal of who attached: the container's terminal is its own."""
    said = await attempt(
        host,
        """
        import fcntl, os
        for fd in (0, 1, 2):
            try:
                fcntl.ioctl(fd, 0x5412, b"x"); print("pushed", fd, os.ttyname(fd))
            except OSError as error:
                print(error.strerror)
        """,
    )
    assert "pushed" not in said


async def test_no_socket_of_the_daemon_is_in_reach_on_the_hosts_network(host: Host) -> None:
    said = await attempt(
        host,
        """
        for line in open("/proc/net/unix"):
            words = line.split()
            if len(words) > 7 and words[7].startswith("@") and ("swarmd" in words[7] or "containers" in words[7]):
                print("found", words[7])
        """,
        network_mode="host",
    )
    assert "found" not in said


async def test_a_fork_bomb_stays_within_its_limit_and_dies_at_once(host: Host) -> None:
    id = await host.start("sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 60", limits=Limits(pids=50))
    host_pids = Path("/sys/fs/cgroup")
    await until("many", lambda: any(int(p.read_text()) >= 45 for p in host_pids.glob(f"**/{id}/pids.current")))
    await asyncio.wait_for(host.engine.remove(id, force=True), 10)


async def test_shared_memory_and_the_log_fill_no_disk(host: Host) -> None:
    id = await host.start(
        *("sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=80; yes | head -c 20000000; echo end"),
        log=LogConfig(max_size=1 << 20, max_file=2),
    )
    await asyncio.wait_for(host.engine.wait(id), 30)
    kept = list((host.root / f"data/containers/{id}").glob("container.log*"))
    assert sum(path.stat().st_size for path in kept) < 3 << 20
    lines = [entry.data async for entry in host.engine.logs(id, tail=1)]
    assert lines == [b"end\n"]


async def test_the_hosts_processes_and_their_memory_are_out_of_reach(host: Host) -> None:
    said = await attempt(
        host,
        f"""
        import os
        for pid in ({os.getpid()}, {host.engine.spawner_pid}):
            print(os.path.exists(f"/proc/{{pid}}/mem") and open(f"/proc/{{pid}}/comm").read())
        print(sorted(int(p) for p in os.listdir("/proc") if p.isdigit()))
        """,
    )
    assert said.split("\n")[-2] == "[1]", said


async def test_an_added_capability_to_mount_takes_no_mask_away_in_ids_of_its_own(host: Host) -> None:
    said = await attempt(
        host,
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        print("umount", libc.umount2(b"/proc/keys", 2), "sys", libc.mount(None, b"/proc/sys", None, 32 | 4096, None))
        """,
        namespaces=Namespaces(user="auto"),
        security=Security(cap_add=("SYS_ADMIN",)),
    )
    assert said.strip() == "umount -1 sys -1"
