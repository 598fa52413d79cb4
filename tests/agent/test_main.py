"""swarmd's command line: what it refuses, it refuses in one sentence, before it touches anything."""

import fcntl
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.agent.main import main


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """What it sets up writes to a stream that ends with the test."""
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["-H", "tcp://127.0.0.1:2375"], "a tcp:// address needs --tlsverify, --tlscacert, --tlscert and --tlskey"),
        (
            ["-H", "tcp://127.0.0.1"],
            "address tcp://127.0.0.1: write it as unix:///path/to/socket or tcp://address:port",
        ),
        (["-H", "unix://relative"], "address unix://relative: write it as"),
        (["--tlsverify"], "--tlsverify, --tlscacert, --tlscert and --tlskey are for a tcp:// address"),
    ],
)
def test_a_bad_address_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    roots = ["--data-root", str(tmp_path / "data"), "--run-root", str(tmp_path / "run")]
    assert main([*roots, *flags]) == 1
    assert capsys.readouterr().err.startswith(f"swarmd: {sentence}")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--registry-mirror", "ftp://m.example"], "mirror 'ftp://m.example' of docker.io is not of the form"),
        (["--insecure-registry", "no/net"], "insecure registry 'no/net' is neither host[:port] nor a network"),
    ],
)
def test_a_bad_registry_is_refused(tmp_path: Path, flags: list[str], sentence: str) -> None:
    roots = ["--data-root", str(tmp_path / "data"), "--run-root", str(tmp_path / "run"), "-H", f"unix://{tmp_path}/s"]
    command = [sys.executable, "-m", "swarmd.agent.main", *roots, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr.startswith(f"swarmd: {sentence}")) == (1, True), done.stderr


def test_a_second_daemon_on_the_same_root_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "swarmd.pid").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        first.write("4711\n")
        first.flush()
        assert main(["--data-root", str(tmp_path), "--run-root", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == f"swarmd: {tmp_path} is in use by another swarmd, process 4711\n"


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--bogus"])
    assert end.value.code == 2
    assert "unrecognized arguments: --bogus" in capsys.readouterr().err
