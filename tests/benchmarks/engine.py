"""Figures of one node: starts, execs, listings, logs and streams; ours beside docker.io, podman, runc and crun."""

import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.cluster import image
from tests.benchmarks.peers import REPOSITORY, Docker, Swarmd, run
from tests.benchmarks.table import Row, Sample

System = Docker | Swarmd
SWARMCTL = str(REPOSITORY / ".venv/bin/swarmctl")
MANY, AT_ONCE = 50, 8
LINES, BYTES = 1_000_000, 1 << 30
SLEEP = ["sleep", "100000"]


class Api:
    """The Engine API that both serve, over one connection: what a client library costs is the same for both."""

    def __init__(self, system: System) -> None:
        self.path = system.socket("host1").removeprefix("unix://")

    def call(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.path)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, f"/v1.41{path}", None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode(errors='replace')[:300]}")
        return answer.status, content

    def create(self, network: str = "none", command: Sequence[str] = SLEEP) -> str:
        host = {"NetworkMode": network}
        body = {"Image": "demo", "Cmd": list(command), "StopSignal": "SIGKILL", "HostConfig": host}
        return str(json.loads(self.call("POST", "/containers/create", body)[1])["Id"])

    def start(self, id: str) -> None:
        self.call("POST", f"/containers/{id}/start")

    def remove(self, id: str) -> None:
        self.call("DELETE", f"/containers/{id}?force=1")


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def client(system: System, *words: str) -> list[str]:
    """The product's own command line."""
    return [SWARMCTL if isinstance(system, Swarmd) else "docker", "-H", system.socket("host1"), *words]


def quiet(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-500:]}")


@contextmanager
def systems(work: Path, peers: Sequence[str]) -> Iterator[dict[str, System]]:
    """One host of each product, at the same time: rounds alternate, so that noise meets both."""
    made: dict[str, System] = {}
    try:
        for make in (Swarmd, *([Docker] if "docker" in peers else [])):
            try:
                system = make(1, image(work), cluster=False)
            except LookupError as missing:
                print(f"skipped: {missing}")
                continue
            made[system.label] = system
        yield made
    finally:
        for system in made.values():
            system.close()


def alternate(rounds: int, measures: dict[str, Callable[[], float]]) -> dict[str, Sample]:
    values: dict[str, list[float]] = {label: [] for label in measures}
    for number in range(rounds + 1):
        for label, measure in measures.items():
            value = measure()
            if number:  # the first warms what there is to warm
                values[label].append(value)
    return {label: Sample(found) for label, found in values.items()}


def compare(
    name: str, unit: str, samples: dict[str, Sample], ratios: dict[str, float], at_least: bool = False
) -> list[Row]:
    """A row for each peer, or one without when none is there."""
    ours = samples["swarmd"]
    others = {label: sample for label, sample in samples.items() if label != "swarmd"}
    if not others:
        return [Row(name, unit, ours)]
    return [
        Row(name, unit, ours, label, sample, target_ratio=ratios.get(label), at_least=at_least)
        for label, sample in others.items()
    ]


# Starts


def start(network: str) -> Callable[[Path, Sequence[str], int], list[Row]]:
    def measure(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
        with systems(work, peers) as made:
            measures = {label: one_start(Api(system), network) for label, system in made.items()}
            if network == "none":
                for peer in ("crun", "runc"):
                    if peer in peers and shutil.which(peer):
                        measures[f"{peer} run"] = bundle_run(peer, work)
            samples = alternate(5 * rounds, measures)
        targets = {"crun run": 0.6} if network == "none" else {"docker": 1 / 6}
        return compare(f"API start, network {network}", "ms", samples, targets)

    return measure


def one_start(api: Api, network: str) -> Callable[[], float]:
    def once() -> float:
        id = api.create(network)
        try:
            return timed(lambda: api.start(id))
        finally:
            api.remove(id)

    return once


def bundle_run(runtime: str, work: Path) -> Callable[[], float]:
    """`RUNTIME run` of a bundle, as a command; crun refuses a hybrid hierarchy, so it sees the v1 controllers alone."""
    bundle = work / f"bundle-{runtime}"
    (bundle / "rootfs").mkdir(parents=True, exist_ok=True)
    run("tar", "-x", "-C", str(bundle / "rootfs"), "-f", str(image(work)))
    if not (bundle / "config.json").exists():
        run("runc", "spec", "--bundle", str(bundle))
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["true"], "rlimits": []}
    (bundle / "config.json").write_text(json.dumps(config))
    command = ["--bundle", str(bundle), f"bench-{runtime}"]
    if runtime == "runc":
        return command_time(["runc", "run", *command])
    # A mount namespace made once, not measured: the measured command is entered into it. It ends with our end of stdin.
    script = "umount /sys/fs/cgroup/unified 2>/dev/null; echo ready; exec cat"
    holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    measure = command_time(["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "crun", "run", *command])
    return lambda: measure() if holder.poll() is None else 0.0


# Commands


def run_rm(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    with systems(work, peers) as made:
        measures = {label: command_time(client(s, "run", "--rm", "demo", "true")) for label, s in made.items()}
        if "podman" in peers and shutil.which("podman"):
            measures["podman"] = command_time([*podman(work), "run", "--rm", "--network", "none", "demo", "true"])
        samples = alternate(3 * rounds, measures)
    return compare("run --rm true, whole command", "ms", samples, {"docker": 1 / 3, "podman": 1.0})


def podman(work: Path) -> list[str]:
    """Without its network: Debian's podman has none that works here; that is to its advantage."""
    top = work / "podman"
    flags = ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "overlay"]
    for flag in ("root", "runroot", "tmpdir"):
        flags += [f"--{flag}", str(top / flag)]
    command = ["podman", *flags, "--runtime", "runc"]
    if not top.exists():
        with image(work).open("rb") as tar:
            subprocess.run([*command, "import", "-", "demo"], stdin=tar, check=True, capture_output=True)
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    wrapper = work / "podman.sh"
    wrapper.write_text(f'#!/bin/sh\nverb=$1; shift\nexec {" ".join(command)} $verb {" ".join(limits)} "$@"\n')
    wrapper.chmod(0o755)
    return [str(wrapper)]


def command_time(command: Sequence[str]) -> Callable[[], float]:
    return lambda: timed(lambda: quiet(command))


def exec_true(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    with systems(work, peers) as made:
        measures = {}
        for label, system in made.items():
            api = Api(system)
            id = api.create()
            api.start(id)
            measures[label] = command_time(client(system, "exec", id, "true"))
        samples = alternate(5 * rounds, measures)
    return compare("exec true, whole command", "ms", samples, {"docker": 0.8})


def many(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    """50 started 8 at a time, as commands and over the API; then listed; then removed by one command."""
    commands: dict[str, list[float]] = {}
    calls: dict[str, list[float]] = {}
    listing: dict[str, list[float]] = {}
    removal: dict[str, list[float]] = {}
    with systems(work, peers) as made:
        for _ in range(rounds):
            for label, system in made.items():
                words = client(system, "run", "-d", "--stop-signal", "KILL", "demo", *SLEEP)
                commands.setdefault(label, []).append(at_once(lambda words=words: quiet(words)))
                ids = run(*client(system, "ps", "-q")).split()
                assert len(ids) == MANY, f"{label} runs {len(ids)}"
                listing.setdefault(label, []).extend(timed(lambda s=system: quiet(client(s, "ps"))) for _ in range(10))
                removal.setdefault(label, []).append(
                    timed(lambda s=system, ids=ids: quiet(client(s, "rm", "-f", *ids))) / 1000
                )
                api = Api(system)
                calls.setdefault(label, []).append(at_once(lambda api=api: api.start(api.create("bridge"))))
                quiet(client(system, "rm", "-f", *run(*client(system, "ps", "-q")).split()))
    figures = (
        (f"{MANY} x run -d, {AT_ONCE} at a time, commands", "s", commands, 1 / 3),
        (f"{MANY} x create and start, {AT_ONCE} at a time, API", "s", calls, 1 / 8),
        (f"ps with {MANY}, whole command", "ms", listing, 2.0),
        (f"rm -f of {MANY} in one command", "s", removal, 1 / 3),
    )
    rows: list[Row] = []
    for name, unit, values, ratio in figures:
        samples = {label: Sample(found) for label, found in values.items()}
        if "API" in name and "docker" in samples:  # against docker's commands, as nobody starts 50 by hand
            samples["docker"] = Sample(commands["docker"])
        rows += compare(name, unit, samples, {"docker": ratio})
    return rows


def at_once(work: Callable[[], object]) -> float:
    """Seconds for MANY, AT_ONCE at a time."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(work) for _ in range(MANY)]:
            done.result()
    return time.perf_counter() - begin


# Streams


def logs(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    """Lines per second from one container to a client that follows; none may be lost."""
    with systems(work, peers) as made:
        samples = alternate(rounds, {label: follow_lines(system) for label, system in made.items()})
    return compare(f"log path, {LINES} lines with a follower", "lines/s", samples, {"docker": 1.0}, at_least=True)


def follow_lines(system: System) -> Callable[[], float]:
    api = Api(system)

    def once() -> float:
        script = f"yes 'a line of a log, about as long as lines of logs are' | head -n {LINES}"
        id = api.create(command=["sh", "-c", script])
        begin = time.perf_counter()
        api.start(id)
        command = f"docker -H {system.socket('host1')} logs -f {id} | wc -l"
        seen = int(run("sh", "-c", command))
        took = time.perf_counter() - begin
        api.remove(id)
        assert seen == LINES, f"{system.label} lost {LINES - seen} lines"
        return LINES / took

    return once


def streams(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    """Bytes through exec, and through attach, with the same client for all."""
    rows: list[Row] = []
    with systems(work, peers) as made:
        for name, make in (("exec", exec_bytes), ("attach", attach_bytes)):
            samples = alternate(rounds, {label: make(system) for label, system in made.items()})
            rows += compare(f"{name} throughput", "MB/s", samples, {"docker": 1.0}, at_least=True)
    return rows


def exec_bytes(system: System) -> Callable[[], float]:
    api = Api(system)
    id = api.create()
    api.start(id)
    docker = f"docker -H {system.socket('host1')}"
    return throughput(f"{docker} exec {id} head -c {BYTES} /dev/zero")


def attach_bytes(system: System) -> Callable[[], float]:
    docker = f"docker -H {system.socket('host1')}"
    # Without a log: this is about the stream.
    return throughput(f"{docker} run --rm --network none --log-driver none demo head -c {BYTES} /dev/zero")


def throughput(command: str) -> Callable[[], float]:
    def once() -> float:
        begin = time.perf_counter()
        seen = int(run("sh", "-c", f"{command} | wc -c"))
        took = time.perf_counter() - begin
        assert seen == BYTES, f"{command}: {seen} of {BYTES} bytes came"
        return BYTES / took / 1e6

    return once


def help_text(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    ours = alternate(5 * rounds, {"swarmd": command_time([SWARMCTL, "--help"])})["swarmd"]
    return [Row("swarmctl --help", "ms", ours, target=80)]


FIGURES = {
    "start-none": start("none"),
    "start-bridge": start("bridge"),
    "run-rm": run_rm,
    "exec-true": exec_true,
    "fifty": many,
    "logs": logs,
    "streams": streams,
    "help": help_text,
}
