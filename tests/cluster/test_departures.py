"""Managers that go for ever: by force, dead and removed, or most of them at once; nothing of them stays behind."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import AT_ONCE, HOSTS, SWARMCTL, Cluster, make, wait_for

pytestmark = pytest.mark.timeout(120)  # s, the making of a cluster included
FORCED = "--force-new-cluster"
Line = tuple[str, bool]  # of a member: the node's id, or '' before it has started; whether it is a learner


@pytest.fixture
def managers(image: Path) -> Iterator[Cluster]:
    """Three managers, of which a test may lose some for ever."""
    name = "departures"
    try:
        yield make(name, 3, image)
    finally:
        Cluster(name).devcluster("down")


def members(cluster: Cluster, by: str) -> set[Line]:
    """The store's members, as the one on that host knows them."""
    files = cluster.data(by) / "cluster"
    command = ["etcdctl", f"--cacert={files}/etcd-root.crt", f"--cert={files}/etcd.crt", f"--key={files}/etcd.key"]
    command += [f"--endpoints=https://{cluster.address(by)}:2379", "member"]
    environment = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*command, "list"], env=environment, capture_output=True, text=True, check=True)
    fields = [line.split(", ") for line in done.stdout.splitlines()]
    return {(name, learner == "true") for _, _, name, _, _, learner in fields}


def members_are(cluster: Cluster, *hosts: str, seconds: float = 30) -> None:
    """The store has just the members of the managers on these hosts."""
    ids = {host: node["ID"] for host, node in cluster.nodes(hosts[0]).items()}
    wanted = {(ids[host], False) for host in hosts}
    seen: list[set[Line]] = []

    def probe() -> bool:
        seen[:] = [members(cluster, hosts[0])]
        return seen == [wanted]

    try:
        wait_for(probe, f"members {wanted}", seconds)
    except AssertionError as failure:
        raise AssertionError(f"{failure}; members: {seen}") from None


def join(cluster: Cluster, host: str, by: str) -> None:
    token = cluster.swarmctl("swarm", "join-token", "-q", "manager", host=by)
    cluster.swarmctl("swarm", "join", "--advertise-addr", cluster.address(host), "--token", token,
                     f"{cluster.address(by)}:2377", host=host)  # fmt: skip


def test_managers_that_leave_by_force_or_die_leave_nothing_behind(managers: Cluster) -> None:
    cluster = managers
    leader = cluster.leader()
    by, other = (host for host in HOSTS if host != leader)
    gone = cluster.nodes()[leader]["ID"]

    left = cluster.run("swarm", "leave", "--force", host=leader)
    assert (left.returncode, left.stderr) == (0, "")
    members_are(cluster, by, other)
    wait_for(lambda: cluster.run("node", "rm", gone, host=by).returncode == 0, "removal of the node")
    assert set(cluster.nodes(by)) == {by, other}

    join(cluster, leader, by)
    wait_for(lambda: len(cluster.nodes(by)) == 3, "node that is back")
    members_are(cluster, *HOSTS)
    cluster.devcluster("kill", leader)
    cluster.swarmctl("node", "demote", leader, host=by)
    wait_for(lambda: cluster.run("node", "rm", leader, host=by).returncode == 0, "removal of the dead node")
    members_are(cluster, by, other)

    cluster.devcluster("kill", other)
    left = cluster.run("swarm", "leave", "--force", host=by)
    assert left.returncode == 0
    assert "this node's member of the cluster's store stays behind" in left.stderr


def kill_half_way(cluster: Cluster) -> None:
    """swarmd on host1, while it makes its member of the store the only one."""
    command = [SWARMCTL, "-H", cluster.socket("host1"), "swarm", "init", "--force-new-cluster"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_for(
            lambda: any(c.startswith("etcd ") and FORCED in c for c in cluster.processes("host1").values()), FORCED
        )
        cluster.kill9("host1", "swarmd --data-root")
    cluster.devcluster("start", "host1")


def test_a_manager_alone_goes_on_after_the_quorum_is_lost_for_ever(managers: Cluster) -> None:
    cluster = managers
    cluster.refused("swarm", "init", "--force-new-cluster", says="have their quorum")
    cluster.refused("swarm", "init", "--force-new-cluster", "--availability", "drain", says="--availability does not")
    cluster.swarmctl("service", "create", "--name", "web", "--replicas", "3", *AT_ONCE, "demo", "sleep", "1000")
    cluster.converged("web", 3)
    cluster.swarmctl("network", "create", "-d", "overlay", "kept")
    token = cluster.swarmctl("swarm", "join-token", "-q", "manager")
    own = {task["ID"] for task in cluster.running("web") if task["NodeID"] == cluster.nodes()["host1"]["ID"]}

    for host in ("host2", "host3"):
        cluster.devcluster("kill", host)
    kill_half_way(cluster)
    done = cluster.run("swarm", "init", "--force-new-cluster")
    assert done.returncode == 0 or "have their quorum" in done.stderr, done.stderr
    members_are(cluster, "host1")
    for host in ("host2", "host3"):
        wait_for(lambda h=host: "ManagerStatus" not in (n := cluster.nodes()[h]) and n["Spec"]["Role"] == "worker"
                 and n["Status"]["State"] == "down", f"{host} a worker that is down")  # fmt: skip
    cluster.converged("web", 3)
    assert own <= {task["ID"] for task in cluster.running("web")}, "running tasks go on"
    cluster.swarmctl("service", "scale", "--detach", "web=4")
    cluster.converged("web", 4)
    assert "kept" in cluster.swarmctl("network", "ls", "--format", "{{.Name}}")
    assert cluster.swarmctl("swarm", "join-token", "-q", "manager") == token

    cluster.devcluster("start", "host2")
    wait_for(lambda: "not a swarm manager" in cluster.run("node", "ls", host="host2").stderr, "host2 a worker", 40)
    cluster.swarmctl("node", "promote", "host2")
    members_are(cluster, "host1", "host2")
    cluster.refused("swarm", "init", "--force-new-cluster", says="have their quorum")
