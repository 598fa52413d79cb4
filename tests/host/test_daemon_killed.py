"""swarmd is killed and started again while people are connected to what it runs: the docker command sees the rest."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host.engine_host import remove_parents, rootfs_tar
from tests.host.leavings import taken_away
from tests.host.swarmd_process import PATIENCE, Swarmd
from tests.run import RUN

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed"),
]
GROUP = f"st-{RUN}-killed"


class Daemon(Swarmd):
    def __init__(self, root: Path) -> None:
        super().__init__(root, Path(f"/tmp/swarmd-test-{RUN}-killed.sock"), GROUP)

    def start(self) -> None:
        super().start()
        until(
            "an answer", lambda: subprocess.run(self.words("version"), capture_output=True, check=False).returncode == 0
        )

    def words(self, *words: str) -> list[str]:
        return ["docker", "-H", f"unix://{self.socket}", *words]

    def said(self, *words: str, stdin: bytes = b"") -> str:
        done = subprocess.run(self.words(*words), input=stdin, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.decode()

    def session(self, *words: str) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        return subprocess.Popen(self.words(*words), stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0)


def until(what: str, seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (last := seen()):
        assert time.monotonic() < deadline, f"{what}: last seen {last!r}"
        time.sleep(0.02)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with taken_away():
        daemon = Daemon(tmp_path)
        try:
            daemon.said("import", "-", "busybox", stdin=rootfs_tar())
            yield daemon
        finally:
            for id in daemon.said("ps", "-aq").split():
                daemon.said("rm", "-f", id)
            daemon.process.terminate()
            daemon.process.wait(PATIENCE)
            daemon.socket.unlink(missing_ok=True)
            remove_parents(GROUP)


def echoed(session: "subprocess.Popen[bytes]", line: bytes) -> None:
    """cat gives back what it is given."""
    assert session.stdin
    assert session.stdout
    session.stdin.write(line)
    assert os.read(session.stdout.fileno(), 100) == line


def ended(session: "subprocess.Popen[bytes]") -> None:
    assert session.stdout
    assert session.stdin
    assert session.stdout.read() == b""
    session.wait(PATIENCE)
    session.stdout.close()
    session.stdin.close()


def test_sessions_go_on_while_the_daemon_is_away(daemon: Daemon) -> None:
    daemon.said("run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "1000")
    daemon.said("run", "-d", "-i", "--name", "cat", "--network", "none", "busybox", "cat")
    inside, attached = daemon.session("exec", "-i", "web", "cat"), daemon.session("attach", "cat")
    echoed(inside, b"exec before\n")
    echoed(attached, b"attach before\n")
    daemon.kill()
    echoed(inside, b"exec while it is away\n")
    echoed(attached, b"attach while it is away\n")
    daemon.start()
    echoed(inside, b"exec after\n")
    echoed(attached, b"attach after\n")
    assert inside.stdin
    inside.stdin.close()
    ended(inside)
    daemon.said("kill", "cat")
    ended(attached)
    assert daemon.said("wait", "cat") == "137\n"
    lines = [f"attach {when}" for when in ("before", "while it is away", "after")]
    assert daemon.said("logs", "cat").splitlines() == lines
    assert daemon.said("exec", "web", "echo", "again") == "again\n"


def test_an_end_while_the_daemon_is_away_is_known_afterwards(daemon: Daemon) -> None:
    script = "while [ ! -e /go ]; do sleep 0.05; done; echo late; exit 7"
    daemon.said("run", "-d", "--name", "web", "--network", "none", "busybox", "sh", "-c", script)
    daemon.said("run", "-d", "--name", "kept", "--restart", "always", "--network", "none", "busybox", "sleep", "1000")
    pid = int(daemon.said("inspect", "-f", "{{.State.Pid}}", "web"))
    kept = daemon.said("inspect", "-f", "{{.State.Pid}}", "kept")
    daemon.kill()
    Path(f"/proc/{pid}/root/go").touch()
    until("the end", lambda: not Path(f"/proc/{pid}").exists())
    daemon.start()
    assert daemon.said("wait", "web") == "7\n"
    assert daemon.said("logs", "web") == "late\n"
    assert daemon.said("inspect", "-f", "{{.State.Pid}}", "kept") == kept


BUILD = """\
FROM busybox
HEALTHCHECK CMD ["touch", "/probed"]
RUN echo first > /first
RUN --mount=type=secret,id=key --mount=type=cache,target=/cache \\
    cat /run/secrets/key > /cache/begun; until test -e /cache/go; do sleep 0.05; done; test ! -e /probed
"""


def test_a_build_that_was_going_on_leaves_nothing_and_begins_where_it_was(daemon: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "context"
    place.mkdir()
    (place / "Dockerfile").write_text(BUILD)
    (tmp_path / "key").write_text("h1dden")
    words = [sys.executable, "-m", "swarmd.swarmctl.main", "-H", f"unix://{daemon.socket}", "build", "--progress"]
    words += ["plain", "-t", "made", "--secret", f"id=key,src={tmp_path}/key", str(place)]
    mounts = tmp_path / "data/builds/mounts"
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as build:
        until("the step", lambda: [*mounts.glob("*/tree/begun")])
        daemon.kill()
        _, said = build.communicate(timeout=PATIENCE)
    assert build.returncode == 1 and "hung up in the middle of an answer" in said
    daemon.start()
    assert daemon.said("ps", "-aq") == "" and daemon.said("images", "-q", "made") == ""
    assert [path.name for path in (tmp_path / "data/builds/work").iterdir()] == ["empty"]
    assert not [*(tmp_path / "run/builds").iterdir()]
    next(mounts.glob("*/tree")).joinpath("go").touch()
    again = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count(" CACHED\n") == 1
