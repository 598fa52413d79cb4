"""Who goes first when memory runs out. Needs the right to be spared more than others: tests/vm/run."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.vm]

DEADLINE = 10.0  # s


def test_what_the_daemon_starts_is_not_spared_as_the_daemon_is() -> None:
    """deploy/systemd/swarmd.service gives the daemon -500; the spawner, whose children shims and containers are, 0."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    more, of_it = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds = [its.fileno(), of_it.fileno()]
    program = f"from swarmd.runtime.stages.spawner import main; import sys; sys.argv[1:] = {fds}; main()"
    command = ["choom", "-n", "-500", "--", sys.executable, "-c", program]
    with ours, its, more, of_it, subprocess.Popen(command, pass_fds=fds) as spawner:
        its.close()
        of_it.close()
        end = time.monotonic() + DEADLINE
        process = Path(f"/proc/{spawner.pid}")
        while (seen := told(process)) != ("swarmd-spawner", "0"):
            assert time.monotonic() < end, f"last seen: {seen}"
            time.sleep(0.02)
        ours.close()
        assert spawner.wait(DEADLINE) == 0


def told(process: Path) -> tuple[str, str]:
    title = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
    return title, (process / "oom_score_adj").read_text().strip()
