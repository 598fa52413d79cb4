"""A process, or its host, goes down at any step of what changes an image store: `crash_points` does it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("mode", "first", "every"), [("kill", 0, 14), ("kill", 7, 14), ("power", 1, 14), ("power", 8, 14)]
)
def test_a_crash_at_any_step(tmp_path: Path, mode: str, first: int, every: int) -> None:
    command = [sys.executable, "-m", "tests.runtime.images.crash_points", mode, str(tmp_path / "root")]
    done = subprocess.run(
        [*command, str(first), str(every)], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100, f"what changes a store has few steps: {done.stdout}"
