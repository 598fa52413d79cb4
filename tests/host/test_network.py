"""Two hosts as network namespaces, joined by a bridge of their own, each with a NetworkManager in its own process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmd.runtime.network.values import (
    Endpoint,
    IngressPort,
    NodeEndpoint,
    Overlay,
    OverlayState,
    ServiceRoute,
)
from tests.run import RUN

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

DRIVER = Path(__file__).with_name("network_driver.py")


def sh(*command: str, check: bool = True, timeout: float = 10) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def until(what: str, probe: Any, deadline: float = 10) -> Any:
    end = time.monotonic() + deadline
    while True:
        seen = probe()
        if seen:
            return seen
        assert time.monotonic() < end, f"{what}: last seen {seen!r}"
        time.sleep(0.02)


class Host:
    def __init__(self, name: str, address: str, root: Path) -> None:
        self.name, self.address, self.root = name, address, root
        self.netns = f"/run/netns/{name}"
        self.servers: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["nsenter", f"--net={self.netns}", sys.executable, DRIVER, self.root / "state", self.root / "run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"{self.name}: the driver ended"
        return json.loads(line)

    def tell(self, verb: str, *args: Any) -> Any:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([verb, *args]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def inside(self, netns: str, *command: str, check: bool = True) -> str:
        return sh("nsenter", f"--net={netns}", *command, check=check)

    def curl(self, url: str, netns: str = "") -> str:
        return self.inside(netns or self.netns, "curl", "-sS", "-m3", url, check=False)

    def serve(self, netns: str, folder: Path) -> None:
        command = ["nsenter", f"--net={netns}", "busybox", "httpd", "-f", "-p", "80", "-h", str(folder)]
        self.servers.append(subprocess.Popen(command))
        until("httpd listens", lambda: ":80 " in self.inside(netns, "ss", "-ltn"))

    def stop_serving(self) -> None:
        for server in self.servers:
            server.kill()
            server.wait()

    def close(self) -> None:
        self.stop_serving()
        if self.process.poll() is None:
            for container in self.tell("sandboxes"):
                self.tell("release", container)
            assert self.inside(self.netns, "mount").count(str(self.root / "run")) == 0
            self.kill()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    tag = f"swt{RUN}"
    bridge = f"{tag}br"
    sh("ip", "netns", "add", f"{tag}w")
    made: list[Host] = []
    try:
        sh("ip", "-n", f"{tag}w", "link", "add", bridge, "type", "bridge")
        sh("ip", "-n", f"{tag}w", "link", "set", bridge, "up")
        for number in (1, 2):
            name, address = f"{tag}h{number}", f"198.18.0.{number}"
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
            sh("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", f"h{number}", "netns", f"{tag}w")
            sh("ip", "-n", f"{tag}w", "link", "set", f"h{number}", "up", "master", bridge)
            sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            sh("ip", "-n", name, "link", "set", "eth0", "up")
            made.append(Host(name, address, tmp_path / name))
        yield made[0], made[1]
    finally:
        for host in made:
            host.close()
        for name in sh("ip", "netns", "list").split():
            if name.startswith(tag):
                sh("ip", "netns", "del", name)
    assert tag not in sh("ip", "link") + sh("ip", "netns", "list")


def page(root: Path, text: str) -> Path:
    folder = root / f"page-{text}"
    folder.mkdir()
    (folder / "index.html").write_text(text)
    return folder


def test_a_container_is_reached_by_name_and_by_its_published_port(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    ports = {"ports": [{"container_port": 80, "host_port": 8080}]}
    web = one.tell("attach", "a" * 64, "web", ports)
    other = one.tell("attach", "b" * 64, "other", {})
    one.serve(web["netns"], page(tmp_path, "web"))
    assert one.curl("http://127.0.0.1:8080/") == "web"
    assert one.curl("http://198.18.0.1:8080/") == "web"
    assert two.curl("http://198.18.0.1:8080/") == "web"
    assert one.curl("http://198.18.0.1:8080/", other["netns"]) == "web"
    assert one.curl("http://198.18.0.1:8080/", web["netns"]) == "web", "from the container itself"
    assert "172.17.0.2" in one.inside(other["netns"], "busybox", "nslookup", "web", other["dns"][0])
    one.inside(other["netns"], "ping", "-c1", "-W2", two.address)
    clash = one.tell("attach", "c" * 64, "late", ports)
    assert clash == {"error": "PortInUse", "message": "port 8080/tcp is already published by container web"}
    assert one.tell("sandboxes") == ["a" * 64, "b" * 64]


def test_a_killed_daemon_is_followed_by_one_that_adopts(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    web = one.tell("attach", "a" * 64, "web", {"ports": [{"container_port": 80, "host_port": 8080}]})
    one.serve(web["netns"], page(tmp_path, "web"))
    one.kill()
    assert two.curl("http://198.18.0.1:8080/") == "web", "while no daemon runs"
    one.start()
    assert two.curl("http://198.18.0.1:8080/") == "web"
    assert one.tell("sandboxes") == ["a" * 64]
    assert "172.17.0.3" in one.inside(one.tell("attach", "b" * 64, "b", {})["netns"], "ip", "-br", "addr")
    one.stop_serving()
    for container in ("a" * 64, "b" * 64, "a" * 64):
        one.tell("release", container)
    assert one.curl("http://127.0.0.1:8080/") == ""
    until("interfaces are gone", lambda: not veths(one))


def veths(host: Host) -> list[str]:
    names = [line.split("@")[0] for line in host.inside(host.netns, "ip", "-br", "link").splitlines()]
    return [name[7:] for name in names if name.startswith("sd") and name[7:8] == "v"]


def test_bridges_are_isolated_from_each_other(hosts: tuple[Host, Host]) -> None:
    one, _ = hosts
    one.tell("create", "mine")
    near = one.tell("attach", "a" * 64, "near", {"networks": [{"network": "mine"}]})
    one.tell("attach", "b" * 64, "far", {})
    one.inside(near["netns"], "ping", "-c1", "-W2", "198.18.0.2")
    assert "1 received" not in one.inside(near["netns"], "ping", "-c1", "-W1", "172.17.0.2", check=False)
    assert one.tell("remove", "mine")["error"] == "Conflict"


def cluster(node: int) -> Any:
    """Two tasks of `web`, one on each host, and a client on the first; .11 and .12 are the hosts' own addresses."""
    vtep = {1: "198.18.0.1", 2: "198.18.0.2"}
    net = "net1"
    return msgspec.to_builtins(
        OverlayState(
            overlays=(
                Overlay(net, "app", "10.7.0.0/24", 4097, f"10.7.0.{10 + node}", vtep[node], port=4789, ingress=True),
            ),
            endpoints=(
                Endpoint(net, "10.7.0.21", vtep[1], "web", ("web.1",), True),
                Endpoint(net, "10.7.0.22", vtep[2], "web", ("web.2",), True),
                Endpoint(net, "10.7.0.23", vtep[1], "client", ("client.1",), True),
            ),
            node_endpoints=tuple(NodeEndpoint(net, f"10.7.0.{10 + n}", vtep[n]) for n in vtep),
            services=(
                ServiceRoute("web", ("web",), {net: "10.7.0.2"}, (IngressPort("tcp", 9090, 80),)),
                ServiceRoute("idle", ("idle",), {net: "10.7.0.3"}, (IngressPort("tcp", 9091, 80),)),
            ),
        )
    )


def join(host: Host, container: str, address: str, *first: str) -> Any:
    networks = [*({"network": name} for name in first), {"network": "app", "address": f"{address}/24"}]
    return host.tell("attach", container * 64, container, {"networks": networks})


def test_an_overlay_carries_names_service_addresses_and_ingress_ports(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = hosts
    for node, host in enumerate(hosts, 1):
        assert host.tell("apply", cluster(node)) is None
    first, second, client = (
        join(one, "a", "10.7.0.21"),
        join(two, "b", "10.7.0.22", "bridge"),
        join(one, "c", "10.7.0.23"),
    )
    one.serve(first["netns"], page(tmp_path, "first"))
    two.serve(second["netns"], page(tmp_path, "second"))
    one.inside(client["netns"], "ping", "-c1", "-W2", "10.7.0.22")
    assert "10.7.0.2\n" in one.inside(client["netns"], "busybox", "nslookup", "web", client["dns"][0])
    tasks = one.inside(client["netns"], "busybox", "nslookup", "tasks.web", client["dns"][0])
    assert "10.7.0.21" in tasks and "10.7.0.22" in tasks
    both = {"first", "second"}
    assert {one.curl("http://10.7.0.2/", client["netns"]) for _ in range(20)} == both, "by service address"
    for host in hosts:
        for asked in ("127.0.0.1", "198.18.0.1", "198.18.0.2"):
            assert {host.curl(f"http://{asked}:9090/") for _ in range(4)} == both, f"{asked} from {host.name}"
    assert one.inside(client["netns"], "curl", "-m3", "-sw%{http_code}", "http://198.18.0.1:9090/")
    for url, netns in (("http://198.18.0.1:9091/", two.netns), ("http://10.7.0.3/", client["netns"])):
        said = two.inside(netns, "sh", "-c", f"curl -sm20 {url}; echo $?")
        assert said == "7\n", "a service that nobody serves refuses at once"
    one.kill()
    one.start()
    assert {one.curl("http://10.7.0.2/", client["netns"]) for _ in range(20)} == both, "after adoption"
    assert {two.curl("http://198.18.0.1:9090/") for _ in range(4)} == both
    for container in "ac":
        one.tell("release", container * 64)
    one.tell("apply", {})
    assert "10.7.0.11" not in one.inside(one.netns, "ip", "addr")
    assert "vxlan" not in one.inside(one.netns, "ip", "-d", "link")
