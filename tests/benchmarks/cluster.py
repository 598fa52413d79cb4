"""Figures of the cluster: start of many replicas, replacement, failover, memory; ours and Docker Swarm's."""

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.peers import Docker, Swarmd, run, running, until
from tests.benchmarks.table import Row, Sample
from tests.cluster.conftest import rootfs

System = Docker | Swarmd
SLEEP = ("demo", "sleep", "100000")
FAST_STOP = ("--stop-signal", "SIGKILL")  # `sleep` as pid 1 ignores SIGTERM


def image(work: Path) -> Path:
    path = work / "demo.tar"
    if not path.exists():
        path.write_bytes(rootfs())
    return path


def systems(peers: Sequence[str]) -> list[type[System]]:
    return [Swarmd, *([Docker] if "docker" in peers else [])]


def side_by_side(
    work: Path, peers: Sequence[str], hosts: int, managers: int, measure: Callable[[System], dict[str, Sample]]
) -> dict[str, dict[str, Sample]]:
    """The same measurement on each product, one after the other; {figure: {product: sample}}."""
    found: dict[str, dict[str, Sample]] = {}
    for make in systems(peers):
        try:
            system = make(hosts, image(work), managers)
        except LookupError as missing:
            print(f"skipped: {missing}")
            continue
        try:
            for figure, sample in measure(system).items():
                found.setdefault(figure, {})[system.label] = sample
        finally:
            system.close()
    return found


def rows(found: dict[str, dict[str, Sample]], unit: str, targets: dict[str, dict[str, float]]) -> list[Row]:
    return [
        Row(
            figure, unit, products["swarmd"], "docker" if "docker" in products else "", products.get("docker"), **wanted
        )
        for figure, products in found.items()
        if "swarmd" in products and (wanted := targets.get(figure, {})) is not None
    ]


def create(system: System, name: str, replicas: int, *flags: str) -> float:
    """Seconds from the command until all replicas run."""
    offline = ("--no-resolve-image",) if isinstance(system, Docker) else ()
    start = time.perf_counter()
    system.command(
        *("service", "create", "--detach", "--name", name, "--replicas", str(replicas)),
        *FAST_STOP,
        *flags,
        *offline,
        *SLEEP,
    )
    until(lambda: len(running(system, name)) == replicas, f"{replicas} tasks of {name}", 180)
    return time.perf_counter() - start


def remove(system: System, name: str) -> None:
    system.command("service", "rm", name)
    hosts = system.hosts.names
    until(lambda: not any(system.command("ps", "-q", host=host) for host in hosts), "end of all containers", 180, 0.1)


def replicas_figure(hosts: int, replicas: int, label: str) -> Callable[[System, int], dict[str, Sample]]:
    def measure(system: System, rounds: int) -> dict[str, Sample]:
        times: dict[str, list[float]] = {f"{label}, default network": [], f"{label}, overlay": []}
        system.command("network", "create", "--driver", "overlay", "over")
        for _ in range(rounds):
            times[f"{label}, default network"].append(create(system, "plain", replicas))
            remove(system, "plain")
            endpoint = ("--network", "over", "--endpoint-mode", "dnsrr")
            times[f"{label}, overlay"].append(create(system, "over", replicas, *endpoint))
            remove(system, "over")
        return {figure: Sample(values) for figure, values in times.items()}

    return measure


def create_100(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    label = "create 100 replicas on one node"
    measure = replicas_figure(1, 100, label)
    found = side_by_side(work, peers, 1, 1, lambda system: measure(system, rounds))
    wanted = {f"{label}, default network": {"target_ratio": 0.25}, f"{label}, overlay": {"target_ratio": 0.2}}
    return rows(found, "s", wanted)


def create_60(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    label = "create 60 replicas on three hosts"
    measure = replicas_figure(3, 60, label)
    found = side_by_side(work, peers, 3, 1, lambda system: measure(system, rounds))
    return rows(found, "s", {figure: {"target_ratio": 1 / 3} for figure in found})


def replacement(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    """A killed program until another runs in its slot, no delay configured."""

    def measure(system: System) -> dict[str, Sample]:
        create(system, "mortal", 1, "--restart-delay", "0s")
        times = []
        for _ in range(rounds * 5):
            (task,) = running(system, "mortal")
            status = task["Status"]
            assert isinstance(status, dict)
            start = time.perf_counter()
            system.hosts.devcluster("exec", "host1", "--", "kill", "-9", str(status["ContainerStatus"]["PID"]))
            until(lambda old=task["ID"]: [t for t in running(system, "mortal") if t["ID"] != old], "replacement")
            times.append(time.perf_counter() - start)
        return {"task killed until replacement runs": Sample(times)}

    wanted = {"task killed until replacement runs": {"target": 0.3}}
    return rows(side_by_side(work, peers, 1, 1, measure), "s", wanted)


def host_death(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    """A host's power cut until as many tasks run elsewhere, default settings."""

    def measure(system: System) -> dict[str, Sample]:
        create(system, "spread", 6)
        times = []
        nodes = json.loads(system.command("node", "inspect", "host3"))
        gone = nodes[0]["ID"]
        start = time.perf_counter()
        system.hosts.devcluster("kill", "host3")
        until(
            lambda: len([t for t in running(system, "spread") if t["NodeID"] != gone]) == 6, "six tasks elsewhere", 120
        )
        times.append(time.perf_counter() - start)
        return {"host dies until its tasks run elsewhere": Sample(times)}

    wanted = {"host dies until its tasks run elsewhere": {"target": 6.0}}
    return rows(side_by_side(work, peers, 3, 1, measure), "s", wanted)


def leader_death(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    """The leading manager's host killed until the next scale is accepted through another."""

    def measure(system: System) -> dict[str, Sample]:
        create(system, "scaled", 3)
        nodes = system.command("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").splitlines()
        leader = next(line.split()[0] for line in nodes if "Leader" in line)
        other = next(host for host in system.hosts.names if host != leader)
        start = time.perf_counter()
        system.hosts.devcluster("kill", leader)
        command = ("service", "scale", "--detach", "scaled=4")
        until(lambda: "scaled" in system.command(*command, host=other, check=False), "scale accepted", 120)
        accepted = time.perf_counter() - start
        until(lambda: len(running(system, "scaled", other)) >= 4, "four running tasks", 120)
        return {
            "leader killed until scale accepted": Sample([accepted]),
            "leader killed until scaled up": Sample([time.perf_counter() - start]),
        }

    wanted = {"leader killed until scale accepted": {"target": 4.0}}
    return rows(side_by_side(work, peers, 3, 3, measure), "s", wanted)


def memory(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    """PSS of the idle worker's daemon processes, and of each container's shim at 50 containers."""

    def measure(system: System) -> dict[str, Sample]:
        time.sleep(5)  # let start-up garbage settle: this measures idleness
        idle = daemon_memory(system, "host2")
        system.command("node", "update", "--availability", "drain", "host1")
        create(system, "many", 50)
        shims = pss(system, "host2", r"^(swarmd-shim|containerd-shim)")
        return {"idle worker daemon, PSS": Sample([idle]), "shim, PSS each at 50": Sample([sum(shims) / len(shims)])}

    wanted = {"idle worker daemon, PSS": {"target": 100.0}, "shim, PSS each at 50": {"target": 2.0}}
    return rows(side_by_side(work, peers, 2, 1, measure), "MB", wanted)


def daemon_memory(system: System, host: str) -> float:
    return sum(pss(system, host, r"^(?!\S*-shim).*(/swarmd |swarmd-spawner|dockerd|containerd )"))


def pss(system: System, host: str, pattern: str) -> list[float]:
    """MB of each process of the host whose name and command line match."""
    listing = (
        "for p in /proc/[0-9]*; do echo $(awk '/^Pss:/ {print $2}' $p/smaps_rollup 2>/dev/null) "
        "$(cat $p/comm 2>/dev/null) $(tr '\\0' ' ' <$p/cmdline 2>/dev/null); done"
    )
    out = run("deploy/devcluster", "--name", system.hosts.name, "exec", host, "--", "sh", "-c", listing)
    found = []
    for line in out.splitlines():
        size, _, command = line.partition(" ")
        if size.isdigit() and re.match(pattern, command):
            found.append(int(size) / 1000)
    return found


FIGURES = {
    "create-100": create_100,
    "create-60": create_60,
    "replacement": replacement,
    "host-death": host_death,
    "leader-death": leader_death,
    "memory": memory,
}
