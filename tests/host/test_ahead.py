"""What is made before a start is asked for is never seen in a container that wants it otherwise."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.runtime.model import BindMount, Namespaces, Phase, Security, TmpfsMount
from swarmd.runtime.stages import trees
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]

COVERED = (
    'test -z "$(ls /proc/acpi /proc/scsi 2>/dev/null)"; cat /proc/keys /proc/timer_list; '
    "! echo x 2>/dev/null >/proc/sys/vm/overcommit_memory"
)
SHOWN = "awk '{print $5, $6}' /proc/self/mountinfo | grep -E '^/(proc|dev)' | sort; ls -l /dev | awk '{print $1, $NF}'"


def waiting(host: Host) -> list[int]:
    """The first processes that wait for a start: those whose process namespace is not ours, below our spawner."""
    ours = Path("/proc/self/ns/pid").readlink()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                title = (process / "cmdline").read_bytes().partition(b"\0")[0]
                if title == b"swarmd-spawner" and (process / "ns/pid").readlink() != ours:
                    found.append(int(process.name))
    return found


async def test_the_usual_trees_are_as_the_steps_make_them(host: Host) -> None:
    script = f"{COVERED} && {SHOWN}"
    usual = await host.run(script)
    # A size of its own for /dev/shm, and one more path to mask: neither tree fits.
    other = await host.run(
        script, shm_size=1 << 20, security=Security(masked_paths=("/proc/is-not-there", *trees.MASKED))
    )
    assert usual.exit.code == other.exit.code == 0
    assert usual.out == other.out
    assert "/proc/sys ro," in usual.out and "/dev/null rw," in usual.out


@pytest.mark.parametrize(
    "wanted",
    [
        {"namespaces": Namespaces(pid="host")},
        {"namespaces": Namespaces(ipc="host")},
        {"namespaces": Namespaces(uts="host")},
        {"namespaces": Namespaces(monotonic=1000)},
        {"security": Security(privileged=True)},
    ],
    ids=lambda wanted: str(wanted),
)
async def test_other_namespaces_are_those_asked_for(host: Host, wanted: dict[str, object]) -> None:
    ran = await host.run("for one in pid ipc uts; do readlink /proc/self/ns/$one; done", **wanted)
    seen = dict(zip(("pid", "ipc", "uts"), ran.out.split(), strict=True))
    namespaces = wanted.get("namespaces", Namespaces())
    assert isinstance(namespaces, Namespaces)
    for kind, namespace in seen.items():
        shared = getattr(namespaces, kind) == "host"
        assert (namespace == str(Path(f"/proc/self/ns/{kind}").readlink())) is shared, kind


async def test_what_the_host_mounted_after_the_last_start_is_seen(host: Host) -> None:
    await host.run("true")
    place = host.root / "later"
    place.mkdir()
    with mounted(place):
        (place / "file").write_text("found")
        mount = BindMount(source=str(place), target="/later")
        assert (await host.run("cat /later/file", mounts=(mount,))).out == "found"


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


async def test_mounts_in_the_usual_places_are_those_asked_for(host: Host) -> None:
    mounts = (
        TmpfsMount(target="/dev/shm", size=1 << 20),
        TmpfsMount(target="/proc/tty"),
        TmpfsMount(target="/dev/more"),
    )
    ran = await host.run("df -k /dev/shm | tail -1 | awk '{print $2}'; mount", mounts=mounts)
    assert ran.out.splitlines()[0] == "1024"
    assert "on /dev/more type tmpfs" in ran.out
    assert "on /proc/tty type tmpfs" in ran.out


async def test_those_that_wait_can_be_killed(host: Host) -> None:
    await host.run("true")
    for pid in await until("one waits", lambda: waiting(host)):
        os.kill(pid, signal.SIGKILL)
    for _ in range(4):
        assert (await host.run("echo here")).out == "here\n"


async def test_no_start_meets_what_another_has_left(host: Host) -> None:
    """Files made in /dev and /dev/shm, and the host name, are of one run."""
    id = await host.start("sh", "-c", "touch /dev/shm/mine /dev/mine && sleep 100")
    assert host.engine.inspect(id).phase is Phase.RUNNING
    assert (await host.run("ls /dev/shm; ls /dev/mine 2>/dev/null")).out == ""
