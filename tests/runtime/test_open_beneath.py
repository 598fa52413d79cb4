"""Opening beneath a root while the host is busy: the kernel then asks for another try."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarmd.runtime.stages import syscalls

_RENAMING = "import os, sys\nwhile True: os.rename(sys.argv[1], sys.argv[2]); os.rename(sys.argv[2], sys.argv[1])"


@pytest.mark.parametrize("opened", [syscalls.open_beneath, syscalls.open_within])
def test_renames_elsewhere_do_not_disturb(tmp_path: Path, opened: object) -> None:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "one").touch()
    root = os.open(tmp_path / "root", os.O_PATH)
    renaming = subprocess.Popen([sys.executable, "-c", _RENAMING, tmp_path / "one", tmp_path / "two"])
    try:
        for _ in range(3000):
            os.close(opened(root, "a/b/../b/../b/../b/../b/../../a/b", os.O_PATH))  # type: ignore[operator]
    finally:
        renaming.kill()
        renaming.wait()
        os.close(root)
