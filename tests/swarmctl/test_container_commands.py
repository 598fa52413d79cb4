"""Commands on containers against a daemon that says what the test tells it: what they ask, and what they print."""

import base64
import io
import json
import os
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.swarmctl.main import main
from tests.swarmctl.daemon import Asked, Daemon, daemon_at


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with daemon_at(tmp_path / "s") as daemon:
        yield daemon


Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ctl(daemon: Daemon, capfd: pytest.CaptureFixture[str]) -> Ctl:
    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["-H", f"unix://{daemon.socket}", *words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def container(**changes: Any) -> dict[str, Any]:
    return {
        "Id": "c" * 64,
        "Image": "demo",
        "Command": "sleep 1000 and a long tail",
        "Created": int(time.time()) - 180,
        "Status": "Up 3 minutes",
        "State": "running",
        "Names": ["/one"],
        "Labels": {"x": "y"},
        "Ports": [
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "0.0.0.0", "PrivatePort": 81, "PublicPort": 8081, "Type": "tcp"},
            {"PrivatePort": 90, "Type": "tcp"},
        ],
        "Mounts": [{"Type": "volume", "Name": "data", "Driver": "local"}],
        "NetworkSettings": {"Networks": {"front": {}}},
        "SizeRw": 1500,
        "SizeRootFs": 2_500_000,
        **changes,
    }


# ---------------------------------------------------------------- ps


def test_those_that_take_their_time_to_stop_do_so_side_by_side(daemon: Daemon, ctl: Ctl) -> None:
    together = threading.Barrier(3)

    def stop(asked: Asked) -> None:
        together.wait(10)  # or it is broken, and the answers are missing
        if asked.path.endswith("/two/stop"):
            asked.handler.reply(404, {"message": "no such container: two"})
        else:
            asked.handler.reply(204)

    daemon.answers["POST /containers/{}/stop"] = stop
    assert ctl("stop", "one", "two", "three") == (1, "one\nthree\n", "swarmctl: no such container: two\n")


def test_ps(daemon: Daemon, ctl: Ctl) -> None:
    daemon.answers["GET /containers/json"] = [container()]
    for words in (("ps",), ("container", "ls")):
        code, out, _ = ctl(*words)
        head, row = out.splitlines()
        assert code == 0
        assert head.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
        assert re.split(" {3,}", row)[:5] == [
            "cccccccccccc",
            "demo",
            '"sleep 1000 and a lo…"',
            "3 minutes ago",
            "Up 3 minutes",
        ]
        assert row.endswith("0.0.0.0:8080-8081->80-81/tcp, 90/tcp   one")
    assert daemon.asked[0].query == {}


@pytest.mark.parametrize(
    ("words", "query"),
    [
        ("-a", {"all": "true"}),
        ("-s", {"size": "true"}),
        ("-l", {"limit": "1"}),
        ("-n 3", {"limit": "3"}),
        ("-f status=exited -f label=a", {"filters": '{"status": ["exited"], "label": ["a"]}'}),
        ("--format {{.Size}}", {"size": "true"}),
    ],
)
def test_ps_asks(daemon: Daemon, ctl: Ctl, words: str, query: dict[str, str]) -> None:
    daemon.answers["GET /containers/json"] = []
    assert ctl("ps", *words.split())[0] == 0
    assert daemon.asked[0].query == query


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("-q",), "cccccccccccc\n"),
        (("-q", "--no-trunc"), "c" * 64 + "\n"),
        (
            ("--format", '{{.Names}} {{.Label "x"}} {{.Labels}} {{.Networks}} {{.Mounts}} {{.LocalVolumes}}'),
            "one y x=y front data 1\n",
        ),
        (("--format", "table {{.Names}}\t{{.Size}}"), "NAMES   SIZE\none     1.5kB (virtual 2.5MB)\n"),
        (("--format", '{{.Image | upper | printf "%s!"}}'), "DEMO!\n"),
    ],
)
def test_ps_formats(daemon: Daemon, ctl: Ctl, words: tuple[str, ...], out: str) -> None:
    daemon.answers["GET /containers/json"] = [container()]
    assert ctl("ps", *words) == (0, out, "")


def test_ps_as_json(daemon: Daemon, ctl: Ctl) -> None:
    daemon.answers["GET /containers/json"] = [container()]
    shown = json.loads(ctl("ps", "--format", "json")[1])
    assert (shown["ID"], shown["Names"], shown["State"]) == ("c" * 12, "one", "running")


# ---------------------------------------------------------------- one request each


@pytest.mark.parametrize(
    ("words", "request_line", "query"),
    [
        ("start one", "POST /containers/one/start", {}),
        ("stop -t 3 -s INT one", "POST /containers/one/stop", {"t": "3", "signal": "INT"}),
        ("stop --time -1 one", "POST /containers/one/stop", {"t": "-1"}),
        ("restart one", "POST /containers/one/restart", {}),
        ("kill -s HUP one", "POST /containers/one/kill", {"signal": "HUP"}),
        ("pause one", "POST /containers/one/pause", {}),
        ("unpause one", "POST /containers/one/unpause", {}),
        ("rm -fv one", "DELETE /containers/one", {"force": "true", "v": "true"}),
        ("rename one two", "POST /containers/one/rename", {"name": "two"}),
    ],
)
@pytest.mark.parametrize("noun", [(), ("container",)])
def test_plain_requests(
    daemon: Daemon, ctl: Ctl, noun: tuple[str, ...], words: str, request_line: str, query: dict[str, str]
) -> None:
    daemon.answers[request_line] = 204
    code, out, err = ctl(*noun, *words.split())
    assert (code, out, err) == (0, "" if "rename" in words else "one\n", "")
    assert daemon.asked[0].query == query


def test_those_that_work_are_done_even_when_others_are_refused(daemon: Daemon, ctl: Ctl) -> None:
    daemon.answers = {"POST /containers/b/kill": 409, "POST /containers/{}/kill": 204}
    code, out, err = ctl("kill", "a", "b", "c")
    assert (code, out) == (1, "a\nc\n")
    assert err == "swarmctl: POST /containers/b/kill is refused\n"


def test_forced_removal_of_what_is_gone_is_no_failure(daemon: Daemon, ctl: Ctl) -> None:
    code, _, err = ctl("rm", "-f", "gone")
    assert code == 0
    assert "no DELETE" in err


def test_wait_and_update(daemon: Daemon, ctl: Ctl) -> None:
    daemon.answers = {"POST /containers/{}/wait": {"StatusCode": 7}, "POST /containers/{}/update": {"Warnings": ["hm"]}}
    assert ctl("wait", "a", "b") == (0, "7\n7\n", "")
    assert ctl("update", "-m", "64m", "--cpus", "2", "--restart", "always", "one") == (0, "one\n", "WARNING: hm\n")
    wanted = {"Memory": 64 << 20, "NanoCpus": 2 * 10**9, "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}}
    assert daemon.asked[-1].json == wanted
    assert ctl("-l", "error", "update", "-m", "64m", "one") == (0, "one\n", "")
    assert ctl("update", "one")[0] == 1


def test_top_port_diff(daemon: Daemon, ctl: Ctl) -> None:
    daemon.answers = {
        "GET /containers/{}/top": {"Titles": ["PID", "CMD"], "Processes": [["1", "sleep 9"], ["20", "sh"]]},
        "GET /containers/{}/changes": [{"Path": "/a", "Kind": 0}, {"Path": "/b", "Kind": 1}, {"Path": "/c", "Kind": 2}],
        "GET /containers/{}/json": {
            "NetworkSettings": {
                "Ports": {
                    "443/tcp": [{"HostIp": "::", "HostPort": "8443"}],
                    "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}],
                    "90/tcp": None,
                }
            }
        },
    }
    assert ctl("top", "one", "-o", "pid,cmd")[1] == "PID   CMD\n1     sleep 9\n20    sh\n"
    assert daemon.asked[0].query == {"ps_args": "-o pid,cmd"}
    assert ctl("diff", "one")[1] == "C /a\nA /b\nD /c\n"
    assert ctl("port", "one")[1] == "80/tcp -> 0.0.0.0:8080\n443/tcp -> [::]:8443\n"
    assert ctl("port", "one", "80")[1] == "0.0.0.0:8080\n"
    assert ctl("port", "one", "90/tcp")[0] == 1


def test_inspect_finds_out_what_a_name_is(daemon: Daemon, ctl: Ctl) -> None:
    daemon.answers = {"GET /containers/one/json": {"Name": "/one"}, "GET /networks/front": {"Name": "front"},
                      "GET /nodes/{}": 503}  # fmt: skip
    code, out, err = ctl("inspect", "-f", "{{.Name}}", "one", "front", "gone")
    assert (code, out) == (1, "/one\nfront\n")
    assert err.startswith("swarmctl: nothing is called gone")
    assert ctl("inspect", "--size", "--type", "container", "one")[0] == 0
    assert daemon.asked[-1].query == {"size": "true"}
    assert ctl("container", "inspect", "front")[0] == 1


# ---------------------------------------------------------------- cp


def stat(mode: int, link: str = "") -> dict[str, str]:
    found = {"name": "x", "size": 1, "mode": mode, "mtime": "2026-01-01T00:00:00Z", "linkTarget": link}
    return {"X-Docker-Container-Path-Stat": base64.b64encode(json.dumps(found).encode()).decode()}


DIRECTORY, LINK = 1 << 31 | 0o755, 1 << 27 | 0o777


def tar_of(entries: dict[str, bytes | str | None]) -> bytes:
    """None: a directory; text: a link there."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime = 0o755, 1_700_000_000
            if content is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            else:
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def gives(daemon: Daemon, archive: bytes, mode: int) -> None:
    daemon.answers["GET /containers/{}/archive"] = lambda asked: asked.handler.reply(200, archive, stat(mode))


def test_cp_out_of_a_container(daemon: Daemon, ctl: Ctl, tmp_path: Path) -> None:
    gives(daemon, tar_of({"f": b"content"}), 0o644)
    assert ctl("cp", "one:/etc/f", f"{tmp_path}/new")[0] == 0  # a name that is not there
    assert (tmp_path / "new").read_bytes() == b"content"
    assert ctl("cp", "one:/etc/f", str(tmp_path))[0] == 0  # a directory
    assert (tmp_path / "f").read_bytes() == b"content"
    assert daemon.asked[0].query == {"path": "/etc/f"}
    assert ctl("cp", "one:/etc/f", f"{tmp_path}/nowhere/f")[2].endswith("nowhere is no directory: make it first\n")
    gives(daemon, tar_of({"d/": None, "d/sub/": None, "d/sub/f": b"1", "d/l": "sub/f"}), DIRECTORY)
    assert ctl("cp", "one:/d", f"{tmp_path}/copy")[0] == 0
    assert (tmp_path / "copy/sub/f").read_bytes() == b"1"
    assert (tmp_path / "copy/l").readlink() == Path("sub/f")
    assert (tmp_path / "copy").stat().st_mtime == 1_700_000_000
    assert ctl("cp", "one:/d", f"{tmp_path}/copy")[0] == 0  # it is there now, so it goes inside
    assert (tmp_path / "copy/d/sub/f").exists()
    gives(daemon, tar_of({"./": None, "./g": b"2"}), DIRECTORY)
    assert ctl("cp", "one:/d/.", f"{tmp_path}/copy")[0] == 0  # only its content
    assert (tmp_path / "copy/g").read_bytes() == b"2"


@pytest.mark.parametrize(
    "entries",
    [
        {"d/": None, "d/../../evil": b"x"},
        {"d/": None, "d/out": "/", "d/out/tmp/evil": b"x"},
        {"d/": None, "d/out": "..", "d/out/evil": b"x"},
    ],
)
def test_cp_writes_nothing_outside_of_the_target(
    daemon: Daemon, ctl: Ctl, tmp_path: Path, entries: dict[str, bytes | str | None]
) -> None:
    gives(daemon, tar_of(entries), DIRECTORY)
    code, _, err = ctl("cp", "one:/d", f"{tmp_path}/deep/target".replace("/deep", ""))
    assert code == 1
    assert "which is outside of the target" in err
    assert not list(tmp_path.glob("**/evil"))


def test_cp_follows_a_link_when_told(daemon: Daemon, ctl: Ctl, tmp_path: Path) -> None:
    gives(daemon, tar_of({"real": b"r"}), 0o644)
    daemon.answers["HEAD /containers/{}/archive"] = lambda asked: asked.handler.reply(200, None, stat(LINK, "real"))
    assert ctl("cp", "-L", "one:/a/link", f"{tmp_path}/out")[0] == 0
    assert daemon.said("GET")[0].query == {"path": "/a/real"}
    assert (tmp_path / "out").read_bytes() == b"r"


def stats_by(kinds: dict[str, int]) -> Callable[[Asked], None]:
    def answer(asked: Asked) -> None:
        mode = kinds.get(asked.query["path"].rstrip("/"))
        asked.handler.reply(404 if mode is None else 200, None, {} if mode is None else stat(mode))

    return answer


@pytest.mark.parametrize(
    ("source", "target", "path", "names"),
    [
        ("file", "one:/there", "/there", ["file"]),
        ("file", "one:/there/new", "/there", ["new"]),
        ("file", "one:/there/old", "/there", ["old"]),
        ("dir", "one:/there", "/there", ["dir", "dir/f"]),
        ("dir", "one:/there/new", "/there", ["new", "new/f"]),
        ("dir/.", "one:/there", "/there", [".", "./f"]),
    ],
)
def test_cp_into_a_container(
    daemon: Daemon, ctl: Ctl, tmp_path: Path, source: str, target: str, path: str, names: list[str]
) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "f").write_text("inner")
    daemon.answers |= {
        "HEAD /containers/{}/archive": stats_by({"/there": DIRECTORY, "/there/old": 0o644}),
        "PUT /containers/{}/archive": 200,
    }
    code, _, err = ctl("cp", "-a", f"{tmp_path}/{source}", target)
    assert code == 0, err
    put = daemon.said("PUT")[0]
    assert put.query == {"path": path, "noOverwriteDirNonDir": "true", "copyUIDGID": "true"}
    with tarfile.open(fileobj=io.BytesIO(put.body)) as tar:
        assert tar.getnames() == names


def test_cp_refuses_what_makes_no_sense(daemon: Daemon, ctl: Ctl, tmp_path: Path) -> None:
    daemon.answers["HEAD /containers/{}/archive"] = stats_by({"/f": 0o644})
    assert "two containers" in ctl("cp", "a:/x", "b:/y")[2]
    assert "neither is in a container" in ctl("cp", "./a", "/b")[2]
    assert "no such file" in ctl("cp", f"{tmp_path}/nowhere", "one:/f")[2]
    assert "a directory cannot take its place" in ctl("cp", str(tmp_path), "one:/f")[2]


def test_export(daemon: Daemon, ctl: Ctl, tmp_path: Path) -> None:
    content = os.urandom(200_000)

    def export(asked: Asked) -> None:
        asked.handler.begin()
        asked.handler.chunk(content[:150_000])
        asked.handler.chunk(content[150_000:])
        asked.handler.chunk(b"")

    daemon.answers["GET /containers/{}/export"] = export
    assert ctl("export", "-o", f"{tmp_path}/out.tar", "one")[0] == 0
    assert (tmp_path / "out.tar").read_bytes() == content


def test_export_that_is_cut_off_leaves_no_file(daemon: Daemon, ctl: Ctl, tmp_path: Path) -> None:
    def export(asked: Asked) -> None:
        asked.handler.begin()
        asked.handler.chunk(b"half")
        asked.handler.close_connection = True

    daemon.answers["GET /containers/{}/export"] = export
    status, _, said = ctl("export", "-o", f"{tmp_path}/out.tar", "one")
    assert status == 1 and "the archive was cut off" in said
    assert [path.name for path in tmp_path.iterdir() if path.name != "s"] == []  # s: the socket
