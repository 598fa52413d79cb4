"""The peers, run as peers.md describes: Docker Engine with swarm mode, one per bare host of a development cluster."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEVCLUSTER = str(REPOSITORY / "deploy" / "devcluster")


def run(*command: str, timeout: float = 300, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-2000:]}")
    return done.stdout.strip()


def until(done: Callable[[], object], what: str, seconds: float = 120, pause: float = 0.01) -> float:
    """Wait for a true answer; return the seconds it took."""
    start = time.perf_counter()
    while not done():
        if time.perf_counter() - start > seconds:
            raise RuntimeError(f"no {what} within {seconds:g} s")
        time.sleep(pause)
    return time.perf_counter() - start


class Hosts:
    """A named development cluster: the place where either product runs."""

    def __init__(self, name: str, count: int, *flags: str, root: Path | None = None) -> None:
        """root: where all that the hosts keep is; on the machine's disk if none is given."""
        self.name, self.names = name, [f"host{number}" for number in range(1, count + 1)]
        self._root = root or Path("/var/lib/swarmd-dev", name)
        self.place = ("--name", name, "--root", str(self._root))
        self.devcluster("down")
        self.devcluster("up", "--hosts", str(count), *flags)

    def devcluster(self, *words: str) -> str:
        return run(DEVCLUSTER, *self.place, *words)

    def directory(self, host: str) -> Path:
        return self._root / host

    def address(self, host: str) -> str:
        (line,) = (line for line in self.devcluster("status").splitlines() if line.startswith(f"{host} "))
        return line.split()[1]

    def close(self) -> None:
        self.devcluster("down")


class Docker:
    """docker.io with swarm mode on so many hosts; every manager-side command goes to host1."""

    label = "docker"

    def __init__(
        self,
        hosts: int,
        image: Path,
        managers: int = 1,
        cluster: bool = True,
        root: Path | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        if not shutil.which("dockerd"):
            raise LookupError("docker.io is not installed")
        self._flags = " ".join(flags)
        self.hosts = Hosts("benchpeer", hosts, "--bare", root=root)
        for host in self.hosts.names:
            self.start(host)
        for host in self.hosts.names:
            until(lambda host=host: self.answers(host), f"dockerd on {host}", 60)
            self.docker("import", str(image), "demo", host=host)
        if cluster:
            self.form(managers)

    def start(self, host: str) -> None:
        directory = self.hosts.directory(host)
        line = (
            "mount -t tmpfs tmpfs /run && export DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1 && exec dockerd "
            f"--data-root {directory}/data --exec-root {directory}/run/exec --pidfile {directory}/run/pid "
            f"-H unix://{directory}/run/docker.sock --cgroup-parent devcluster-benchpeer/{host} {self._flags} "
            f">{directory}/log/dockerd.log 2>&1"
        )
        subprocess.Popen([DEVCLUSTER, *self.hosts.place, "exec", host, "--", "sh", "-c", line])

    def answers(self, host: str) -> bool:
        command = ["docker", "-H", self.socket(host), "info"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def socket(self, host: str) -> str:
        return f"unix://{self.hosts.directory(host)}/run/docker.sock"

    def docker(self, *words: str, host: str = "host1", check: bool = True) -> str:
        return run("docker", "-H", self.socket(host), *words, check=check)

    def form(self, managers: int) -> None:
        first = self.hosts.address("host1")
        self.docker("swarm", "init", "--advertise-addr", first)
        for number, host in enumerate(self.hosts.names[1:], start=2):
            token = self.docker("swarm", "join-token", "-q", "manager" if number <= managers else "worker")
            self.docker(
                "swarm", "join", "--advertise-addr", self.hosts.address(host), "--token", token, first, host=host
            )

    command = docker

    def close(self) -> None:
        self.hosts.close()


class Swarmd:
    """Ours, on the same kind of hosts."""

    label = "swarmd"

    def __init__(self, hosts: int, image: Path, managers: int = 1, cluster: bool = True) -> None:
        self.hosts = Hosts("bench", hosts, "--managers", str(managers if cluster else 0))
        for host in self.hosts.names:
            self.command("image", "import", str(image), "demo", host=host)

    def socket(self, host: str) -> str:
        return f"unix://{self.hosts.directory(host)}/run/swarmd.sock"

    def command(self, *words: str, host: str = "host1", check: bool = True) -> str:
        return run(str(REPOSITORY / ".venv/bin/swarmctl"), "-H", self.socket(host), *words, check=check)

    def close(self) -> None:
        self.hosts.close()


def running(system: Docker | Swarmd, service: str, host: str = "host1") -> list[dict[str, object]]:
    """Tasks that run and are wanted, by the Engine API that both serve."""
    filters = json.dumps({"service": [service], "desired-state": ["running"]})
    path = system.socket(host).removeprefix("unix://")
    out = run(
        *("curl", "-sS", "-G", "--max-time", "20", "--unix-socket", path, "http://d/v1.41/tasks"),
        *("--data-urlencode", f"filters={filters}"),
        check=False,
    )
    tasks = json.loads(out or "[]")
    if not isinstance(tasks, list):
        return []
    return [task for task in tasks if task["Status"]["State"] == "running"]
