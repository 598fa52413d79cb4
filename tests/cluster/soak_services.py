"""The services of the soak: changed by commands, remembered as acknowledged, and looked at from outside."""

import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from threading import Lock

from tests.cluster.conftest import AT_ONCE, HOSTS, SWARMCTL, Cluster, wait_for

BOUND = 75.0  # s, for a command to end, and for one thing to be as it should be after all is healed
SERVE = "echo $(hostname)-$V > /www/index.html; exec httpd -f -p 80 -h /www"
HEALTH = ("--health-cmd", "wget -q -O /dev/null http://127.0.0.1/", "--health-interval", "1s", "--health-retries", "3")
UPDATES = ("--update-failure-action", "continue", "--update-monitor", "1s")
PORTS = {"web": 8080, "api": 8081, "wide": 8082}
FLAGS = {
    "web": (*HEALTH, "--stop-grace-period", "1s", "--restart-delay", "0s"),
    "api": ("--update-order", "start-first", "--restart-condition", "on-failure", *AT_ONCE),
    "wide": ("--update-parallelism", "2", "--restart-delay", "1s", *AT_ONCE),
}
BAD = re.compile(r"Traceback|never retrieved|never awaited|a defect|[Ii]nternal error(?! from Core)|AssertionError")
ENDED = ("complete", "failed", "shutdown", "rejected", "orphaned")
Spec = tuple[int, str, str]  # replicas, the variable V, image
History = tuple[Spec | None, Spec | None]  # what is, and what a rollback goes back to
Step = Callable[[History], set[History]]  # what a command may make of it


class Services:
    """`possible`: what each service may be by the commands so far; `wrong`: what should never have been said."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster, self.rng, self.began = cluster, rng, time.monotonic()
        self.address = {host: cluster.address(host) for host in HOSTS}
        self.possible: dict[str, set[History]] = {name: {(None, None)} for name in FLAGS}
        self.locks = {name: Lock() for name in FLAGS}
        self.version = 0
        self.wrong: list[str] = []

    def say(self, *words: object) -> None:
        print(f"{time.monotonic() - self.began:7.1f}", *words, flush=True)

    # ------------------------------------------------------------ commands

    def command(self, host: str, *words: str) -> bool:
        done = self.cluster.run(*words, host=host, timeout=BOUND)
        self.say(host, *words[:9], "->", done.returncode, done.stderr.strip())
        if BAD.search(done.stderr) or (done.returncode and not done.stderr.startswith("swarmctl")):
            self.wrong.append(f"swarmctl {' '.join(words)} on {host} said: {done.stderr}")
        return done.returncode == 0

    def change(self, name: str, host: str, words: tuple[str, ...], step: Step) -> None:
        with self.locks[name]:
            done = self.command(host, "service", *words)
            after = {history for was in self.possible[name] for history in step(was)}
            self.possible[name] = after if done else self.possible[name] | after

    def create(self, name: str, host: str, replicas: int) -> None:
        self.version += 1
        spec = (replicas, str(self.version), "demo")
        words = ("create", "--detach", "--name", name, "--replicas", str(replicas), "--env", f"V={spec[1]}")
        flags = ("--publish", f"{PORTS[name]}:80", "--network", "back", *UPDATES, *FLAGS[name])
        line = (*words, *flags, "demo", "sh", "-c", SERVE)
        self.change(name, host, line, lambda was: {was if was[0] else (spec, None)})

    def scale(self, name: str, host: str) -> None:
        count = self.rng.randint(0, 6)
        # During an update the previous spec stays that of the update.
        self.change(name, host, ("scale", "--detach", f"{name}={count}"),
                    lambda was: {((count, *was[0][1:]), before) for before in was} if was[0] else {was})  # fmt: skip

    def update(self, name: str, host: str) -> None:
        self.version += 1
        version = str(self.version)
        kind = self.rng.choice(("env", "env", "image", "force"))
        flags = {"env": ("--env-add", f"V={version}"), "image": ("--image", "demo2"), "force": ("--force",)}[kind]

        def step(was: History) -> set[History]:
            if was[0] is None or (kind == "image" and was[0][2] == "demo2"):
                return {was}
            count, value, image = was[0]
            return {((count, version if kind == "env" else value, "demo2" if kind == "image" else image), was[0])}

        self.change(name, host, ("update", "--detach", *flags, name), step)

    def rollback(self, name: str, host: str) -> None:
        self.change(name, host, ("rollback", "--detach", name), lambda was: {(was[1], was[0]) if was[1] else was})

    def again(self, name: str, host: str) -> None:
        """Removed, and another of that name."""
        self.change(name, host, ("rm", name), lambda was: {(None, None)})
        self.create(name, host, self.rng.randint(1, 4))

    # ------------------------------------------------------------ from outside

    def check(self) -> None:
        """Raise for what is not as it was acknowledged, or not as it should be within the bound."""
        for name in FLAGS:
            specs = {host: self.spec(name, host) for host in HOSTS}
            actual = specs["host1"]
            assert len(set(specs.values())) == 1, f"hosts differ about {name}: {specs}"
            fits = {history for history in self.possible[name] if history[0] == actual}
            assert fits, f"{name} is {actual}, and should be one of {self.possible[name]}"
            self.possible[name] = fits
            if actual is None:
                self.create(name, "host1", 2)
            self.serves(name, self.spec(name, "host1") or (0, "", ""))

    def spec(self, name: str, host: str) -> Spec | None:
        with closing(self.cluster.api(host)) as client:
            found = client.services(filters={"name": name})
        if not found:
            return None
        container = found[0]["Spec"]["TaskTemplate"]["ContainerSpec"]
        (version,) = (line[2:] for line in container["Env"] if line.startswith("V="))
        return found[0]["Spec"]["Mode"]["Replicated"]["Replicas"], version, container["Image"].split(":")[0]

    def serves(self, name: str, spec: Spec) -> None:
        wait_for(lambda: self.settled(name, spec), f"{name}, {spec}, as it should be", BOUND)
        tasks = self.cluster.running(name)
        pages = {f"{task['Status']['ContainerStatus']['ContainerID'][:12]}-{spec[1]}" for task in tasks}
        for host in HOSTS if pages else ():
            urls = [f"http://{self.address[host]}:{PORTS[name]}/"] * 8 * len(pages)
            curl = ["curl", "-sS", "--max-time", "3", "-H", "Connection: close", *urls]
            wait_for(lambda c=curl: self.answer(c, pages), f"answers of all of {name} through {host}", BOUND)
        others = [task for other in PORTS if other != name for task in self.cluster.running(other)]
        ask = f"for i in $(seq {8 * len(pages)}); do wget -q -O - http://{name}/; done"
        hosts = {node["ID"]: host for host, node in self.cluster.nodes().items()}
        for host, task in {hosts[task["NodeID"]]: task for task in others if pages}.items():
            inside = ["exec", task["Status"]["ContainerStatus"]["ContainerID"], "sh", "-c", ask]
            command = [SWARMCTL, "-H", self.cluster.socket(host), *inside]
            wait_for(lambda c=command: self.answer(c, pages), f"answers of all of {name} by name on {host}", BOUND)

    def answer(self, command: list[str], pages: set[str]) -> bool:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
        assert set(done.stdout.split()) == pages and not done.stderr, (Counter(done.stdout.split()), done.stderr)
        return True

    def settled(self, name: str, spec: Spec) -> bool:
        """As many tasks as wanted, of the spec, no other that goes on, and just their containers."""
        tasks = self.cluster.tasks(name)
        live = [task for task in tasks if task["Status"]["State"] not in ENDED]
        seen = [(t["Slot"], t["DesiredState"], t["Status"]["State"], t["Status"].get("Err", "")) for t in live]
        assert len({task["Slot"] for task in live}) == len(live) == spec[0], seen
        hosts = {node["ID"]: host for host, node in self.cluster.nodes().items()}
        for task in live:
            container = task["Spec"]["ContainerSpec"]
            assert task["Status"]["State"] == task["DesiredState"] == "running", seen
            assert f"V={spec[1]}" in container["Env"] and container["Image"].split(":")[0] == spec[2], container
        wanted = {(hosts[task["NodeID"]], task["Status"]["ContainerStatus"]["ContainerID"]) for task in live}
        label, actual = f"com.docker.swarm.service.name={name}", set()
        for host in HOSTS:
            with closing(self.cluster.api(host)) as client:
                actual |= {(host, found["Id"]) for found in client.containers(filters={"label": label})}
        assert actual == wanted, f"containers {actual - wanted} are too many, {wanted - actual} are missing"
        return True
