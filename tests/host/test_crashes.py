"""The daemon, or its host, goes down at any step of a container's life: `crash_points` does it, side by side."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.engine_host import remove_parents
from tests.run import RUN

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
SIDE_BY_SIDE = 2


@pytest.mark.parametrize(("mode", "every", "least"), [("kill", 7, 100), ("power", 5, 60)])
def test_a_crash_at_any_step(tmp_path: Path, mode: str, every: int, least: int) -> None:
    running = []
    for place in range(SIDE_BY_SIDE):
        root, parent = tmp_path / str(place), f"st-crash{place}-{RUN}"
        root.mkdir()
        # In namespaces of their own: bridges and namespaces left by one daemon are found by the next one alone.
        command = [str(Path(__file__).parents[1] / "apart"), sys.executable, "-m", "tests.host.crash_points"]
        arguments = [mode, str(root), parent, str(place * every), str(SIDE_BY_SIDE * every)]
        cwd = Path(__file__).parents[2]
        process = subprocess.Popen(
            [*command, *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        running.append((process, root, parent))
    outputs = [process.communicate(timeout=120)[0] for process, _, _ in running]
    for (process, root, parent), said in zip(running, outputs, strict=True):
        assert process.returncode == 0, said
        assert int(said.split()[-1]) >= least, f"the life of a container has few steps: {said}"
        remove_parents(parent)
        shutil.rmtree(root)
