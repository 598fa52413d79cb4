"""What can't be done is said in one sentence, exits non-zero and changes nothing; what can't run says why."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.cluster.conftest import AT_ONCE, HOSTS, SERVE, Cluster, wait_for

SLEEP = ("demo", "sleep", "1000")


@pytest.fixture
def small_disk(image: Path) -> Iterator[Cluster]:
    """A host outside any cluster, whose data root is on a disk of 12 MB."""
    host = Cluster("small-disk")
    host.devcluster("down")
    try:
        host.devcluster("up", "--hosts", "1", "--managers", "0", "--bare")
        host.on("host1", "mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(host.data("host1")))
        host.devcluster("start", "host1")
        host.swarmctl("image", "import", str(image), "demo")
        yield host
    finally:
        host.devcluster("down")


def shown(cluster: Cluster, service: str) -> str:
    return cluster.swarmctl("service", "ps", "--no-trunc", service)


def test_commands_that_are_refused_change_nothing(cluster: Cluster) -> None:
    cluster.swarmctl("service", "create", "--name", "web", "--publish", "8086:80", *AT_ONCE, "demo", *SERVE)
    before = cluster.swarmctl("service", "inspect", "web"), cluster.swarmctl("network", "ls")
    for words, says in (
        (("service", "create", "--name", "web", *SLEEP), "service web exists already"),
        (("service", "create", "--publish", "8086:80", *SLEEP), "port 8086/tcp is already published by service web"),
        (("service", "create", "--network", "nope", *SLEEP), "no such network: nope"),
        (("service", "create", "--frob", *SLEEP), "unknown flag: --frob"),
        (("service", "create", "--publish", "99999:80", *SLEEP), "'99999' is no port.*1 to 65535"),
        (("service", "create", "--replicas", "-1", *SLEEP), "'-1' is not a whole number"),
        (("service", "create", "--constraint", "node.nonsense==1", *SLEEP), "node.nonsense"),
        (("service", "create", "--constraint", "disk", *SLEEP), "disk"),
        (("service", "scale", "nope=3"), "no such service: nope"),
        (("service", "update", "--replicas", "2", "nope"), "no such service: nope"),
        (("service", "rm", "nope"), "no such service: nope"),
        (("service", "ps", "nope"), "no such service: nope"),
        (("service", "logs", "nope"), "no such service or task: nope"),
        (("node", "inspect", "nope"), "no such node: nope"),
        (("node", "update", "--availability", "drain", "nope"), "no such node: nope"),
        (("node", "promote", "nope"), "no such node: nope"),
        (("network", "rm", "nope"), "no such network: nope"),
        (("frob",), "frob"),
    ):
        cluster.refused(*words, says=says)
    nobody = cluster.run("-H", f"unix://{cluster.data('host1')}/none.sock", "service", "ls")
    assert (nobody.returncode, nobody.stderr.count("\n")) == (1, 1)
    assert "no swarmd answers at" in nobody.stderr
    assert (cluster.swarmctl("service", "inspect", "web"), cluster.swarmctl("network", "ls")) == before
    assert cluster.swarmctl("service", "ls", "--format", "{{.Name}}") == "web"


def test_tasks_that_fit_nowhere_say_why_in_counts(cluster: Cluster) -> None:
    create = ("service", "create", "--detach", *AT_ONCE)
    placements = (
        ("ssd", ("--constraint", "node.labels.disk==ssd"), "3 nodes: constraint node.labels.disk==ssd not met"),
        ("big", ("--reserve-memory", "900g"), "3 nodes: insufficient memory"),
        ("wide", ("--reserve-cpu", "900"), "3 nodes: insufficient cpu"),
        (
            "both",
            ("--constraint", "node.hostname==host2", "--reserve-memory", "900g"),
            "2 nodes: constraint node.hostname==host2 not met; 1 node: insufficient memory",
        ),
        (
            "ports",
            ("--replicas", "4", "--publish", "mode=host,target=80,published=9091"),
            "3 nodes: host port 9091/tcp in use",
        ),
    )
    for name, flags, _ in placements:
        cluster.swarmctl(*create, "--name", name, *flags, *SLEEP)
    for name, _, reason in placements:
        wait_for(lambda name=name, reason=reason: f"no suitable node ({reason})" in shown(cluster, name), reason)
    assert len(cluster.converged("ports", 3)) == 3, "each node's port is used once"
    assert {len(cluster.tasks(name)) for name in ("ssd", "big", "wide", "both")} == {1}, "they wait, nothing is retried"
    cluster.swarmctl("node", "update", "--label-add", "disk=ssd", "host3")
    cluster.converged("ssd", 1)
    cluster.swarmctl("node", "update", "--label-rm", "disk", "host3")


def test_a_missing_image_is_told_and_tried_ever_more_rarely(cluster: Cluster) -> None:
    cluster.swarmctl("service", "create", "--name", "ghost", "--detach", "--restart-delay", "1s", "nosuchimage")
    said = "image nosuchimage:latest is on no node of the cluster, and"
    wait_for(lambda: said in shown(cluster, "ghost"), "reason in service ps")
    wait_for(lambda: len(cluster.tasks("ghost")) >= 3, "second replacement")
    first, _, third, *_ = sorted(datetime.fromisoformat(task["CreatedAt"]) for task in cluster.tasks("ghost"))
    assert (third - first).total_seconds() >= 1
    assert len(cluster.tasks("ghost")) <= 4, "no hot loop"


def test_an_update_to_a_missing_image_stops_and_the_way_back_works(cluster: Cluster) -> None:
    cluster.swarmctl(
        "service", "create", "--name", "web", "--replicas", "3", "--publish", "8087:80", *AT_ONCE, "demo", *SERVE
    )
    update = cluster.run("service", "update", "--image", "nosuchimage", "web")
    assert update.returncode != 0
    assert "paused" in update.stderr
    assert "image nosuchimage:latest is on no node of the cluster, and" in shown(cluster, "web")
    assert len(cluster.running("web")) == 2, "the others are left alone"
    assert cluster.get("host1", 8087)
    cluster.swarmctl("service", "update", "--image", "demo", "web")
    cluster.converged("web", 3)


def test_a_full_disk_refuses_images_and_containers_and_is_named(small_disk: Cluster, image: Path) -> None:
    host, data = small_disk, small_disk.data("host1")
    host.on("host1", "sh", "-c", f"dd if=/dev/zero of={data}/filler bs=4k 2>/dev/null; :")
    before = host.swarmctl("image", "ls", "-q")
    host.refused("run", "-d", *SLEEP, says=f"the disk of {data} is full: free space there")
    says = f"the disk of {data}/images is full: free space on it, or remove images with `image prune`"
    host.refused("image", "import", str(image), "two", says=says)
    assert host.swarmctl("ps", "-a", "-q") == ""
    assert host.swarmctl("image", "ls", "-q") == before
    assert host.on("host1", "sh", "-c", f"ls -A {data}/containers {data}/images/tmp | grep -v :; :").split() == []
    host.on("host1", "rm", f"{data}/filler")
    assert host.swarmctl("run", "-d", *SLEEP)


def test_a_full_disk_under_one_managers_store_is_named_and_the_cluster_goes_on(cluster: Cluster) -> None:
    store = cluster.data("host3") / "cluster" / "manager" / "etcd"
    log = store.parents[3] / "log" / "swarmd.log"
    copy = "d=$(mktemp -d); cp -a --sparse=always $S/. $d; mount -t tmpfs -o size=200m tmpfs $S"
    fill = "cp -a --sparse=always $d/. $S; rm -r $d; dd if=/dev/zero of=$S/filler bs=64k 2>/dev/null; :"
    answers(cluster, "host3")  # so it has a vote, and no more to join
    cluster.kill9("host3", "swarmd --data-root")
    wait_for(lambda: not etcds(cluster), "end of its etcd")
    cluster.on("host3", "sh", "-c", f"S={store}; {copy}; {fill}")
    cluster.devcluster("start", "host3")
    try:
        wait_for(lambda: f"the disk of {store} is full; free space there" in log.read_text(), "sentence in the log")
        for host in HOSTS:
            answers(cluster, host)
        wait_for(lambda: f"Error: the disk of {store} is full" in cluster.swarmctl("info", host="host3"), "it in info")
        assert "Error:" not in cluster.swarmctl("info", host="host1")
        cluster.swarmctl("service", "create", "--name", "web", "--replicas", "3", *AT_ONCE, *SLEEP)
        cluster.converged("web", 3)
    finally:
        cluster.on("host3", "rm", "-f", f"{store}/filler")
    wait_for(lambda: (found := etcds(cluster)) and serves(cluster) and found == etcds(cluster), "its etcd back", 20)


def answers(cluster: Cluster, host: str) -> None:
    wait_for(lambda: cluster.run("node", "ls", host=host).returncode == 0, f"answer on {host}")


def etcds(cluster: Cluster) -> list[int]:
    return [pid for pid, command in cluster.processes("host3").items() if command.startswith("etcd --name")]


def serves(cluster: Cluster) -> bool:
    files = cluster.data("host3") / "cluster"
    pair = f"--cert {files}/etcd.crt --key {files}/etcd.key"
    url = f"https://{cluster.address('host3')}:2379/health"
    return '"true"' in cluster.on("host3", "sh", "-c", f"curl -sk -m 2 {pair} {url}; :")
