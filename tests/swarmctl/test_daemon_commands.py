"""Commands on the daemon as a whole: events, info, version, system df and prune, stats."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.swarmctl.main import main
from tests.swarmctl.daemon import Asked, Daemon, daemon_at
from tests.swarmctl.program import SWARMCTL

Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with daemon_at(tmp_path / "s") as daemon:
        yield daemon


@pytest.fixture
def ctl(daemon: Daemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ctl:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["-H", f"unix://{daemon.socket}", *words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_events(daemon: Daemon, ctl: Ctl) -> None:
    event = {
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": "abc", "Attributes": {"name": "one", "image": "demo"}},
        "time": 1_700_000_000,
        "timeNano": 1_700_000_000_123_456_789,
    }

    def stream(asked: Asked) -> None:
        asked.handler.begin()
        text = json.dumps(event).encode() + b"\n"
        asked.handler.chunk(text[:20])  # lines come in any pieces
        asked.handler.chunk(text[20:] + text)
        asked.handler.chunk(b"")

    daemon.answers["GET /events"] = stream
    code, out, _ = ctl("events", "--since", "10m", "--until", "2026-01-01T00:00:00Z", "-f", "type=container")
    line = "2023-11-14T22:13:20.123456789+00:00 container start abc (image=demo, name=one)\n"
    assert (code, out) == (0, line * 2)
    query = daemon.asked[0].query
    assert abs(float(query["since"]) - (time.time() - 600)) < 30
    assert (query["until"], query["filters"]) == ("1767225600.000000000", '{"type": ["container"]}')
    assert ctl("system", "events", "--format", "{{.Action}} {{.Actor.ID}}")[1] == "start abc\n" * 2


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("1700000000.5", "1700000000.5"),
        ("2023-11-14T22:13:20.5Z", "1700000000.500000000"),
        ("2023-11-14T22:13:20", "1700000000.000000000"),
        ("2023-11-14T23:13:20+01:00", "1700000000.000000000"),
        ("2023-11-14", "1699920000.000000000"),
    ],
)
def test_times(daemon: Daemon, ctl: Ctl, text: str, sent: str) -> None:
    daemon.answers["GET /events"] = 200
    assert ctl("events", "--until", text)[0] == 0
    assert daemon.asked[0].query["until"] == sent
    code, _, err = ctl("events", "--until", "yesterday")
    assert (code, err.partition(":")[0]) == (1, "swarmctl")
    assert "'yesterday' is no time" in err


def test_version_without_a_daemon_shows_ours(daemon: Daemon, ctl: Ctl) -> None:
    code, out, err = ctl("version")
    assert (code, out.split()[0]) == (1, "swarmctl")
    assert err.startswith("swarmctl: no GET /version")
    before = len(daemon.asked)
    assert ctl("-v")[0] == 0
    assert len(daemon.asked) == before
    daemon.answers["GET /version"] = {"Version": "9", "ApiVersion": "1.50"}
    assert ctl("version", "--format", "{{.Server.Version}}")[1] == "9\n"
    assert json.loads(ctl("version", "--format", "json")[1])["Client"]["APIVersion"] == "1.50"


# ---------------------------------------------------------------- system df, prune

USAGE: dict[str, Any] = {
    "LayersSize": 3_000_000,
    "Images": [
        {
            "Id": "sha256:" + "a" * 64,
            "RepoTags": ["demo:1"],
            "Created": 1,
            "Size": 2_000_000,
            "SharedSize": 500_000,
            "Containers": 1,
        },
        {"Id": "sha256:" + "b" * 64, "RepoTags": [], "Created": 1, "Size": 1_000_000, "SharedSize": 0, "Containers": 0},
    ],
    "Containers": [
        {
            "Id": "c" * 64,
            "Image": "demo",
            "Command": "sh",
            "Created": 1,
            "Status": "Up",
            "State": "running",
            "Names": ["/one"],
            "SizeRw": 1000,
        },
        {
            "Id": "d" * 64,
            "Image": "demo",
            "Command": "sh",
            "Created": 1,
            "Status": "Exited",
            "State": "exited",
            "Names": ["/two"],
            "SizeRw": 3000,
        },
    ],
    "Volumes": [
        {"Name": "data", "UsageData": {"Size": 5000, "RefCount": 0}},
        {"Name": "new", "UsageData": {"Size": -1, "RefCount": 1}},
    ],
    "BuildCache": [],
}


def test_df(daemon: Daemon, ctl: Ctl) -> None:
    daemon.answers["GET /system/df"] = USAGE
    lines = ctl("system", "df")[1].splitlines()
    assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert [line.split() for line in lines[1:]] == [
        ["Images", "2", "1", "3MB", "1.5MB", "(50%)"],
        ["Containers", "2", "1", "4kB", "3kB", "(75%)"],
        ["Local", "Volumes", "2", "1", "5kB", "5kB", "(100%)"],
        ["Build", "Cache", "0", "0", "0B", "0B"],
    ]
    assert ctl("system", "df", "--format", "{{.Type}}={{.Size}}")[1].splitlines()[1] == "Containers=4kB"
    full = ctl("system", "df", "-v")[1]
    for word in ("demo", "<none>", "one", "data", "SHARED SIZE", "Volumes:"):
        assert word in full
    assert json.loads(ctl("system", "df", "-v", "--format", "json")[1])["Images"][0]["UniqueSize"] == "1.5MB"


def test_prune_asks_first(daemon: Daemon, ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    daemon.answers["POST /containers/prune"] = {"ContainersDeleted": ["c1"], "SpaceReclaimed": 1500}
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert ctl("container", "prune")[0] == 1
    assert daemon.asked == []
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    out = ctl("container", "prune", "--filter", "label!=keep")[1]
    assert out.endswith("Deleted containers:\nc1\n\nTotal reclaimed space: 1.5kB\n")
    assert daemon.asked[0].query == {"filters": '{"label!": ["keep"]}'}


def test_system_prune(daemon: Daemon, ctl: Ctl) -> None:
    daemon.answers = {
        "POST /containers/prune": {"ContainersDeleted": None, "SpaceReclaimed": 0},
        "POST /networks/prune": {"NetworksDeleted": ["front"]},
        "POST /volumes/prune": {"VolumesDeleted": ["data"], "SpaceReclaimed": 1000},
        "POST /images/prune": {
            "ImagesDeleted": [{"Untagged": "demo:1"}, {"Deleted": "sha256:a"}],
            "SpaceReclaimed": 2000,
        },
        "POST /build/prune": {"CachesDeleted": ["k"], "SpaceReclaimed": 500},
    }
    code, out, _ = ctl("system", "prune", "-af", "--volumes")
    assert code == 0
    assert out == (
        "Deleted networks:\nfront\n\nDeleted volumes:\ndata\n\n"
        "Deleted images:\nuntagged: demo:1\ndeleted: sha256:a\n\n"
        "Deleted build cache:\nk\n\nTotal reclaimed space: 3.5kB\n"
    )
    assert daemon.said("POST /images/prune")[0].query == {"filters": '{"dangling": ["false"]}'}
    daemon.asked.clear()
    ctl("system", "prune", "-f")
    asked = ["/containers/prune", "/networks/prune", "/images/prune", "/build/prune"]
    assert [one.path for one in daemon.asked] == asked
    daemon.asked.clear()
    ctl("system", "prune", "-f", "--filter", "label=a")  # which no step of a build has
    assert [one.path for one in daemon.asked] == asked[:-1]


# ---------------------------------------------------------------- stats

SAMPLE: dict[str, Any] = {
    "id": "c" * 64,
    "name": "/one",
    "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
    "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
    "memory_stats": {"usage": 3 << 20, "limit": 8 << 20, "stats": {"inactive_file": 1 << 20}},
    "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 1}, "eth1": {"rx_bytes": 500, "tx_bytes": 1}},
    "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 4000}, {"op": "write", "value": 10}]},
    "pids_stats": {"current": 3},
}


def test_stats_once(daemon: Daemon, ctl: Ctl) -> None:
    daemon.answers = {"GET /containers/json": [{"Id": "c" * 64}], "GET /containers/{}/stats": SAMPLE}
    code, out, _ = ctl("stats", "--no-stream")
    head, row = out.splitlines()
    assert code == 0
    assert head.split("  ")[0] == "CONTAINER ID"
    words = "cccccccccccc one 40.00% 2MiB / 8MiB 25.00% 1.5kB / 2B 4kB / 10B 3"
    assert row.split() == words.split()
    assert daemon.asked[-1].query == {"stream": "false"}
    assert ctl("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}", "one")[1] == "one 40.00%\n"
    assert ctl("stats", "--no-stream", "gone", "one")[0] == 0
    daemon.answers["GET /containers/{}/stats"] = 404
    assert ctl("stats", "--no-stream", "gone")[0] == 1


def test_stats_of_a_stopped_container_are_dashes(daemon: Daemon, ctl: Ctl) -> None:
    stopped = {"id": "c" * 64, "name": "/one", "memory_stats": {}, "cpu_stats": {}, "precpu_stats": {}}
    daemon.answers["GET /containers/{}/stats"] = stopped
    row = ctl("stats", "--no-stream", "one")[1].splitlines()[1]
    assert row.split()[1:3] == ["one", "--"]


def test_stats_go_on_until_interrupted(daemon: Daemon, capfd: pytest.CaptureFixture[str]) -> None:
    import signal
    import subprocess

    def stream(asked: Asked) -> None:
        asked.handler.begin()
        for total in (300, 1100):
            cpu = {**SAMPLE["cpu_stats"], "cpu_usage": {"total_usage": total}}
            asked.handler.chunk(json.dumps({**SAMPLE, "cpu_stats": cpu}).encode() + b"\n")
            process.stdout.readline() if total == 300 else None  # type: ignore[union-attr]

    daemon.answers["GET /containers/{}/stats"] = stream
    words = [*SWARMCTL, "-H", f"unix://{daemon.socket}", "stats", "--format", "{{.CPUPerc}}", "one"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    seen = b""
    deadline = time.monotonic() + 15
    while b"200.00%" not in seen:
        assert time.monotonic() < deadline, seen
        seen += process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 130
    process.stdout.close()
