"""What a user installs: the wheel and the sdist hold the code, importable as swarmd.*, and the data it reads."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = ("proto", "runtime", "agent", "manager", "swarmctl")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def sources() -> set[str]:
    names = subprocess.run(["git", "ls-files", *CODE], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return {name for name in names.stdout.splitlines() if name.endswith((".py", ".json"))}


def test_the_wheel_made_from_the_sdist_holds_every_module(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {f"swarmd/{name}" for name in sources()} - held == set()
    assert [name for name in held if not name.startswith(("swarmd/", "swarmd-"))] == []


def test_the_sdist_holds_the_tree(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert sources() - held == set()
    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "deploy/quickstart.sh"} - held == set()


def test_the_wheel_runs_from_anywhere(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", "import swarmd, swarmd.swarmctl.main as main; print(main.__file__)"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str(tmp_path / "swarmd/swarmctl/main.py"), done.stderr
