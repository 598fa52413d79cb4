"""The systemd unit: what systemd says of it, and that nothing in it would be passed on to containers."""

import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNIT = DEPLOY / "systemd" / "swarmd.service"
# What systemd does with seccomp, capabilities or a mount namespace stays with every process that swarmd starts.
INHERITED = (
    "Protect",
    "Private",
    "Restrict",
    "Lock",
    "SystemCall",
    "Capability",
    "NoNewPrivileges",
    "ReadOnly",
    "UMask",
)


def settings() -> dict[str, str]:
    lines = UNIT.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not here: deploy/setup.sh --dev installs it")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/swarmd/bin/swarmd", "/bin/true"))
    done = analyze("verify", str(copy))
    assert (done.returncode, done.stderr) == (0, "")


def test_containers_inherit_nothing_of_the_unit_and_outlive_it() -> None:
    given = settings()
    assert [name for name in given if name.startswith(INHERITED)] == []
    assert (given["KillMode"], given["Delegate"], given["RuntimeDirectoryPreserve"]) == ("process", "yes", "yes")
    assert given["Type"] == "notify"


@pytest.mark.parametrize("script", ["install.sh", "setup.sh", "test.sh", "quickstart.sh"])
def test_scripts_are_well_formed(script: str) -> None:
    done = subprocess.run(["bash", "-n", str(DEPLOY / script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installer_refuses_what_it_does_not_know() -> None:
    command, environment = [str(DEPLOY / "install.sh"), "instal"], {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0
    assert done.stderr.startswith("install: ")
