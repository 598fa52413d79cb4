"""A command starts in milliseconds because it loads little, asks no more than it must, and starts without `site`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.swarmctl.daemon import Asked, Daemon, daemon_at
from tests.swarmctl.program import SWARMCTL

_REPOSITORY = Path(__file__).parents[2]
_PROGRAM = """\
import os
import sys
sys.path += {places!r}
before = {{*sys.modules}}
from swarmd.swarmctl.main import main
try:
    code = main({words!r})
except SystemExit as ended:
    code = ended.code
os.write(2, " ".join({{*sys.modules}} - before).encode())
sys.exit(code)
"""
# What is cheap, written in C or with nothing behind it. All else costs milliseconds: `re`, `enum`, `json`, `typing` ...
_CHEAP = {"__future__", "_json", "_socket", "_queue"}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with daemon_at(tmp_path / "s") as daemon:
        daemon.answers = {
            "POST /containers/create": {"Id": "f" * 64, "Warnings": []},
            "POST /containers/{}/start": 204,
            "POST /containers/{}/wait": {"StatusCode": 3},
            "POST /containers/{}/attach": _hangs_up,
            "POST /containers/{}/exec": {"Id": "e" * 64},
            "POST /exec/{}/start": _hangs_up,
            "GET /exec/{}/json": {"ExitCode": 3},
            "GET /containers/json": [],
            "GET /containers/{}/json": {"Id": "f" * 64, "Config": {"Tty": False}},
            "GET /containers/{}/logs": 200,
            "GET /images/json": [],
            "GET /networks": [],
            "GET /services": [],
            "GET /nodes": [],
            "GET /info": {"Swarm": {"NodeID": "n"}},
        }
        yield daemon


def _hangs_up(request: Asked) -> None:
    request.handler.hijack().close()


def _run(daemon: Daemon, *words: str) -> "subprocess.CompletedProcess[str]":
    places = [path for path in sys.path if path.endswith((".pkg", "site-packages"))]
    program = _PROGRAM.format(places=places, words=["-H", f"unix://{daemon.socket}", *words])
    return subprocess.run([sys.executable, "-ISc", program], capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("ps",), 0),
        (("run", "-d", "-p", "80:80", "-m", "1g", "-e", "A=b", "-v", "/a:/b", "demo", "sh", "-c", "x"), 0),
        (("run", "--rm", "demo", "true"), 3),
        (("exec", "one", "true"), 3),
        (("kill", "one"), 1),
        (("rm", "-f", "one"), 0),
        (("logs", "one"), 0),
        (("inspect", "one"), 0),
        (("service", "ls"), 0),
        (("node", "ls"), 0),
        (("image", "ls"), 0),
        (("network", "ls"), 0),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_little_is_loaded(daemon: Daemon, words: tuple[str, ...], code: int) -> None:
    done = _run(daemon, *words)
    loaded = {*done.stderr.splitlines()[-1].split()}
    assert done.returncode == code, done.stderr
    assert "swarmd.swarmctl.main" in loaded
    assert {name for name in loaded if name.partition(".")[0] != "swarmd"} <= _CHEAP


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("run", "-d", "demo"), ["POST /containers/create", "POST /containers/ID/start"]),
        (
            ("run", "--rm", "demo"),
            [
                *("POST /containers/create", "POST /containers/ID/attach", "POST /containers/ID/wait"),
                "POST /containers/ID/start",
            ],
        ),
        (("exec", "one", "true"), ["POST /containers/one/exec", "POST /exec/ID/start", "GET /exec/ID/json"]),
        (("ps",), ["GET /containers/json"]),
    ],
    ids=lambda value: " ".join(value[:2]),
)
def test_no_more_is_asked_than_must_be(daemon: Daemon, words: tuple[str, ...], asked: list[str]) -> None:
    _run(daemon, *words)
    found = [f"{one.method} {one.path}".replace("f" * 64, "ID").replace("e" * 64, "ID") for one in daemon.asked]
    assert found == asked


def test_requests_share_a_connection_and_one_that_was_closed_is_made_anew(daemon: Daemon) -> None:
    connections: list[int] = []

    def answer(closing: bool) -> None:
        def create(request: Asked) -> None:
            connections.append(id(request.handler))
            request.handler.reply(200, {"Id": "f" * 64})
            request.handler.close_connection = closing

        def start(request: Asked) -> None:
            connections.append(id(request.handler))
            request.handler.reply(204)

        daemon.answers |= {"POST /containers/create": create, "POST /containers/{}/start": start}

    answer(closing=False)
    assert _run(daemon, "run", "-d", "demo").returncode == 0
    assert len({*connections}) == 1
    connections.clear()
    answer(closing=True)
    assert _run(daemon, "run", "-d", "demo").returncode == 0
    assert len(connections) == 2


def test_an_installed_command_starts_without_site(daemon: Daemon, tmp_path: Path) -> None:
    """As deploy/setup.sh and deploy/install.sh make it."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=50)
    (packages,) = (venv / "lib").glob("python*/site-packages")
    (packages / "checkout.pth").write_text(f"{_REPOSITORY / '.pkg'}\n")
    subprocess.run([_REPOSITORY / "deploy/entry.sh", venv], check=True, timeout=50)
    command = venv / "bin/swarmctl"
    assert command.read_text().splitlines()[0].endswith("/bin/python -IS")
    daemon.answers["GET /containers/json"] = [
        {"Id": "a" * 64, "Names": ["/one"], "Image": "demo", "Created": 1, "State": "running", "Status": "Up"}
    ]
    link = tmp_path / "elsewhere"
    link.symlink_to(command)
    done = subprocess.run(
        [link, "-H", f"unix://{daemon.socket}", "ps", "--format", "json"],
        capture_output=True, text=True, timeout=20, check=False, cwd="/", env={"PATH": os.defpath},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Names"] == "one"
    refused = subprocess.run([link, "ps", "--frobnicate"], capture_output=True, text=True, timeout=20, check=False)
    assert refused.returncode == 2
    assert "swarmctl ps: unknown flag: --frobnicate" in refused.stderr


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("service", "--help"), ("info", "--help")])
def test_a_reader_that_goes_away_is_no_trouble(words: tuple[str, ...]) -> None:
    command = [*SWARMCTL, *words]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=20, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
