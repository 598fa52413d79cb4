"""The committed protobuf code is what the .proto files say."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    command = [str(REPOSITORY / "proto/generate"), str(tmp_path)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    fresh = {path.name: path.read_text() for path in (tmp_path / "swarmd/proto").iterdir()}
    kept = {name: (REPOSITORY / "proto" / name).read_text() for name in fresh if (REPOSITORY / "proto" / name).exists()}
    stale = sorted(name for name in fresh if fresh[name] != kept.get(name))
    assert stale == [], f"run proto/generate: stale {stale}"
