"""Our runtime as others use it: its command line on a bundle, and podman driving it."""

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swarmd.runtime.effective import DEFAULT_CAPABILITIES
from tests.host.engine_host import rootfs_tar
from tests.run import RUN

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]
PODMAN = shutil.which("podman")
PLAIN = ["nosuid", "noexec", "nodev"]


@dataclass
class Oci:
    """The command, on bundles below a directory."""

    path: Path

    @property
    def program(self) -> Path:
        return self.path / "swarmd-oci"

    def __call__(self, *words: str, code: int = 0, log: str = "") -> str:
        flags = ["--log", log, "--log-format", "json"] if log else []
        command = [self.program, "--root", self.path / "root", *flags, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def bundle(self, *args: str, **linux: Any) -> dict[str, Any]:
        caps = sorted(DEFAULT_CAPABILITIES)
        return {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "hostname": "oci",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": list(args),
                "env": ["PATH=/bin", "A=b"],
                "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
                "noNewPrivileges": True,
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*PLAIN, "ro"]},
            ],
            "linux": {
                "cgroupsPath": f"/{self.path.name}/one",
                "namespaces": [{"type": t} for t in ("pid", "mount", "ipc", "uts", "network", "cgroup")],
                **linux,
            },
        }

    def write(self, config: dict[str, Any]) -> None:
        (self.path / "b/config.json").write_text(json.dumps(config))

    def create(self, *flags: str, code: int = 0) -> str:
        """The program's streams are files: whoever holds a pipe of ours would be waited for."""
        command = [self.program, "--root", self.path / "root", "create", "--bundle", self.path / "b", *flags, "one"]
        with (self.path / "out").open("w+") as out:
            done = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, timeout=20)
        said = (self.path / "out").read_text()
        assert done.returncode == code, said
        return said

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("state", "one"))
        return found

    def ended(self) -> str:
        until("stopped", lambda: self.state()["status"] == "stopped")
        return (self.path / "out").read_text()


def until(what: str, done: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not (seen := done()):
        assert time.monotonic() < deadline, f"{what}: last seen {seen!r}"
        time.sleep(0.01)


@pytest.fixture
def oci() -> Iterator[Oci]:
    path = Path(f"/tmp/oci-{RUN}")
    (path / "b/rootfs").mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", path / "b/rootfs"], input=rootfs_tar(), check=True)
    script = f"#!{sys.executable}\nimport sys\nfrom swarmd.runtime.oci.main import main\nsys.exit(main())\n"
    oci = Oci(path)
    oci.program.write_text(script)
    oci.program.chmod(0o755)
    yield oci
    for directory in Path("/sys/fs/cgroup").glob(f"*/{path.name}"):
        directory.rmdir()
    assert oci("list", "--format", "json").strip() == "[]"
    shutil.rmtree(path)


def test_a_life_in_steps(oci: Oci) -> None:
    oci.write(oci.bundle("sh", "-c", "echo $A $$; hostname; id -u; ls /proc/self/fd; ip -o link show lo; exit 3"))
    oci.create("--pid-file", str(oci.path / "pid"))
    made = oci.state()
    assert (made["status"], made["pid"]) == ("created", int((oci.path / "pid").read_text()))
    assert (oci.path / "out").read_text() == "", "the program does not run before start"
    oci("start", "one")
    lines = oci.ended().splitlines()
    assert lines[:3] == ["b 1", "oci", "0"] and lines[3:7] == ["0", "1", "2", "3"]
    assert "UP" in lines[7]
    assert "only one that is created" in oci("start", "one", code=1)
    oci("delete", "one")
    assert "does not exist" in oci("state", "one", code=1)


def test_signals_exec_and_a_pause(oci: Oci) -> None:
    oci.write(oci.bundle("sh", "-c", "trap 'echo got; exit 7' TERM; while :; do sleep 0.05; done"))
    oci.create()
    oci("start", "one")
    assert oci("exec", "one", "sh", "-c", "echo $A; exit 9", code=9) == "b\n"
    assert "executable file not found" in oci("exec", "one", "nope", code=127)
    oci("pause", "one")
    oci("kill", "one", "TERM")
    assert (oci.path / "out").read_text() == ""
    oci("resume", "one")
    assert oci.ended() == "got\n"
    assert "not running" in oci("kill", "one", "KILL", code=1)
    oci("delete", "one")


def test_what_is_running_is_removed_by_force_only(oci: Oci) -> None:
    oci.write(oci.bundle("sleep", "60"))
    oci.create()
    oci("start", "one")
    assert "stop it first" in oci("delete", "one", code=1)
    pid = oci.state()["pid"]
    oci("delete", "--force", "one")
    until("gone", lambda: not Path(f"/proc/{pid}/ns/pid").exists())
    oci("delete", "--force", "one")


def test_what_cannot_be_made_leaves_nothing(oci: Oci) -> None:
    for config, said, code in (
        (oci.bundle("nope"), "executable file not found", 127),
        (oci.bundle("true", namespaces=[{"type": "network", "path": "/nope"}]), "/nope: is not there", 125),
        (oci.bundle("true", intelRdt={"closID": "x"}), "linux.intelRdt is not supported", 1),
        (oci.bundle(), "process.args is empty", 1),
        ({"ociVersion": "1.0.2"}, "root is missing", 1),
    ):
        oci.write(config)
        assert said in oci.create(code=code)
        assert oci("list", "--format", "json").strip() == "[]"
    log = oci.path / "log"
    oci("create", "--bundle", "/nope", "one", code=1, log=str(log))
    assert "/nope/config.json: no such file" in json.loads(log.read_text())["msg"]


def test_hooks_are_run_in_their_order_and_told_the_state(oci: Oci) -> None:
    config = oci.bundle("true")
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    note = oci.path / "hooks"
    config["hooks"] = {
        kind: [
            {"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} $X $(cat) >> {note}"], "env": ["X=y", "PATH=/bin"]}
        ]
        for kind in kinds
    }
    oci.write(config)
    oci.create()
    oci("start", "one")
    oci.ended()
    oci("delete", "one")
    lines = [line.split(" ", 2) for line in note.read_text().splitlines()]
    assert [line[:2] for line in lines] == [[kind, "y"] for kind in kinds]
    states = [json.loads(line[2]) for line in lines]
    assert [state["status"] for state in states[:2]] == ["creating", "creating"]
    assert states[-1]["status"] == "stopped" and {state["id"] for state in states} == {"one"}
    config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    oci.write(config)
    assert "hook createRuntime /bin/false: ended with 1" in oci.create(code=125)


def test_ids_of_its_own_and_a_seccomp_filter(oci: Oci) -> None:
    ids = [{"containerID": 0, "hostID": 200000, "size": 1000}]
    filter_ = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    config = oci.bundle(
        "sh", "-c", "cat /proc/self/uid_map; mkdir /tmp/x", uidMappings=ids, gidMappings=ids, seccomp=filter_
    )
    config["linux"]["namespaces"].append({"type": "user"})
    oci.write(config)
    oci.create()
    oci("start", "one")
    said = oci.ended()
    assert said.split()[:3] == ["0", "200000", "1000"] and "No space left" in said
    oci("delete", "one")


def test_features() -> None:
    from swarmd.runtime.oci.features import features

    found = features()
    assert "user" in found["linux"]["namespaces"] and "rbind" in found["mountOptions"]


@pytest.mark.skipif(not PODMAN, reason="podman is not installed")
class TestPodman:
    @pytest.fixture
    def podman(self, oci: Oci) -> Iterator[Callable[..., str]]:
        top = oci.path / "podman"
        flags = ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "overlay"]
        for flag in ("root", "runroot", "tmpdir"):
            flags += [f"--{flag}", str(top / flag)]

        def run(*words: str, code: int = 0, stdin: bytes = b"", tty: bool = False) -> str:
            command = ["podman", *flags, "--runtime", str(oci.program), *words]
            if tty:
                return on_terminal(command)
            done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
            text = (done.stdout + done.stderr).decode()
            assert done.returncode == code, f"{words}: {done.returncode}\n{text}"
            return text

        run("import", "-", "demo", stdin=rootfs_tar())
        yield run
        run("rm", "--all", "--force", "--time", "0")
        run("system", "reset", "--force")
        for directory in sorted(Path("/sys/fs/cgroup").glob("*/libpod_parent/**/"), reverse=True):
            directory.rmdir()

    def test_drives_it(self, podman: Callable[..., str]) -> None:
        none = ("--network", "none")
        limits = ("--memory", "32m", "--pids-limit", "20", "--user", "5:6", "--read-only", "--cap-drop", "all")
        said = podman("run", "--rm", *none, *limits, "demo", "sh", "-c",
                      "id -u; cat /sys/fs/cgroup/memory*/memory.limit_in_bytes; touch /x; exit 4", code=4)  # fmt: skip
        assert said.split()[:2] == ["5", str(32 << 20)] and "Read-only" in said
        podman("run", "-d", "--name", "one", *none, "demo", "sh", "-c", "echo up; while :; do sleep 0.05; done")
        assert podman("exec", "one", "sh", "-c", "echo in; exit 5", code=5) == "in\n"
        podman("exec", "one", "nope", code=127)
        assert podman("logs", "one") == "up\n"
        podman("pause", "one")
        assert "Paused" in podman("ps", "-a", "--format", "{{.Status}}")
        podman("unpause", "one")
        podman("kill", "--signal", "KILL", "one")
        assert podman("wait", "one").strip() == "137"
        podman("start", "one")
        podman("stop", "--time", "0", "one")
        podman("rm", "one")
        podman("run", "--rm", *none, "demo", "nope", code=127)
        assert "200000" in podman(
            "run", "--rm", *none, "--uidmap", "0:200000:1000", "demo", "cat", "/proc/self/uid_map"
        )
        assert "/dev/pts/0" in podman("run", "--rm", "-it", *none, "demo", "tty", tty=True)


def on_terminal(command: list[str]) -> str:
    pid, master = pty.fork()
    if not pid:
        os.execvp(command[0], command)
    said = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        said += data
    os.close(master)
    os.waitpid(pid, 0)
    return said.decode()
