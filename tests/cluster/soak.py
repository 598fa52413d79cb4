"""Random trouble in a cluster of three managers, by hand: what was acknowledged must hold once all is healed.

    tests/apart .venv/bin/python -m tests.cluster.soak [--seed N] [--minutes M] [--pause S]

Bursts of faults and commands, in an order that the seed gives; after each all is healed and looked at from outside:
specs, tasks, containers, ports, names, what commands said, logs.  It ends at the first thing that is not as it should
be; the hosts' logs and data stay until 'deploy/devcluster --name NAME down', with the name that it printed.
"""

import argparse
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from tests.cluster.conftest import HOSTS, Cluster, make, rootfs, wait_for
from tests.cluster.soak_services import BAD, BOUND, FLAGS, Services
from tests.conftest import machine
from tests.run import RUN

PROGRAMS = (r"^httpd -f", r"^swarmd-shim", r"^swarmd-spawner", r"-m swarmd.manager", r"^etcd ")


class Soak:
    def __init__(self, cluster: Cluster, seed: int, pause: float) -> None:
        self.cluster, self.rng, self.pause = cluster, random.Random(seed), pause
        self.services = Services(cluster, self.rng)
        self.say, self.command = self.services.say, self.services.command
        self.choosing = Lock()
        self.away: set[str] = set()
        self.read = dict.fromkeys(HOSTS, 0)  # characters of the logs

    # ------------------------------------------------------------ faults

    def kill(self, host: str, what: str) -> None:
        found = [pid for pid, line in self.cluster.processes(host).items() if re.search(what, line)]
        if found:
            self.say(host, "kill -9", what)
            victim = min(found) if "spawner" in what else self.rng.choice(found)  # the others are its forks
            self.cluster.on(host, "sh", "-c", f"kill -9 {victim} || :")

    def start(self, host: str) -> None:
        self.say(host, "start")
        try:
            self.cluster.devcluster("start", host)
        except AssertionError as problem:
            if "runs on" not in str(problem):
                raise

    def swarmd_killed(self, host: str, pause: float) -> None:
        self.kill(host, r"bin/swarmd --data-root")
        time.sleep(pause)
        self.start(host)

    def off(self, host: str, pause: float) -> None:
        self.say(host, "off")
        self.cluster.devcluster("kill", host)
        time.sleep(pause)
        self.start(host)

    def cut(self, host: str, pause: float) -> None:
        self.say(host, "cut for", pause)
        self.cluster.devcluster("cut", host)
        time.sleep(pause)
        self.cluster.devcluster("heal", host)

    def demoted(self, host: str, pause: float) -> None:
        by = self.rng.choice([name for name in HOSTS if name != host])
        if self.command(by, "node", "demote", host):
            time.sleep(pause)
            self.until_done(by, "node", "promote", host)
            self.until_manager(by, host)

    def drained(self, host: str, pause: float) -> None:
        by = self.rng.choice(HOSTS)
        self.command(by, "node", "update", "--availability", "drain", host)
        time.sleep(pause)
        self.command(by, "node", "update", "--availability", "active", host)

    def replaced(self, host: str, pause: float) -> None:
        """The host dies, is removed, and joins as another node."""
        by = self.rng.choice([name for name in HOSTS if name != host])
        self.say(host, "off, for another node")
        self.cluster.devcluster("kill", host)
        time.sleep(pause)
        self.until_done(by, "node", "demote", host)
        self.until_done(by, "node", "rm", host)
        self.start(host)
        self.until_done(host, "swarm", "leave", "--force")
        token = self.until_done(by, "swarm", "join-token", "-q", "manager")
        at = ("--advertise-addr", self.services.address[host], "--token", token, f"{self.services.address[by]}:2377")
        self.until_done(host, "swarm", "join", *at)
        self.until_manager(by, host)

    def until_manager(self, by: str, host: str) -> None:
        """What comes next may take another manager away."""
        wait_for(
            lambda: self.cluster.nodes(by)[host]["ManagerStatus"]["Reachability"] == "reachable",
            f"manager {host}",
            BOUND,
        )

    def until_done(self, host: str, *words: str) -> str:
        self.say(host, *words)
        return wait_for(lambda: (self.cluster.swarmctl(*words, host=host, timeout=BOUND),), " ".join(words), BOUND)[0]

    # ------------------------------------------------------------ one thing after another

    def one(self) -> Callable[[], None]:
        services = self.services
        name, host = self.rng.choice(sorted(FLAGS)), self.rng.choice(HOSTS)
        kind = self.rng.choices(("service", "program", "host"), (5, 3, 2))[0]
        if kind == "service":
            act = self.rng.choice([*[services.scale, services.update] * 3, services.rollback, services.again])
            return lambda: act(name, host)
        if kind == "program":
            what = self.rng.choice(PROGRAMS)
            return lambda: self.kill(host, what)
        each = (self.swarmd_killed, self.off, self.cut, self.drained, self.demoted, self.replaced)
        trouble: Any = self.rng.choices(each, (3, 2, 2, 1, 1, 1))[0]
        pause, two = self.rng.choice((self.rng.uniform(0, 2), self.rng.uniform(2, 12))), self.rng.random() < 0.1

        def of_host() -> None:
            with self.choosing:
                if host in self.away or (self.away and not (two and trouble != self.replaced)):
                    return  # a majority is to be there most of the time
                self.away.add(host)
            try:
                trouble(host, pause)
            finally:
                self.away.discard(host)

        return of_host

    def burst(self, count: int) -> None:
        def guarded(act: Callable[[], None]) -> None:
            try:
                act()
            except AssertionError as problem:  # of a command on a host that has been switched off meanwhile
                if not re.search(r"is off|nsenter|waited \d+ s in vain|no such process", str(problem), re.IGNORECASE):
                    raise
                self.say(f"({str(problem).splitlines()[0]})")

        with ThreadPoolExecutor(4) as pool:
            running = []
            for _ in range(count):
                running.append(pool.submit(guarded, self.one()))
                time.sleep(self.rng.choice((0.0, self.rng.uniform(0, self.pause), self.pause)))
        for act in running:
            act.result()

    # ------------------------------------------------------------ whole again

    def heal(self) -> None:
        for line in self.cluster.devcluster("status").splitlines():
            host, _, state = line.split(maxsplit=2)
            self.cluster.devcluster("heal", host) if state != "off" else None
            self.start(host) if state != "up" else None
        self.say("healed")
        for host in HOSTS:
            wait_for(lambda h=host: self.restored(h), f"{host} as an active manager", BOUND)
        wait_for(lambda: all(self.ready(host) for host in HOSTS), "three ready managers, as each says", BOUND)

    def restored(self, host: str) -> bool:
        by = next(h for h in HOSTS if self.cluster.run("node", "inspect", host, host=h).returncode == 0)
        self.cluster.swarmctl("node", "update", "--availability", "active", host, host=by)
        self.cluster.swarmctl("node", "promote", host, host=by)
        return True

    def check(self) -> None:
        self.services.check()
        for host in HOSTS:
            text = (self.cluster.data(host).parent / "log" / "swarmd.log").read_text(errors="replace")
            new, self.read[host] = text[self.read[host] :], len(text)
            found = BAD.search(new)
            assert not found, f"log of {host}: {new[max(0, found.start() - 300) :][:3000]}"
        assert not self.services.wrong, "\n".join(self.services.wrong)
        self.say("whole")

    def ready(self, by: str) -> bool:
        nodes = self.cluster.nodes(by)
        seen = {h: (n["Status"]["State"], n.get("ManagerStatus", {}).get("Reachability")) for h, n in nodes.items()}
        assert seen == dict.fromkeys(HOSTS, ("ready", "reachable")), f"{by} says {seen}"
        return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--pause", type=float, default=1.5, help="s, at most, between two things")
    args = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory) / "demo.tar"
        image.write_bytes(rootfs())
        cluster = make(f"s{RUN}", 3, image)
    for host in HOSTS:
        cluster.swarmctl("tag", "demo", "demo2", host=host)
    cluster.swarmctl("network", "create", "-d", "overlay", "back")
    print(f"seed {args.seed} {cluster.name}", flush=True)
    soak = Soak(cluster, args.seed, args.pause)
    began = time.monotonic()
    soak.check()
    while time.monotonic() - began < args.minutes * 60:
        soak.burst(soak.rng.randint(5, 30))
        soak.heal()
        soak.check()
    cluster.devcluster("down")
    wait_for(lambda: machine() <= before, "machine as it was", 20)
    return 0


if __name__ == "__main__":
    sys.exit(main())
