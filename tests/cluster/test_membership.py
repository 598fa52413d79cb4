"""Who is in a cluster, in which role, and who is kept out; each test leaves host1 the one manager of three nodes."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import AT_ONCE, HOSTS, SERVE, Cluster, wait_for

ASK = """
import sys, grpc
from pathlib import Path
from swarmd.proto import control_pb2, control_pb2_grpc
address, name, root, *pair = sys.argv[1:]
pair = [Path(file).read_bytes() for file in pair]
credentials = grpc.ssl_channel_credentials(Path(root).read_bytes(), *pair)
with grpc.secure_channel(address, credentials, (("grpc.ssl_target_name_override", name),)) as channel:
    try:
        answer = control_pb2_grpc.ControlStub(channel).List(
            control_pb2.ListRequest(kind=control_pb2.KIND_NODE), timeout=5
        )
        print("answered", sum(len(batch.objects) for batch in answer))
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"""


@pytest.fixture(scope="module")
def other_cluster() -> Iterator[Cluster]:
    """A cluster of one host, which the first one has nothing to do with."""
    other = Cluster("other-m")
    other.devcluster("down")
    try:
        other.devcluster("up", "--hosts", "1", "--managers", "1")
        yield other
    finally:
        other.devcluster("down")


def voters(cluster: Cluster, by: str) -> int:
    """Members of the store that vote."""
    files = cluster.data(by) / "cluster"
    command = ["etcdctl", f"--cacert={files}/etcd-root.crt", f"--cert={files}/etcd.crt", f"--key={files}/etcd.key"]
    command += [f"--endpoints=https://{cluster.address(by)}:2379", "member", "list"]
    done = subprocess.run(
        command, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    return sum(line.endswith("false") for line in done.stdout.splitlines())


def promote(cluster: Cluster, host: str, by: str) -> None:
    before = voters(cluster, by)
    cluster.swarmctl("node", "promote", host, host=by)
    wait_for(lambda: voters(cluster, by) == before + 1, f"{before + 1} voting members")
    wait_for(
        lambda: cluster.nodes(by)[host].get("ManagerStatus", {}).get("Reachability") == "reachable", f"manager {host}"
    )
    wait_for(lambda: cluster.run("node", "ls", host=host).returncode == 0, f"answer of the manager on {host}")


def demote(cluster: Cluster, host: str, by: str) -> None:
    before = voters(cluster, by)
    cluster.swarmctl("node", "demote", host, host=by)
    left(cluster, host, by, before - 1)


def left(cluster: Cluster, host: str, by: str, voting: int) -> None:
    """The demoted host is no manager any more."""
    wait_for(lambda: voters(cluster, by) == voting, f"{voting} voting members")
    wait_for(lambda: "ManagerStatus" not in cluster.nodes(by)[host], f"{host} without a manager status")
    wait_for(lambda: "not a swarm manager" in cluster.run("node", "ls", host=host).stderr, f"end of {host}'s manager")


def state(cluster: Cluster, host: str) -> str:
    return cluster.swarmctl("info", "--format", "{{.Swarm.LocalNodeState}}", host=host)


def join(cluster: Cluster, host: str, token: str, remote: str = "", advertise: str = "") -> tuple[str, ...]:
    """The words of a join."""
    remote = remote or f"{cluster.address('host1')}:2377"
    return ("swarm", "join", "--advertise-addr", advertise or cluster.address(host), "--token", token, remote)


def test_roles_change_and_the_service_answers_all_the_while(one_manager: Cluster) -> None:
    cluster = one_manager
    cluster.swarmctl("service", "create", "--name", "web", "--replicas", "3", "--publish", "8085:80", "demo", *SERVE)
    before = {task["Status"]["ContainerStatus"]["ContainerID"] for task in cluster.converged("web", 3)}
    promote(cluster, "host2", by="host1")
    assert cluster.get("host2", 8085)
    promote(cluster, "host3", by="host1")
    assert cluster.get("host3", 8085)
    assert cluster.leader("host3") == "host1"
    cluster.refused("swarm", "leave", says="one of 3 managers: demote it first")
    cluster.refused("node", "rm", "host2", says="host2 is a manager: demote it first")

    cluster.swarmctl("node", "demote", "host1")
    wait_for(lambda: cluster.leader("host2") != "host1", "another leader at once", 2)
    left(cluster, "host1", by="host2", voting=2)
    log = (cluster.data("host1").parent / "log" / "swarmd.log").read_text()
    assert log.count("the node is no manager any more") <= 2, "it does not try again and again"
    assert not (cluster.data("host1") / "cluster" / "etcd.crt").exists(), "what opened the store is gone"
    assert not (cluster.data("host1") / "cluster" / "manager").exists(), "and the copy of it"
    assert cluster.get("host1", 8085)

    promote(cluster, "host1", by="host2")
    demote(cluster, "host2", by="host1")
    demote(cluster, "host3", by="host1")
    assert cluster.leader() == "host1"
    assert voters(cluster, "host1") == 1
    after = {task["Status"]["ContainerStatus"]["ContainerID"] for task in cluster.converged("web", 3)}
    assert after == before, "no program noticed"
    cluster.swarmctl("service", "rm", "web")


def test_what_a_member_is_not_allowed(one_manager: Cluster) -> None:
    cluster = one_manager
    token = cluster.swarmctl("swarm", "join-token", "-q", "worker")
    for host in ("host1", "host2"):
        cluster.refused("swarm", "init", says="already part of a swarm", host=host)
        cluster.refused(*join(cluster, host, token), says="already part of a swarm", host=host)
    cluster.refused("swarm", "leave", says="last manager: leaving erases the whole state")
    cluster.refused("node", "demote", "host1", says="host1 is the only manager")
    cluster.refused("node", "rm", "host1", says="host1 is a manager")
    cluster.refused("node", "rm", "host2", says="host2 is not down")
    for words in (("node", "ls"), ("service", "ls"), ("service", "create", "demo"), ("swarm", "join-token", "worker")):
        cluster.refused(*words, says="not a swarm manager.*run this on a manager", host="host2")
    assert set(cluster.nodes()) == set(HOSTS)
    assert state(cluster, "host2") == "active"


def test_a_worker_leaves_and_only_a_right_token_brings_it_back(one_manager: Cluster, other_cluster: Cluster) -> None:
    cluster = one_manager
    token = cluster.swarmctl("swarm", "join-token", "-q", "worker")
    cluster.swarmctl("service", "create", "--name", "sleeper", "--replicas", "3", *AT_ONCE, "demo", "sleep", "1000")
    cluster.converged("sleeper", 3)
    cluster.swarmctl("swarm", "leave", host="host3")
    assert (state(cluster, "host3"), cluster.swarmctl("ps", "-q", host="host3")) == ("inactive", "")
    assert not (cluster.data("host3") / "cluster").exists()
    assert cluster.nodes()["host3"]["Status"]["State"] == "down", "at once: it said so"
    cluster.swarmctl("node", "rm", "host3")
    cluster.converged("sleeper", 3)

    manager = cluster.address("host1")
    foreign = other_cluster.swarmctl("swarm", "join-token", "-q", "worker")
    for words, says in (
        (join(cluster, "host3", foreign), f"of another cluster than that of {re.escape(manager)}:2377"),
        (join(cluster, "host3", "nonsense"), "malformed"),
        (join(cluster, "host3", token[:-5] + "aaaaa"), "is wrong, or was revoked"),
        (join(cluster, "host3", token, f"{manager}:2378"), "no join endpoint.*2377"),
        (join(cluster, "host3", token, f"{manager}:1"), "connection refused.*2377"),
        (join(cluster, "host3", token, f"{manager}:99999"), "no valid port"),
        (join(cluster, "host3", token, "203.0.113.5:2377"), "did not answer in time.*2377|unreachable|no route"),
        (join(cluster, "host3", token, advertise="9.9.9.9"), r"9\.9\.9\.9 is none of this host's"),
    ):
        cluster.refused(*words, says=says, host="host3")
    rotated = cluster.swarmctl("swarm", "join-token", "--rotate", "-q", "worker")
    assert rotated != token
    cluster.refused(*join(cluster, "host3", token), says="is wrong, or was revoked by a rotation", host="host3")
    assert state(cluster, "host3") == "inactive"
    assert set(cluster.nodes()) == {"host1", "host2"}

    cluster.swarmctl(*join(cluster, "host3", rotated), host="host3")
    wait_for(lambda: cluster.nodes()["host3"]["Status"]["State"] == "ready", "host3 to be ready")
    cluster.swarmctl("service", "scale", "sleeper=5")
    assert cluster.nodes()["host3"]["ID"] in {task["NodeID"] for task in cluster.running("sleeper")}
    cluster.swarmctl("service", "rm", "sleeper")


def grpc_answer(address: str, name: str, root: Path, *pair: Path) -> str:
    command = [sys.executable, "-c", ASK, address, name, str(root), *map(str, pair)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def https_status(cluster: Cluster, host: str, url: str, *pair: Path) -> str:
    identity = ("--cert", str(pair[1]), "--key", str(pair[0])) if pair else ()
    return cluster.on(host, "sh", "-c", f"curl -sk -m 5 -o /dev/null -w '%{{http_code}}' {' '.join(identity)} {url}; :")


def test_strangers_are_kept_out_of_every_port(one_manager: Cluster, other_cluster: Cluster) -> None:
    own, worker = (one_manager.data(host) / "cluster" for host in ("host1", "host2"))
    foreign = other_cluster.data("host1") / "cluster"
    manager = one_manager.address("host1")
    root = own / "root.crt"

    control = f"{manager}:2378"
    assert "answered 3" in grpc_answer(control, "swarmd-manager", root, own / "node.key", own / "node.crt")
    assert "PERMISSION_DENIED" in grpc_answer(
        control, "swarmd-manager", root, worker / "node.key", worker / "node.crt"
    ), "a worker has no say"
    for port, name in ((2378, "swarmd-manager"), (2381, one_manager.nodes()["host1"]["ID"])):
        for pair in ((), (foreign / "node.key", foreign / "node.crt")):
            assert "UNAVAILABLE" in grpc_answer(f"{manager}:{port}", name, root, *pair), (port, pair)

    store = f"https://{manager}:2379/version"
    assert https_status(one_manager, "host2", store, own / "etcd.key", own / "etcd.crt") == "200"
    for port in (2379, 2380):
        url = f"https://{manager}:{port}/version"
        for pair in (
            (),
            (foreign / "etcd.key", foreign / "etcd.crt"),
            (worker / "node.key", worker / "node.crt"),
            (own / "node.key", own / "node.crt"),
        ):
            assert https_status(one_manager, "host2", url, *pair) == "000", (port, pair)
        assert https_status(one_manager, "host1", url.replace("https", "http")) == "000", "on the manager itself too"


def test_the_only_manager_s_host_is_away_for_a_while_and_no_task_of_the_others_moves(one_manager: Cluster) -> None:
    one_manager.swarmctl("service", "create", "--name", "calm", "--replicas", "6", *AT_ONCE, "demo", *SERVE)
    host1 = one_manager.nodes()["host1"]["ID"]
    before = {task["ID"] for task in one_manager.converged("calm", 6) if task["NodeID"] != host1}
    log = one_manager.data("host2").parent / "log" / "swarmd.log"
    known = log.read_text().count("session with manager")
    one_manager.devcluster("kill", "host1")
    wait_for(lambda: log.read_text().count("session with manager") > known + 6, "attempts to reach the manager", 60)
    one_manager.devcluster("start", "host1")
    one_manager.make_whole()
    after = {task["ID"] for task in one_manager.converged("calm", 6)}
    one_manager.swarmctl("service", "rm", "calm")
    assert before < after, "tasks were moved"
