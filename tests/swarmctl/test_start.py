"""A command starts in tens of milliseconds because it imports only what it needs."""

import subprocess
import sys

import pytest

# Each costs milliseconds, and few commands need it.
_HEAVY = {
    "asyncio", "cryptography", "csv", "dataclasses", "datetime", "difflib", "email", "hashlib", "http.client",
    "importlib.metadata", "inspect", "logging", "pathlib", "shutil", "ssl", "subprocess", "tarfile", "tempfile",
}  # fmt: skip


@pytest.mark.parametrize("words", [["--help"], ["ps"], ["kill", "one"], ["inspect", "one"]])
def test_little_is_imported(words: list[str]) -> None:
    program = (
        "import sys; before = {*sys.modules}\n"
        "from swarmd.swarmctl.main import main\n"
        f"try: main(['-H', 'unix:///nowhere', *{words!r}])\n"
        "except SystemExit: pass\n"
        "print(*({*sys.modules} - before))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    imported = {*answer.stdout.splitlines()[-1].split()}
    assert "swarmd.swarmctl.main" in imported
    assert imported & _HEAVY == set()
