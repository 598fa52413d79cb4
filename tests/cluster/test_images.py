"""Images of a cluster without a registry: one node has them, all run them; worker host2 and host3, manager host1."""

import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.cluster.conftest import AT_ONCE, DEVCLUSTER, HOSTS, Cluster, wait_for
from tests.registry.distribution import PASSWORD, USER, configured, password_file

SLEEP = (*AT_ONCE, "--replicas", "3", "--replicas-max-per-node", "1")


@pytest.fixture(name="cluster")
def _cluster(one_manager: Cluster) -> Iterator[Cluster]:
    yield one_manager
    one_manager.make_whole()
    if names := one_manager.swarmctl("service", "ls", "--format", "{{.Name}}").split():
        one_manager.swarmctl("service", "rm", *names)
        wait_for(lambda: not one_manager.api().tasks(), "end of all tasks")


@pytest.fixture
def large(tmp_path: Path, image: Path) -> Path:
    """A root file system with 40 MB that can't be compressed."""
    path = tmp_path / "large.tar"
    path.write_bytes(image.read_bytes())
    with tarfile.open(path, "a") as archive:
        entry = tarfile.TarInfo("content")
        entry.size = 40_000_000
        archive.addfile(entry, BytesIO(os.urandom(entry.size)))
    return path


def load(cluster: Cluster, image: Path, name: str, host: str = "host1") -> str:
    different = ("--message", os.urandom(4).hex())
    return cluster.swarmctl("image", "import", *different, str(image), name, host=host)


def holders(cluster: Cluster, name: str) -> set[str]:
    listed = cluster.swarmctl("image", "ls", "--cluster", "--format", "{{.Nodes}}", name)
    return set(listed.split(", ")) if listed else set()


def test_an_image_of_one_node_runs_on_all_and_is_pinned_to_its_digest(cluster: Cluster, image: Path) -> None:
    id = load(cluster, image, "first:1", "host3")
    wait_for(lambda: holders(cluster, "first:1") == {"host3"}, "report of the image")
    cluster.swarmctl("service", "create", "--name", "first", *SLEEP, "first:1", "sleep", "1000")
    assert len({task["NodeID"] for task in cluster.running("first")}) == 3
    (service,) = json.loads(cluster.swarmctl("service", "inspect", "first"))
    assert service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == f"first:1@{id}"
    wait_for(lambda: holders(cluster, "first") == set(HOSTS), "all nodes as holders")


def test_a_name_that_is_not_to_be_resolved_is_left_to_the_nodes(cluster: Cluster, image: Path) -> None:
    load(cluster, image, "loose:1")
    wait_for(lambda: holders(cluster, "loose:1") == {"host1"}, "report of the image")
    cluster.swarmctl("service", "create", "--name", "loose", "--no-resolve-image", *SLEEP, "loose:1", "sleep", "1000")
    (service,) = json.loads(cluster.swarmctl("service", "inspect", "loose"))
    assert service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == "loose:1"


def test_the_newest_of_different_images_is_taken_and_that_is_said(cluster: Cluster, image: Path) -> None:
    load(cluster, image, "twice:1", "host2")
    newest = load(cluster, image, "twice:1", "host3")
    wait_for(lambda: "host3" in cluster.swarmctl("image", "ls", "--cluster", "twice:1"), "report of both")
    done = cluster.run("service", "create", "--name", "twice", *SLEEP, "twice:1", "sleep", "1000")
    assert done.returncode == 0, done.stderr
    assert f"nodes hold different images as twice:1: the newest is taken, {newest} of host3" in done.stderr
    assert len(cluster.running("twice")) == 3


def test_a_roll_out_goes_on_when_the_node_that_serves_it_dies(cluster: Cluster, large: Path) -> None:
    load(cluster, large, "lasting:1")
    cluster.swarmctl("image", "pull", "-q", "--nodes", "host2", "lasting:1")
    shape = ("root", "tbf", "rate", "40mbit", "burst", "64kb", "latency", "50ms")
    cluster.on("host2", "tc", "qdisc", "replace", "dev", "eth0", *shape)
    closed = (
        "table inet closed { chain input { type filter hook input priority 0; ip saddr %s tcp dport 2381 drop; }; }"
    )
    cluster.on("host1", "nft", closed % cluster.address("host3"))
    pulling = subprocess.Popen(
        [DEVCLUSTER, "--name", cluster.name, "exec", "host1", "--", "swarmctl", "image", "pull", "--nodes", "host3",
         "lasting:1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        temporary = cluster.data("host3") / "images" / "tmp"
        wait_for(
            lambda: any(1_000_000 < file.stat().st_size < 30_000_000 for file in temporary.iterdir() if file.is_file()),
            "the beginning of the layer",
        )
        cluster.devcluster("kill", "host2")
        cluster.on("host1", "nft", "delete table inet closed")
        out, _ = pulling.communicate(timeout=60)
    finally:
        pulling.kill()
        cluster.devcluster("exec", "host1", "--", "sh", "-c", "nft delete table inet closed 2>/dev/null; true")
    assert pulling.returncode == 0, out
    assert "host3" in holders(cluster, "lasting:1")


def test_an_image_that_is_gone_everywhere_is_told(cluster: Cluster, image: Path) -> None:
    id = load(cluster, image, "localhost:1/gone:1")
    cluster.swarmctl("service", "create", "--name", "gone", "--replicas", "1", *AT_ONCE, "--constraint",
                     "node.hostname==host1", "localhost:1/gone:1", "sleep", "1000")  # fmt: skip
    cluster.swarmctl("service", "scale", "gone=0")
    wait_for(lambda: not cluster.running("gone"), "end of the task")
    wait_for(lambda: not cluster.swarmctl("container", "ls", "-q", "--filter", "status=running"), "end of the program")
    for container in cluster.swarmctl("container", "ls", "-aq").split():
        cluster.swarmctl("container", "rm", "-f", container)
    cluster.swarmctl("image", "rm", "--force", id)
    wait_for(lambda: not holders(cluster, "localhost:1/gone"), "report of the removal")
    cluster.swarmctl("service", "scale", "-d", "gone=1")

    def told() -> str:
        listed = cluster.swarmctl("service", "ps", "--no-trunc", "gone")
        return listed if "is on no node of the cluster, and" in listed else ""

    shown = wait_for(told, "reason in service ps", 5)
    assert re.search(rf"image localhost:1/gone:1@{id} is on no node of the cluster, and .*localhost:1", shown), shown
    load(cluster, image, "unrelated:1")
    assert cluster.run("image", "inspect", id).returncode != 0


@pytest.fixture
def private(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """A registry on host1's loopback that serves nobody without a password."""
    path = configured(tmp_path / "registry", 5000, auth=password_file(tmp_path / "registry"))
    pid = cluster.on("host1", "sh", "-c", f"docker-registry serve {path} >/dev/null 2>&1 & echo $!").strip()
    listening = "exec 3<>/dev/tcp/127.0.0.1/5000 && echo yes || true"
    wait_for(lambda: cluster.on("host1", "bash", "-c", listening), "the registry")
    yield "127.0.0.1:5000"
    cluster.on("host1", "kill", "-9", pid)


def test_nodes_pull_from_a_private_registry_with_the_login_that_they_are_given(
    cluster: Cluster, image: Path, private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    name = f"{private}/own:1"
    id = load(cluster, image, name)
    create = ("service", "create", "-d", "--name", "own", "--constraint", "node.hostname==host1", *AT_ONCE)
    update = ("service", "update", "--with-registry-auth", "own")
    cluster.refused(*create, "--with-registry-auth", name, says=f"you have no login at {private} to give to nodes")
    cluster.swarmctl("login", "--username", USER, "--password", PASSWORD, private)
    cluster.swarmctl("push", name)
    cluster.swarmctl("image", "rm", "--force", id)
    wait_for(lambda: not holders(cluster, name), "report of the removal")
    cluster.swarmctl(*create, name, "sleep", "1000")

    def told() -> bool:
        return "its registry wants a login: give nodes yours with" in cluster.swarmctl(
            "service", "ps", "--no-trunc", "own"
        )

    wait_for(told, "reason in service ps")
    assert cluster.swarmctl(*update).endswith("converged")
    shown = cluster.swarmctl("service", "inspect", "own") + json.dumps(cluster.tasks("own"))
    assert "registryauth" not in shown.lower() and len(cluster.running("own")) == 1


def test_images_are_brought_to_nodes_before_they_are_needed(cluster: Cluster, image: Path) -> None:
    id = load(cluster, image, "early:1")
    cluster.swarmctl("image", "push", "--cluster", "--copies", "2", "early:1")
    wait_for(lambda: len(holders(cluster, "early:1")) == 2, "two holders")
    cluster.swarmctl("image", "pull", "--nodes", "all", "early:1")
    wait_for(lambda: holders(cluster, "early:1") == set(HOSTS), "three holders")
    for host in HOSTS:
        assert json.loads(cluster.swarmctl("image", "inspect", "early:1", host=host))[0]["Id"] == id
    cluster.refused("image", "pull", "--nodes", "host3,nobody", "early:1", says="node nobody not found")
    cluster.refused("image", "pull", "--nodes", "host2", "localhost:1/none", says="registry localhost:1")
    cluster.refused("image", "push", "--cluster", "none:1", says="No such image: none:1")
    cluster.refused("image", "ls", "--cluster", host="host2", says="not a swarm manager")


def test_other_tools_read_the_images_of_all_nodes(cluster: Cluster, image: Path, tmp_path: Path) -> None:
    id = load(cluster, image, "shown:1", "host3")
    wait_for(lambda: holders(cluster, "shown:1") == {"host3"}, "report of the image")
    for host in ("host1", "host2"):  # neither has it
        socket = cluster.socket(host).removeprefix("unix://")
        proxy = subprocess.Popen(
            ["socat", "TCP-LISTEN:0,bind=127.0.0.1,fork", f"UNIX-CONNECT:{socket}"], stderr=subprocess.DEVNULL
        )
        try:
            port = wait_for(lambda pid=proxy.pid: listening(pid), "port of the proxy")
            copy = tmp_path / host
            source = f"docker://127.0.0.1:{port}/library/shown:1"
            done = subprocess.run(
                ["skopeo", "copy", "--src-tls-verify=false", "--preserve-digests", source, f"dir:{copy}"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            manifest = (copy / "manifest.json").read_bytes()
            digest = subprocess.run(["sha256sum"], input=manifest, capture_output=True, check=True).stdout.split()[0]
            assert f"sha256:{digest.decode()}" == id
            listed = subprocess.run(
                ["skopeo", "list-tags", "--tls-verify=false", source.removesuffix(":1")],
                capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
            assert json.loads(listed.stdout)["Tags"] == ["1"]
            missing = subprocess.run(
                ["skopeo", "inspect", "--tls-verify=false", f"{source.removesuffix('1')}2"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert "no node has image docker.io/library/shown:2" in missing.stderr
        finally:
            proxy.kill()
            proxy.wait()


def listening(pid: int) -> int:
    listed = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    return next((int(line.split()[3].rsplit(":", 1)[1]) for line in listed.splitlines() if f"pid={pid}," in line), 0)
