"""Three hosts, an image on each; a cluster is made once for a test file, and every host is put back on after a test."""

import os
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import docker
import pytest

from tests.run import RUN

REPOSITORY = Path(__file__).resolve().parents[2]
DEVCLUSTER = str(REPOSITORY / "deploy" / "devcluster")
SWARMCTL = str(REPOSITORY / ".venv" / "bin" / "swarmctl")
HOSTS = ("host1", "host2", "host3")
SERVE = ("sh", "-c", "hostname > /www/index.html; exec httpd -f -p 80 -h /www")
AT_ONCE = ("--stop-signal", "SIGKILL")  # a shell as pid 1 ignores SIGTERM, and its grace period is not the test
T = TypeVar("T")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.cluster)


def wait_for(probe: Callable[[], T], what: str, seconds: float = 30) -> T:
    """Return the first true answer of the probe; fail with the last one seen."""
    deadline = time.monotonic() + seconds
    seen: object = None
    while time.monotonic() < deadline:
        try:
            seen = probe()
        except Exception as problem:
            seen = problem
        else:
            if seen:
                return seen
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {seconds:g} s; last seen: {seen!r}")


@dataclass
class Cluster:
    """The hosts as an operator has them: commands, and the Engine API through an independent client."""

    name: str

    def devcluster(self, *words: str, timeout: float = 120) -> str:
        command = [DEVCLUSTER, "--name", self.name, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def socket(self, host: str) -> str:
        return f"unix:///var/lib/swarmd-dev/{self.name}/{host}/run/swarmd.sock"

    def address(self, host: str) -> str:
        (line,) = (line for line in self.devcluster("status").splitlines() if line.startswith(f"{host} "))
        return line.split()[1]

    def run(self, *words: str, host: str = "host1", timeout: float = 90) -> subprocess.CompletedProcess[str]:
        command = [SWARMCTL, "-H", self.socket(host), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def swarmctl(self, *words: str, host: str = "host1", timeout: float = 90) -> str:
        done = self.run(*words, host=host, timeout=timeout)
        assert done.returncode == 0, f"swarmctl {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def refused(self, *words: str, says: str, host: str = "host1") -> None:
        """The command fails, and says why in one sentence that the pattern is found in."""
        done = self.run(*words, host=host, timeout=30)
        sentence, *usage = done.stderr.strip().splitlines() or [""]
        assert done.returncode in (1, 2, 125), f"swarmctl {' '.join(words)}: {done.stdout}{done.stderr}"
        assert re.search(says, sentence), f"swarmctl {' '.join(words)}: {done.stderr}"
        assert sentence.startswith("swarmctl"), sentence
        assert "internal error" not in sentence
        assert all(line.startswith("See ") for line in usage), done.stderr

    def data(self, host: str) -> Path:
        return Path(f"/var/lib/swarmd-dev/{self.name}/{host}/data")

    def on(self, host: str, *command: str) -> str:
        return self.devcluster("exec", host, "--", *command)

    def api(self, host: str = "host1") -> docker.APIClient:
        return docker.APIClient(base_url=self.socket(host), version="1.44", timeout=20)

    def tasks(self, service: str, host: str = "host1", **filters: Any) -> list[dict[str, Any]]:
        client = self.api(host)
        try:
            return client.tasks(filters={"service": service, **filters})
        finally:
            client.close()

    def running(self, service: str, host: str = "host1") -> list[dict[str, Any]]:
        tasks = self.tasks(service, host, **{"desired-state": "running"})
        return [task for task in tasks if task["Status"]["State"] == "running"]

    def converged(self, service: str, count: int, host: str = "host1", seconds: float = 40) -> list[dict[str, Any]]:
        def probe() -> list[dict[str, Any]] | None:
            running = self.running(service, host)
            return running if len(running) == count and len({task["Slot"] for task in running}) == count else None

        try:
            return wait_for(probe, f"{count} running tasks of {service}", seconds) if count else []
        except AssertionError as failure:
            told = [
                (
                    task["Slot"],
                    task["DesiredState"],
                    task["Status"]["State"],
                    task["Status"].get("Err"),
                    task.get("NodeID"),
                )
                for task in self.tasks(service, host)
            ]
            raise AssertionError(f"{failure}; tasks: {told}") from None

    def nodes(self, host: str = "host1") -> dict[str, dict[str, Any]]:
        client = self.api(host)
        try:
            return {node["Description"]["Hostname"]: node for node in client.nodes()}
        finally:
            client.close()

    def leader(self, host: str = "host1") -> str:
        return wait_for(
            lambda: next(
                (name for name, node in self.nodes(host).items() if node.get("ManagerStatus", {}).get("Leader")), ""
            ),
            "leader",
        )

    def processes(self, host: str) -> dict[int, str]:
        """The host's processes by the pids it sees itself."""
        found = {}
        listing = "for p in /proc/[0-9]*; do echo ${p#/proc/} $(tr '\\0' ' ' < $p/cmdline); done"
        for line in self.on(host, "sh", "-c", listing).splitlines():
            pid, _, command = line.partition(" ")
            found[int(pid)] = command
        return found

    def kill9(self, host: str, *needles: str) -> None:
        """kill -9 the one process on a host whose command line has all the needles."""
        (pid,) = (p for p, c in self.processes(host).items() if all(n in c for n in needles) and "/proc/[0-9]" not in c)
        self.on(host, "kill", "-9", str(pid))

    def get(self, host: str, port: int) -> str:
        url = f"http://{self.address(host)}:{port}/"
        done = subprocess.run(
            ["curl", "-sS", "--max-time", "3", url], capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def answers(self, host: str, port: int, times: int = 20) -> set[str]:
        return {self.get(host, port) for _ in range(times)}

    def make_whole(self) -> None:
        """Every host on, linked, active and ready."""
        for line in self.devcluster("status").splitlines():
            host, _, state = line.split(maxsplit=2)
            self.devcluster("heal", host) if state != "off" else None
            if state != "up":
                self.devcluster("start", host)
        wait_for(
            lambda: [n["Status"]["State"] for n in self.nodes().values()] == ["ready"] * len(HOSTS),
            "cluster of ready nodes",
            60,
        )


def rootfs() -> bytes:
    """A tar of busybox with its links, the same bytes each time."""
    out = BytesIO()
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for directory in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "www"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        program = Path("/bin/busybox").read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, BytesIO(program))
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(entry)
        for path, text in (("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"), ("etc/group", b"root:x:0:\n")):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            archive.addfile(entry, BytesIO(text))
    return out.getvalue()


def make(name: str, managers: int, image: Path) -> Cluster:
    cluster = Cluster(name)
    cluster.devcluster("down")
    cluster.devcluster("up", "--hosts", str(len(HOSTS)), "--managers", str(managers))
    for host in HOSTS:
        cluster.swarmctl("image", "import", str(image), "demo", host=host)
    return cluster


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "demo.tar"
    path.write_bytes(rootfs())
    return path


@pytest.fixture(scope="module")
def three_managers(image: Path) -> Iterator[Cluster]:
    name = f"t{RUN}"
    try:
        yield make(name, 3, image)
    finally:
        if not os.environ.get("KEEP_CLUSTER"):
            Cluster(name).devcluster("down")


@pytest.fixture(scope="module")
def one_manager(image: Path) -> Iterator[Cluster]:
    """host1 is the manager; host2 and host3 are workers."""
    name = f"u{RUN}"
    try:
        yield make(name, 1, image)
    finally:
        if not os.environ.get("KEEP_CLUSTER"):
            Cluster(name).devcluster("down")


@pytest.fixture
def cluster(three_managers: Cluster) -> Iterator[Cluster]:
    """The file's cluster, whole and without services before and after."""
    yield three_managers
    three_managers.make_whole()
    for node in HOSTS:
        three_managers.swarmctl("node", "update", "--availability", "active", node)
    names = three_managers.swarmctl("service", "ls", "--format", "{{.Name}}").split()
    if names:
        three_managers.swarmctl("service", "rm", *names)
    wait_for(lambda: not three_managers.api().tasks(), "end of all tasks", 30) if names else None
