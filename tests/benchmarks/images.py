"""Figures of images: pull, push and build; ours beside docker.io, podman and buildah, from one registry of Debian's.

All data roots and the registry are on a tmpfs, but for `pull-disk`.  Rounds alternate, the first is not counted, and
what is measured is the whole command of each product.
"""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.benchmarks.cluster import image
from tests.benchmarks.contents import Registry, context, in_memory, large_files, noise, root_of_small_files
from tests.benchmarks.peers import DEVCLUSTER, REPOSITORY, Docker, Hosts, run, until
from tests.benchmarks.table import Row, Sample

_INSECURE = ("--insecure-registry", "172.30.0.0/16")
_FILES = 5000
_STEPS = f"""FROM demo
ENV LANG=C
ARG VERSION=1
LABEL version=$VERSION
WORKDIR /src
COPY tree /src/tree
RUN find /src/tree -type f | wc -l > /src/count
RUN mkdir /out && cp /src/tree/part0/* /out/
RUN sh -c 'test $(cat /src/count) = {_FILES}'
EXPOSE 80
USER root
CMD ["true"]
"""
_STAGES = """FROM demo AS one
RUN sleep 3 && echo one > /one
FROM demo AS two
RUN sleep 3 && echo two > /two
FROM demo
COPY --from=one /one /
COPY --from=two /two /
"""


class Ours:
    label = "swarmd"
    program = str(REPOSITORY / ".venv/bin/swarmctl")

    def __init__(self, top: Path) -> None:
        self.hosts = Hosts("benchimages", 1, "--bare", root=top / "swarmd")
        self.directory = self.hosts.directory("host1")
        line = (
            f"exec {REPOSITORY}/.venv/bin/swarmd --data-root {self.directory}/data --run-root {self.directory}/run "
            f"--cgroup-parent devcluster-benchimages/host1 {' '.join(_INSECURE)} >{self.directory}/log/swarmd.log 2>&1"
        )
        subprocess.Popen(
            [DEVCLUSTER, *self.hosts.place, "exec", "host1", "--", "sh", "-c", line], stdout=subprocess.DEVNULL
        )
        until(lambda: run(*self.command("info", "--format", "{{.ID}}"), check=False), "swarmd's answer", 30)

    def command(self, *words: str) -> list[str]:
        return [self.program, "-H", f"unix://{self.directory}/run/swarmd.sock", *words]

    def load(self, tar: Path) -> None:
        run(*self.command("image", "import", str(tar), "demo"))

    def gateway(self) -> str:
        return self.hosts.address("host1").rpartition(".")[0] + ".1"

    def settle(self) -> None:
        """What was removed is deleted behind the answer, and is to be in nobody's figure."""
        until(lambda: not any((self.directory / "data" / "images" / "tmp").glob("*")), "removal", 60)

    def memory(self) -> int:
        """Bytes resident in the daemon and all that it has started."""
        total = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                place = (status.parent / "cmdline").read_bytes()
                inside = (status.parent / "ns/pid").readlink() == self._namespace()
                if inside and b"swarmd" in place:
                    total += int(status.read_text().partition("VmRSS:")[2].split()[0]) << 10
            except (OSError, IndexError):  # it has ended meanwhile
                continue
        return total

    def _namespace(self) -> Path:
        kept = json.loads((self.directory.parent / "cluster.json").read_text())
        return Path(f"/proc/{kept['hosts'][0]['init']}/ns/pid").readlink()


class Dockers:
    """Its classic builder, with the command line that is installed."""

    label = "docker"

    def __init__(self, top: Path, tar: Path) -> None:
        self.system = Docker(1, tar, cluster=False, root=top / "docker", flags=_INSECURE)

    def command(self, *words: str) -> list[str]:
        return ["env", "DOCKER_BUILDKIT=0", "docker", "-H", self.system.socket("host1"), *words]

    def settle(self) -> None:
        """It removes before it answers."""


class Podman:
    """Runs on the machine itself, nearer to the registry than the others; as a builder it is buildah."""

    def __init__(self, program: str, top: Path, tar: Path) -> None:
        if not shutil.which(program):
            raise LookupError(f"{program} is not installed")
        self.label = program
        self._flags = ["--root", str(top / program), "--runroot", str(top / f"{program}-run")]
        self._flags += ["--storage-driver", "overlay"]
        if program == "buildah":
            made = run(*self.command("from", "scratch"))
            run(*self.command("add", "-q", made, str(tar), "/"))
            run(*self.command("commit", "-q", made, "localhost/demo"))
            run(*self.command("rm", made))

    def command(self, *words: str) -> list[str]:
        verb, *rest = words
        if verb == "pull":
            rest.insert(0, "--tls-verify=false")
        if verb == "build":
            # No namespaces or network to set up for a step, to its advantage: its own network is not everywhere.
            rest[:0] = ["--layers", "--isolation", "chroot", "--network", "host", "--pull-never"]
        return [self.label, *self._flags, verb, *rest]

    def settle(self) -> None:
        """It removes before it answers."""


System = Ours | Dockers | Podman


@contextmanager
def scene(work: Path, peers: Sequence[str], on_disk: bool = False) -> Iterator[tuple[dict[str, System], Path, str]]:
    """The systems, a place in memory, and the address where they all reach a registry."""
    with ExitStack() as held:
        memory = held.enter_context(in_memory(work / "memory"))
        top = memory
        if on_disk:
            top = work / "disk"
            top.mkdir()
            held.callback(shutil.rmtree, top, True)
        tar = image(work)
        held.callback(lambda: run(DEVCLUSTER, "--name", "benchimages", "--root", str(top / "swarmd"), "down"))
        ours = Ours(top)
        ours.load(tar)
        systems: dict[str, System] = {"swarmd": ours}
        for name in ("docker", "podman", "buildah"):
            if name not in peers:
                continue
            try:
                system: System = Dockers(top, tar) if name == "docker" else Podman(name, top, tar)
            except LookupError as missing:
                print(f"skipped: {missing}")
                continue
            if isinstance(system, Dockers):
                held.callback(system.system.close)
            systems[name] = system
        yield systems, memory, ours.gateway()


def seconds(command: Sequence[str]) -> float:
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-1500:]}")
    return time.perf_counter() - begin


def alternate(
    rounds: int, systems: dict[str, System], measure: Callable[[System], float], before: Callable[[System], object]
) -> dict[str, Sample]:
    values: dict[str, list[float]] = {label: [] for label in systems}
    for number in range(rounds + 1):
        for label, system in systems.items():
            before(system)
            system.settle()
            os.sync()  # nobody pays for what another has left to write
            value = measure(system)
            if number:
                values[label].append(value)
    return {label: Sample(found) for label, found in values.items()}


def compared(name: str, samples: dict[str, Sample], ratio: float) -> list[Row]:
    """Held to the faster peer."""
    ours = samples.pop("swarmd")
    if not samples:
        return [Row(name, "s", ours)]
    fastest = min(samples, key=lambda label: samples[label].median)
    return [
        Row(name, "s", ours, label, sample, target_ratio=ratio if label == fastest else None)
        for label, sample in samples.items()
    ]


def pull(name: str, content: Callable[[], bytes], on_disk: bool = False) -> Callable[..., list[Row]]:
    def measure(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
        with scene(work, [peer for peer in peers if peer != "buildah"], on_disk) as (systems, memory, address):
            registry = Registry(memory / "registry", address, 5990)
            try:
                ref = registry.publish("content", [content()])
                samples = alternate(
                    rounds,
                    systems,
                    lambda system: seconds(system.command("pull", ref)),
                    lambda system: remove(system, ref),
                )
            finally:
                registry.close()
        return compared(name, samples, 0.8)

    return measure


def remove(system: System, ref: str) -> None:
    """Have it gone, or the next pull would find it and measure nothing."""
    run(*system.command("rmi", "-f", ref), check=False)  # before the first round it is not there
    if subprocess.run(system.command("image", "inspect", ref), capture_output=True, check=False).returncode == 0:
        raise RuntimeError(f"{system.label} still has {ref} after it was removed")


def push(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    """Of the image of many small files, which came by a pull; the registry is empty each time."""
    with scene(work, [peer for peer in peers if peer == "docker"]) as (systems, memory, address):
        origin = Registry(memory / "registry", address, 5990)
        empty = Registry(memory / "empty", address, 5991)
        try:
            ref = origin.publish("content", [root_of_small_files()])
            there = f"{empty.host}/content:latest"
            for system in systems.values():
                run(*system.command("pull", ref))
                run(*system.command("tag", ref, there))

            def pushed(system: System) -> float:
                took = seconds(system.command("push", there))
                if not empty.has("content"):
                    raise RuntimeError(f"{system.label} says that it has pushed {there}, and the registry has it not")
                return took

            samples = alternate(rounds, systems, pushed, lambda _: empty.start())
        finally:
            origin.close()
            empty.close()
    return compared("push, many small files, registry empty (tmpfs)", samples, 1.0)


def build(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    builders = [peer for peer in peers if peer != "podman"]
    with scene(work, builders) as (systems, memory, _):
        directory = context(memory / "context", _FILES)
        (directory / "Dockerfile").write_text(_STEPS)
        cold = alternate(
            rounds,
            systems,
            lambda system: seconds(system.command("build", "--no-cache", "-t", "built", str(directory))),
            lambda _: None,
        )
        cached = alternate(
            rounds,
            systems,
            lambda system: seconds(system.command("build", "-t", "built", str(directory))),
            lambda _: None,
        )
        two = memory / "two"
        two.mkdir()
        (two / "Dockerfile").write_text(_STAGES)
        ours = {"swarmd": systems["swarmd"]}
        stages = alternate(
            rounds,
            ours,
            lambda system: seconds(system.command("build", "--no-cache", "-t", "two", str(two))),
            lambda _: None,
        )["swarmd"]
    return [
        *compared(f"build cold, 12 steps, COPY of {_FILES} files, 3 RUN (tmpfs)", cold, 0.5),
        *compared("the same build, all in the cache (tmpfs)", cached, 0.5),
        Row("build of two stages of 3 s each (tmpfs)", "s", stages, target=4),
    ]


def memory_of_pull(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    """The most that the daemon and its workers have above what the daemon has idle, while a gigabyte comes."""
    values = []
    with scene(work, ()) as (systems, memory, address):
        ours = systems["swarmd"]
        assert isinstance(ours, Ours)
        registry = Registry(memory / "registry", address, 5990)
        try:
            ref = registry.publish("content", [noise(256 << 20) for _ in range(4)])
            idle = ours.memory()
            for _ in range(rounds):
                values.append((peak_during(ours, lambda: run(*ours.command("pull", ref))) - idle) / 1e6)
                run(*ours.command("rmi", "-f", ref))
                ours.settle()
        finally:
            registry.close()
    return [Row("memory above idle while 1 GB is pulled", "MB", Sample(values), target=60)]


def peak_during(ours: Ours, work: Callable[[], object]) -> int:
    most = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            most = max(most, ours.memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        ended.set()
        watcher.join()
    return most


FIGURES = {
    "pull-many": pull("pull, many small files (tmpfs)", root_of_small_files),
    "pull-large": pull("pull, one large layer (tmpfs)", large_files),
    "pull-disk": pull("pull, many small files (disk)", root_of_small_files, on_disk=True),
    "push": push,
    "build": build,
    "pull-memory": memory_of_pull,
}
