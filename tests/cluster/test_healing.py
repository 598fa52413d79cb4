"""What survives what: programs, health, hosts, links, leaders, daemons and quorum, each killed for real."""

import json

from tests.cluster.conftest import AT_ONCE, HOSTS, SERVE, Cluster, wait_for


def create(cluster: Cluster, name: str, replicas: int, *flags: str, command: tuple[str, ...] = SERVE) -> None:
    cluster.swarmctl(
        "service", "create", "--name", name, "--replicas", str(replicas), *AT_ONCE, *flags, "demo", *command
    )
    cluster.converged(name, replicas)


def placed(cluster: Cluster, service: str) -> dict[str, list[str]]:
    """Container ids by host name."""
    names = {node["ID"]: name for name, node in cluster.nodes().items()}
    places: dict[str, list[str]] = {name: [] for name in HOSTS}
    for task in cluster.running(service):
        places[names[task["NodeID"]]].append(task["Status"]["ContainerStatus"]["ContainerID"])
    return places


def test_a_killed_program_is_replaced_in_its_slot(cluster: Cluster) -> None:
    create(cluster, "web", 3, "--restart-delay", "0s")
    before = {task["Slot"]: task for task in cluster.running("web")}
    victim = before[2]
    host = next(name for name, node in cluster.nodes().items() if node["ID"] == victim["NodeID"])
    cluster.on(host, "sh", "-c", f"kill -9 {victim['Status']['ContainerStatus']['PID']}")
    wait_for(
        lambda: {t["Slot"]: t["ID"] for t in cluster.running("web")}.get(2, victim["ID"]) != victim["ID"], "new task"
    )
    after = {task["Slot"]: task["ID"] for task in cluster.converged("web", 3)}
    assert {slot: after[slot] for slot in (1, 3)} == {slot: before[slot]["ID"] for slot in (1, 3)}
    (dead,) = (task for task in cluster.tasks("web") if task["ID"] == victim["ID"])
    assert (dead["Status"]["State"], dead["Status"]["ContainerStatus"]["ExitCode"]) == ("failed", 137)


def test_restart_attempts_are_counted(cluster: Cluster) -> None:
    flags = ("--restart-delay", "0s", "--restart-max-attempts", "2", "--detach")
    cluster.swarmctl("service", "create", "--name", "dying", *flags, "demo", "sh", "-c", "exit 3")
    wait_for(lambda: [t["Status"]["State"] for t in cluster.tasks("dying")] == ["failed"] * 3, "three failed tasks")
    assert {task["Status"]["ContainerStatus"]["ExitCode"] for task in cluster.tasks("dying")} == {3}


def test_a_failing_health_check_replaces_the_task(cluster: Cluster) -> None:
    flags = (
        "--health-cmd",
        "test -e /tmp/ok",
        "--health-interval",
        "0.5s",
        "--health-retries",
        "2",
        "--restart-delay",
        "0s",
    )
    create(cluster, "web", 2, *flags, command=("sh", "-c", "touch /tmp/ok; sleep 1000"))
    victim = cluster.running("web")[0]
    host = next(name for name, node in cluster.nodes().items() if node["ID"] == victim["NodeID"])
    pid = victim["Status"]["ContainerStatus"]["PID"]
    cluster.on(host, "rm", f"/proc/{pid}/root/tmp/ok")
    wait_for(lambda: victim["ID"] not in {t["ID"] for t in cluster.running("web")}, "end of the unhealthy task")
    cluster.converged("web", 2)
    (dead,) = (task for task in cluster.tasks("web") if task["ID"] == victim["ID"])
    assert dead["Status"]["State"] == "failed"
    assert "health" in dead["Status"]["Err"]


def test_a_dead_host_s_tasks_run_elsewhere_and_stay_single_when_it_returns(cluster: Cluster) -> None:
    create(cluster, "web", 6)
    cluster.devcluster("kill", "host3")
    gone = cluster.nodes()["host3"]["ID"]
    wait_for(lambda: gone not in {task["NodeID"] for task in cluster.running("web")}, "replacement of its tasks", 15)
    cluster.converged("web", 6)
    cluster.devcluster("start", "host3")
    wait_for(lambda: cluster.nodes()["host3"]["Status"]["State"] == "ready", "host3 to be ready")
    wait_for(lambda: not containers(cluster, "host3"), "end of its stale containers")
    assert len(cluster.converged("web", 6)) == 6


def test_a_cut_host_s_tasks_run_elsewhere_and_its_own_stop_when_it_returns(cluster: Cluster) -> None:
    create(cluster, "web", 6)
    cut = cluster.nodes()["host2"]["ID"]
    cluster.devcluster("cut", "host2")
    wait_for(lambda: cut not in {task["NodeID"] for task in cluster.running("web")}, "replacement of its tasks", 15)
    cluster.converged("web", 6)
    assert len(containers(cluster, "host2")) == 2, "a node without managers keeps its tasks"
    cluster.devcluster("heal", "host2")
    wait_for(lambda: not containers(cluster, "host2"), "end of its stale containers")


def containers(cluster: Cluster, host: str) -> list[str]:
    client = cluster.api(host)
    try:
        return [container["Id"] for container in client.containers()]
    finally:
        client.close()


def test_drain_moves_every_task(cluster: Cluster) -> None:
    create(cluster, "web", 6)
    drained = cluster.nodes()["host1"]["ID"]
    cluster.swarmctl("node", "update", "--availability", "drain", "host1")
    wait_for(lambda: drained not in {task["NodeID"] for task in cluster.running("web")}, "move of its tasks")
    cluster.converged("web", 6)
    wait_for(lambda: not containers(cluster, "host1"), "end of its containers")


def test_the_leader_killed_another_leads_and_containers_never_notice(cluster: Cluster) -> None:
    create(cluster, "web", 3)
    before = placed(cluster, "web")
    leader = cluster.leader()
    other = next(host for host in HOSTS if host != leader)
    cluster.kill9(leader, "-m swarmd.manager")
    wait_for(lambda: cluster.run("service", "scale", "--detach", "web=4", host=other).returncode == 0, "scale accepted")
    cluster.converged("web", 4, host=other)
    cluster.swarmctl("service", "scale", "web=3", host=other)
    after = placed(cluster, "web")
    assert sum(len(set(before[host]) & set(after[host])) for host in HOSTS) >= 2
    wait_for(lambda: cluster.run("node", "ls", host=leader).returncode == 0, "return of the killed manager")


def test_swarmd_killed_its_containers_never_stop_and_nothing_is_missed(cluster: Cluster) -> None:
    count = ("sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); usleep 50000; done")
    create(cluster, "count", 3, command=count)
    before = placed(cluster, "count")
    for host in HOSTS:
        cluster.kill9(host, "swarmd --data-root")
    for host in HOSTS:
        cluster.devcluster("start", host)
    wait_for(lambda: placed(cluster, "count") == before, "the same containers")
    for host in HOSTS:
        (container,) = before[host]
        client = cluster.api(host)
        lines = client.logs(container, tail="all").split()
        client.close()
        assert lines == [str(n).encode() for n in range(len(lines))]


def test_an_exit_while_swarmd_is_dead_is_seen_afterwards(cluster: Cluster) -> None:
    create(
        cluster,
        "brief",
        1,
        "--restart-condition",
        "none",
        command=("sh", "-c", "while [ ! -e /stop ]; do usleep 50000; done; exit 7"),
    )
    (task,) = cluster.running("brief")
    host = next(name for name, node in cluster.nodes().items() if node["ID"] == task["NodeID"])
    pid = task["Status"]["ContainerStatus"]["PID"]
    cluster.kill9(host, "swarmd --data-root")
    # The files belong to the task's own ids: a touch from outside would have no owner.
    cluster.on(host, "nsenter", "--target", str(pid), "--user", "--mount", "touch", "/stop")
    wait_for(lambda: pid not in cluster.processes(host), "end of the program")
    cluster.devcluster("start", host)
    wait_for(lambda: cluster.tasks("brief")[0]["Status"]["ContainerStatus"].get("ExitCode") == 7, "exit code 7")


def test_etcd_members_killed_one_at_a_time(cluster: Cluster) -> None:
    create(cluster, "web", 1)
    for replicas, host in enumerate(HOSTS, start=2):
        cluster.kill9(host, "etcd", "--data-dir")
        wait_for(
            lambda n=replicas: cluster.run("service", "scale", "--detach", f"web={n}").returncode == 0, "scale accepted"
        )
    cluster.converged("web", 4)


def test_quorum_lost_is_said_and_regained_nothing_is_lost(cluster: Cluster) -> None:
    create(cluster, "web", 3)
    before = placed(cluster, "web")["host1"]
    cluster.devcluster("kill", "host2")
    cluster.devcluster("kill", "host3")
    refused = wait_for(
        lambda: (done := cluster.run("service", "scale", "--detach", "web=5")).returncode and done, "refusal"
    )
    assert "quorum" in refused.stderr
    assert containers(cluster, "host1") == before, "running containers go on"
    cluster.devcluster("start", "host2")
    cluster.devcluster("start", "host3")
    wait_for(lambda: cluster.run("service", "scale", "--detach", "web=4").returncode == 0, "scale accepted again", 60)
    cluster.converged("web", 4)


def test_all_hosts_stopped_and_started(cluster: Cluster) -> None:
    create(cluster, "web", 3, "--publish", "8090:80")
    cluster.swarmctl("service", "scale", "--detach", "web=5")
    for host in HOSTS:
        cluster.devcluster("kill", host)
    for host in HOSTS:
        cluster.devcluster("start", host)
    wait_for(lambda: cluster.run("service", "ls").returncode == 0, "cluster back", 60)
    assert json.loads(cluster.swarmctl("service", "inspect", "web"))[0]["Spec"]["Mode"]["Replicated"]["Replicas"] == 5
    cluster.converged("web", 5, seconds=60)
    wait_for(lambda: len(cluster.answers("host1", 8090, 30)) == 5, "answers of five replicas")
