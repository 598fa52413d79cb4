"""swarmctl build against a daemon that answers what it is told: what is sent, what is shown, what is refused."""

import base64
import io
import json
import os
import pty
import socket
import subprocess
import tarfile
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swarmd.swarmctl.build_context import Context
from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.main import main
from tests.swarmctl.daemon import Asked, Daemon, daemon_at
from tests.swarmctl.program import SWARMCTL

ID = f"sha256:{'a' * 64}"
IMAGE = [{"aux": {"ID": ID}}, {"named": "demo:latest"}]


def step(number: int, state: str, text: str = "RUN make", **more: Any) -> dict[str, Any]:
    place = {"count": 4, "stage": "build", "place": number, "places": 4}
    return {"step": {"number": number, "text": text, "state": state, "seconds": 0.25, **place, **more}}


@dataclass
class Builds:
    """events: what the daemon answers; told: what command lines printed."""

    daemon: Daemon
    place: Path
    events: list[dict[str, Any]]
    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def run(self, *words: str, code: int = 0) -> "Builds":
        try:
            ended = main(["-H", f"unix://{self.daemon.socket}", *words])
        except SystemExit as problem:
            ended = int(str(problem.code))
        self.out, self.err = self.capsys.readouterr()
        assert ended == code, self.err
        return self

    @property
    def asked(self) -> Asked:
        return self.daemon.said("POST /build")[-1]

    @property
    def more(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.asked.body.partition(b"\n")[0])
        return found

    def sent(self) -> tarfile.TarFile:
        return tarfile.open(fileobj=io.BytesIO(self.asked.body.partition(b"\n")[2]))


@pytest.fixture
def build(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Builds]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("SWARMCTL_CONFIG", str(tmp_path / "swarmctl"))
    place = tmp_path / "context"
    place.mkdir()
    (place / "Dockerfile").write_text("FROM scratch\n")
    with daemon_at(tmp_path / "s") as daemon:
        builds = Builds(daemon, place, IMAGE, capsys)

        def answer(request: Asked) -> None:
            request.handler.reply(200, b"".join(json.dumps(event).encode() + b"\n" for event in builds.events))

        daemon.answers = {"POST /build": answer}
        yield builds


# ------------------------------------------------------------ what is sent


def test_a_context_is_sorted_and_without_what_is_ignored(build: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    place = build.place
    for name in ("b/deep/kept", "b/deep/gone", "a", "c/gone", "long" * 40 + "/" + "name" * 40, "z.log", "näme"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    (place / os.fsdecode(b"\xff")).touch()
    (place / "link").symlink_to("b/deep/kept")
    (place / "a").chmod(0o4755)
    os.mkfifo(place / "pipe")
    unix = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(place)
    unix.bind("socket")  # a whole path may be too long for it
    unix.close()
    (place / ".dockerignore").write_text("# no\n*.log\nb\n!b/deep/kept\nc/*\nDockerfile\n")
    build.run("build", str(place))
    with build.sent() as tar:
        members = {member.name: member for member in tar}
        assert [*members] == [
            *(".dockerignore", "a", "b", "b/deep", "b/deep/kept", "c", "link"),
            *("long" * 40, "long" * 40 + "/" + "name" * 40, "näme", "pipe", "\udcff"),
        ]
        kept = tar.extractfile("b/deep/kept")
        assert kept is not None and kept.read() == b"b/deep/kept"
    assert (members["a"].mode, members["a"].uid, members["a"].size) == (0o4755, 0, 1)
    assert members["link"].linkname == "b/deep/kept" and members["pipe"].isfifo() and members["b"].isdir()
    assert build.more["dockerfile"] == "FROM scratch\n"
    assert build.asked.query["dockerfile"] == "Dockerfile"
    assert "WARNING: socket is a socket" in build.err


def test_a_dockerfile_may_be_elsewhere_and_have_its_own_patterns(build: Builds, tmp_path: Path) -> None:
    (build.place / "a").touch()
    (build.place / "b").touch()
    (build.place / ".dockerignore").write_text("b\n")
    other = tmp_path / "Other"
    other.write_text("FROM other\n")
    (tmp_path / "Other.dockerignore").write_text("a\n")
    build.run("image", "build", "-f", str(other), str(build.place))
    with build.sent() as tar:
        assert tar.getnames() == [".dockerignore", "Dockerfile", "b"]
    assert build.more["dockerfile"] == "FROM other\n"
    missing = build.run("build", "-f", "/nosuch/file", str(build.place), code=1)
    assert "/nosuch/file is not there: write a Dockerfile, or name it with -f" in missing.err
    gone = build.run("build", "/nosuch", code=1)
    assert "build context /nosuch is not there" in gone.err


def test_what_changes_while_it_is_sent(build: Builds) -> None:
    (build.place / "a").write_bytes(bytes(300_000))
    (build.place / "b").touch()
    context = Context(str(build.place))
    pieces = context.tar()
    next(pieces)
    (build.place / "b").unlink()
    b"".join(pieces)
    assert context.skipped == ["b is gone since the context was listed: it is left out"]
    (build.place / "a").write_bytes(bytes(600_000))
    pieces = Context(str(build.place)).tar()
    next(pieces)
    os.truncate(build.place / "a", 10)
    with pytest.raises(Refusal, match="a became shorter while it was sent"):
        list(pieces)


def test_flags_become_the_query(build: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "from here")
    monkeypatch.delenv("NOWHERE", raising=False)
    words = "-t demo --target t --label a=b --platform linux/arm64 --no-cache --pull --network host --squash "
    words += "--add-host db:10.0.0.9 --cache-from type=registry,ref=r/c -m 1g --memory-swap -1 --cpu-shares 3 "
    words += "--cpu-period 4 --cpu-quota 5 --cpuset-cpus 0 --cpuset-mems 0 --shm-size 2m --ulimit nofile=1:2 "
    words += "--build-arg A=1 --build-arg HERE --build-arg NOWHERE --allow security.insecure --cache-to type=inline "
    words += "--no-cache-filter a,b --no-cache-filter c --annotation k=v --provenance=false --sbom=false"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    build.run("builder", "build", *words.split(), "--rm", str(build.place))
    query = build.asked.query
    assert json.loads(query.pop("buildargs")) == {**{"A": "1", "HERE": "from here", "SOURCE_DATE_EPOCH": "1700000000"}}
    assert json.loads(query.pop("labels")) == {"a": "b"}
    assert json.loads(query.pop("cachefrom")) == ["r/c"]
    assert json.loads(query.pop("ulimits")) == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert query == {
        **{"t": "demo", "target": "t", "platform": "linux/arm64", "nocache": "true", "pull": "true", "squash": "true"},
        **{"networkmode": "host", "extrahosts": "db:10.0.0.9", "memory": str(1 << 30), "memswap": "-1"},
        **{"cpushares": "3", "cpuperiod": "4", "cpuquota": "5", "cpusetcpus": "0", "cpusetmems": "0"},
        **{"shmsize": str(2 << 20), "dockerfile": "Dockerfile", "progress": "events"},
    }
    assert build.more["allow"] == ["security.insecure"] and build.more["inline_cache"] is True
    assert build.more["fresh"] == ["a", "b", "c"] and build.more["annotations"] == {"k": "v"}
    assert "no attestations" in build.run("build", "--provenance=mode=max", str(build.place), code=2).err


def test_contexts_with_names_travel_beside_the_own_one(build: Builds, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/kept").write_text("kept")
    (tmp_path / "lib/left").touch()
    (tmp_path / "lib/.dockerignore").write_text("left\n")
    (build.place / ".dockerignore").write_text("*.log\n")
    given = [f"lib={tmp_path}/lib", "busybox=docker-image://alpine:3", "git=https://host/x.git#v1"]
    words = [word for text in given for word in ("--build-context", text)]
    build.run("build", *words, str(build.place))
    places = build.more["contexts"]
    prefix = places["lib"].removeprefix("sent:")
    assert len(prefix) == 33 and build.more["ignored"] == [".dockerignore", "*.log\n"]
    assert places == {**places, "busybox": "docker-image://alpine:3", "git": "https://host/x.git#v1"}
    with build.sent() as tar:
        names = [".dockerignore", "Dockerfile", f"{prefix}.dockerignore", f"{prefix}kept"]
        assert tar.getnames() == names
        kept = tar.extractfile(names[-1])
        assert kept is not None and kept.read() == b"kept"
    build.run("build", "--build-context", given[0], "https://host/main.git")
    with build.sent() as tar:
        assert [name.rpartition("/")[2] for name in tar.getnames()] == [".dockerignore", "kept"]
    for text, code, why in (
        ("lib=/nosuch", 1, "--build-context lib: there is no directory /nosuch"),
        ("lib", 2, "write it as NAME=DIRECTORY"),
        ("x=oci-layout:///x", 2, "name the image: x=docker-image://IMAGE"),
    ):
        assert why in build.run("build", "--build-context", text, str(build.place), code=code).err


def test_what_is_pushed_and_told_after_a_build(build: Builds, tmp_path: Path) -> None:
    file = tmp_path / "metadata"
    image = f"GET /images/{ID.replace(':', '%3A')}/json"
    build.daemon.answers |= {image: {"Descriptor": {"digest": ID, "size": 7}}}

    def pushed(request: Asked) -> None:
        request.handler.reply(200, b'{"status": "pushed"}\n')

    build.daemon.answers |= {f"POST /images/{name}/push": pushed for name in ("demo", "host%3A5000/x", "r/x")}
    build.run("build", "--push", "--metadata-file", str(file), "-t", "demo", "-t", "host:5000/x:1", str(build.place))
    found = [(asked.path, asked.query) for asked in build.daemon.asked if asked.path.endswith("/push")]
    assert found == [("/images/demo/push", {"tag": "latest"}), ("/images/host%3A5000/x/push", {"tag": "1"})]
    assert json.loads(file.read_text()) == {
        "containerimage.digest": ID,
        "containerimage.descriptor": {"digest": ID, "size": 7},
        "image.name": "demo:latest",
    }
    assert build.out == ""
    build.run("build", "-o", "type=registry,name=r/x", str(build.place))
    assert build.daemon.asked[-1].path == "/images/r/x/push" and build.asked.query["t"] == "r/x"
    assert "what is pushed needs a name" in build.run("build", "--push", str(build.place), code=1).err
    build.run("build", "--load", "-o", f"type=tar,dest={tmp_path}/t", str(build.place), code=1)
    assert "t" not in build.asked.query  # the image stays, though its files are asked for


def test_secrets_and_agents(build: Builds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_bytes(b"k\xffey")
    monkeypatch.setenv("TOKEN", "t")
    agent = socket.socket(socket.AF_UNIX)
    agent.bind(str(tmp_path / "agent"))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    words = ["--secret", f"id=a,src={tmp_path}/key", "--secret", "id=b,env=TOKEN", "--secret", "id=TOKEN"]
    build.run("build", *words, "--ssh", "default", "--ssh", f"x={tmp_path}/agent", str(build.place))
    secrets = {id: base64.b64decode(text) for id, text in build.more["secrets"].items()}
    assert secrets == {"a": b"k\xffey", "b": b"t", "TOKEN": b"t"}
    assert build.more["ssh"] == {"default": f"{tmp_path}/agent", "x": f"{tmp_path}/agent"}
    agent.close()
    for words, why in (
        (["--secret", "src=x"], "has no id"),
        (["--secret", "id=a,src=/nosuch"], "secret a: /nosuch: no such file"),
        (["--secret", "id=a,env=NOSUCH"], "variable NOSUCH is not set here"),
        (["--ssh", f"default={tmp_path}/key"], "is no agent's socket"),
        (["--allow", "all"], "nothing that can be allowed"),
    ):
        assert why in build.run("build", *words, str(build.place), code=2 if "has no" in why or "all" in why else 1).err
    assert len(build.daemon.asked) == 1


@pytest.mark.parametrize(
    ("place", "words", "query"),
    [
        ("https://host/x.tar", [], {"remote": "https://host/x.tar"}),
        ("git@host:x.git#v1:sub", ["-f", "b/D"], {"remote": "git@host:x.git#v1:sub", "dockerfile": "b/D"}),
    ],
)
def test_remote_contexts(build: Builds, place: str, words: list[str], query: dict[str, str]) -> None:
    build.run("build", *words, place)
    assert build.asked.query == {**query, "progress": "events"}


def _piped(build: Builds, *words: str, stdin: bytes) -> "subprocess.CompletedProcess[bytes]":
    command = [*SWARMCTL, "-H", f"unix://{build.daemon.socket}", "build", *words]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=20, check=False)


def test_standard_input(build: Builds) -> None:
    assert _piped(build, "-", stdin=b"FROM x\n" * 1000).returncode == 0
    assert build.more["dockerfile"] == "FROM x\n" * 1000
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(build.place, "sub")
    assert _piped(build, "-f", "sub/Dockerfile", "-", stdin=buffer.getvalue()).returncode == 0
    assert build.asked.body == b"{}\n" + buffer.getvalue() and build.asked.query["dockerfile"] == "sub/Dockerfile"
    assert _piped(build, "-f", "-", str(build.place), stdin=b"FROM y\n").returncode == 0
    assert build.more["dockerfile"] == "FROM y\n" and build.sent().getnames() == ["Dockerfile"]
    assert b"can't both be on standard input" in _piped(build, "-f", "-", "-", stdin=b"").stderr
    assert b"there is nothing on standard input" in _piped(build, "-", stdin=b"").stderr
    assert b"neither a tar nor a Dockerfile" in _piped(build, "-", stdin=b"\xff\xfe").stderr


# ------------------------------------------------------------ what is shown


def test_plain_progress(build: Builds) -> None:
    build.events = [
        step(1, "started", "FROM x"),
        step(1, "done", "FROM x"),
        step(2, "started", "COPY <<E /f\nlines\nE"),
        step(2, "cached"),
        step(3, "started"),
        step(3, "output", data="one\ntw"),
        step(3, "output", data="o"),
        step(3, "done"),
        {"warning": "Dockerfile:3: Rule: why"},
        *IMAGE,
    ]
    build.run("build", "--progress", "plain", str(build.place))
    lines = build.err.splitlines()
    assert [line for line in lines if line][2:-2] == [
        *("#1 [build 1/4] FROM x", "#1 DONE 0.2s", "#2 [build 2/4] COPY <<E /f ...", "#2 CACHED"),
        *("#3 [build 3/4] RUN make", "#3 0.250 one", "#3 0.250 two", "#3 DONE 0.2s"),
    ]
    assert lines[-2].startswith("built aaaaaaaaaaaa as demo:latest in 0.") and "3 steps, 1 of them cached" in lines[-2]
    assert lines[-1] == "WARNING: Dockerfile:3: Rule: why" and build.out == ""
    assert build.run("build", "-q", str(build.place)).out == f"{ID}\n" and build.err == ""
    raw = build.run("build", "--progress", "rawjson", str(build.place)).err
    assert [json.loads(line) for line in raw.splitlines()[:-1]] == build.events


def test_a_failure_is_the_daemons_sentence_and_its_code(build: Builds, tmp_path: Path) -> None:
    said = "Dockerfile:2: RUN false ended with exit code 7\n    2 | RUN false\n      | ^^^^^^^^^"
    build.events = [step(1, "started"), step(1, "failed"), {"errorDetail": {"code": 7, "message": said}, "error": said}]
    failed = build.run("build", "--iidfile", str(tmp_path / "id"), str(build.place), code=7)
    assert failed.err.endswith(f"#1 ERROR\n\nswarmctl: {said}\n") and not (tmp_path / "id").exists()
    build.events.insert(0, {"warning": "Dockerfile:1: Rule: why"})
    assert f"\nWARNING: Dockerfile:1: Rule: why\nswarmctl: {said}" in build.run("build", str(build.place), code=7).err
    asked = len(build.daemon.asked)
    for flag in ("--iidfile", "--metadata-file"):
        assert "there is no directory /nosuch" in build.run("build", flag, "/nosuch/f", str(build.place), code=1).err
        assert f"{tmp_path} is a directory" in build.run("build", flag, str(tmp_path), str(build.place), code=1).err
    assert len(build.daemon.asked) == asked
    del build.events[0]
    lines = "".join(f"line {n}\n" for n in range(20))
    build.events[1:1] = [step(1, "output", data=lines[:30]), step(1, "output", data=lines[30:])]
    quiet = build.run("build", "-q", str(build.place), code=7).err.splitlines()
    assert quiet[:10] == [f"line {n}" for n in range(10, 20)] and quiet[10] == f"swarmctl: {said.splitlines()[0]}"
    build.events = IMAGE
    build.run("build", "--iidfile", str(tmp_path / "id"), str(build.place))
    assert (tmp_path / "id").read_text() == ID


def test_check(build: Builds) -> None:
    build.events = [{"warning": "Dockerfile:1: Rule: why"}]
    assert build.run("build", "--check", str(build.place), code=1).out == "Dockerfile:1: Rule: why\n"
    assert build.more["check"] is True and build.sent().getnames() == []
    build.events = []
    assert "nothing is doubtful" in build.run("build", "--check", str(build.place)).out


def test_a_terminal_shows_steps_side_by_side(build: Builds) -> None:
    more = threading.Event()

    def answer(request: Asked) -> None:
        request.handler.begin()
        first = [
            step(1, "started"),
            step(2, "started", "RUN other"),
            step(1, "output", data="\033[1mbold\033[0m\rlast\n"),
        ]
        for event in first:
            request.handler.chunk(json.dumps(event).encode() + b"\n")
        more.wait(10)
        for event in [step(1, "done"), step(2, "cached", "RUN other"), *IMAGE]:
            request.handler.chunk(json.dumps(event).encode() + b"\n")
        request.handler.chunk(b"")

    build.daemon.answers = {"POST /build": answer}
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    command = [*SWARMCTL, "-H", f"unix://{build.daemon.socket}", "build"]
    process = subprocess.Popen([*command, str(build.place)], stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    seen = b""
    try:
        while b"2 running" not in seen or b"| last" not in seen:
            seen += os.read(ours, 1 << 16)
        more.set()
        while b"built aaaaaaaaaaaa" not in seen:
            seen += os.read(ours, 1 << 16)
        assert process.wait(20) == 0
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    last = seen.decode().rpartition("\033[J")[2].splitlines()
    assert last[0].startswith("[+] ") and last[0].endswith(", 2 of 4 steps")
    assert last[2:4] == [" 0.2s    [build 1/4] RUN make", " CACHED  [build 2/4] RUN other"]
    assert b"bold" not in seen


# ------------------------------------------------------------ outputs


def test_outputs_leave_no_image_without_a_name(build: Builds, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        directory = tarfile.TarInfo("etc")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o750
        tar.addfile(directory)
        file = tarfile.TarInfo("etc/passwd")
        file.size = 4
        tar.addfile(file, io.BytesIO(b"root"))
        link = tarfile.TarInfo("etc/other")
        link.type, link.linkname = tarfile.LNKTYPE, "etc/passwd"
        tar.addfile(link)
    rootfs = f"GET /swarmd/images/{ID.replace(':', '%3A')}/rootfs"
    build.daemon.answers |= {
        rootfs: lambda request: request.handler.reply(200, buffer.getvalue()),
        "GET /images/get": lambda request: request.handler.reply(200, b"archive"),
        "DELETE /images/{}": [],
    }
    out = tmp_path / "out"
    build.run("build", "-o", str(out), "-o", f"type=tar,dest={out}.tar", str(build.place))
    assert (out / "etc/other").read_text() == "root" and (out / "etc").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out.tar").read_bytes() == buffer.getvalue()
    name = build.asked.query["t"]
    assert (
        name.startswith("swarmd-build-output:") and build.daemon.asked[-1].path == f"/images/{name.replace(':', '%3A')}"
    )
    build.run("build", "-t", "demo", "-o", f"type=oci,dest={out}.oci", str(build.place))
    assert (tmp_path / "out.oci").read_bytes() == b"archive" and build.asked.query["t"] == "demo"
    assert build.daemon.said("GET /images/get")[-1].query == {"names": "demo"}
    assert build.daemon.asked[-1].method == "GET"
    for words, why in (
        ("type=odd", "type is one of"),
        ("type=local", "dest=DIRECTORY"),
        ("type=image,dest=x", "stays"),
    ):
        assert why in build.run("build", "-o", words, str(build.place), code=2).err


# ------------------------------------------------------------ the cache


def test_the_cache_is_shown_and_emptied(build: Builds) -> None:
    row = {"ID": "k" * 64, "Type": "regular", "Description": "RUN make", "InUse": False, "Shared": False}
    times = {"CreatedAt": "2026-01-01T00:00:00Z", "LastUsedAt": "2026-01-01T00:00:00Z", "UsageCount": 2}
    build.daemon.answers = {
        "GET /system/df": {"BuildCache": [{**row, **times, "Size": 1000}, {**row, "Shared": True, "Size": 500}]},
        "POST /build/prune": {"CachesDeleted": ["k" * 64], "SpaceReclaimed": 1000},
    }
    out = build.run("builder", "du").out
    assert "kkkkkkkkkkkk   regular      RUN make" in out and out.endswith("Reclaimable: 1kB\nTotal: 1.5kB\n")
    assert build.run("builder", "du", "--format", "{{.ID}} {{.Size}}").out.splitlines()[0] == f"{'k' * 64} 1kB"
    words = ["-f", "-a", "--filter", "until=24h", "--keep-storage", "1g", "--max-used-space", "2g"]
    assert build.run("builder", "prune", *words).out.endswith(f"{'k' * 64}\n\nTotal reclaimed space: 1kB\n")
    assert build.daemon.asked[-1].query == {
        **{"all": "true", "reserved-space": str(1 << 30), "max-used-space": str(2 << 30)},
        "filters": '{"until": ["24h"]}',
    }
