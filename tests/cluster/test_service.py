"""A service on three hosts, as an operator uses it."""

import json

from tests.cluster.conftest import AT_ONCE, HOSTS, SERVE, Cluster, wait_for


def test_replicas_answer_through_every_host_and_scale(cluster: Cluster) -> None:
    cluster.swarmctl("service", "create", "--name", "web", "--replicas", "3", "--publish", "8080:80", "demo", *SERVE)
    assert {task["NodeID"] for task in cluster.converged("web", 3)} == {n["ID"] for n in cluster.nodes().values()}
    for host in HOSTS:
        wait_for(lambda host=host: len(cluster.answers(host, 8080)) == 3, f"answers of three replicas on {host}")
    cluster.swarmctl("service", "scale", "web=5")
    assert len(cluster.running("web")) == 5
    wait_for(lambda: len(cluster.answers("host2", 8080, 30)) == 5, "answers of five replicas")
    cluster.swarmctl("service", "scale", "web=1")
    assert len(cluster.converged("web", 1)) == 1
    wait_for(lambda: len(cluster.answers("host3", 8080)) == 1, "answers of one replica")


def test_the_name_and_the_port_of_a_removed_service_are_free_while_its_tasks_still_end(cluster: Cluster) -> None:
    create = ("service", "create", "--name", "web", "--publish", "8082:80", "--stop-grace-period", "5s", "demo")
    serve = "echo {} > /www/index.html; exec httpd -f -p 80 -h /www"
    cluster.swarmctl(*create, "sh", "-c", serve.format("old"))
    old = {task["ID"] for task in cluster.converged("web", 1)}
    cluster.swarmctl("service", "rm", "web")
    cluster.swarmctl(*create, "sh", "-c", serve.format("new"))
    assert not old & {task["ID"] for task in cluster.tasks("web")}, "the name means the new service"
    assert cluster.answers("host2", 8082) == {"new"}
    wait_for(lambda: not old & {task["ID"] for task in cluster.api().tasks()}, "end of the old task")


def test_replicas_reach_each_other_by_service_name(cluster: Cluster) -> None:
    cluster.swarmctl("network", "create", "--driver", "overlay", "back")
    try:
        cluster.swarmctl("service", "create", "--name", "api", "--replicas", "3", "--network", "back", "demo", *SERVE)
        ask = "while :; do wget -q -O - http://api/; usleep 50000; done"
        cluster.swarmctl(
            "service",
            "create",
            "--name",
            "asker",
            "--replicas",
            "3",
            "--network",
            "back",
            *AT_ONCE,
            "demo",
            "sh",
            "-c",
            ask,
        )
        cluster.converged("asker", 3)

        def heard() -> bool:
            lines = cluster.swarmctl("service", "logs", "--raw", "asker").split()
            return len(set(lines)) == 3

        wait_for(heard, "answers of all three replicas by name")
        cluster.swarmctl("service", "rm", "api", "asker")
    finally:
        wait_for(lambda: cluster.run("network", "rm", "back").returncode == 0, "removal of the network")


def test_rolling_update_goes_one_by_one_and_waits_for_health(cluster: Cluster) -> None:
    create = ("--name", "web", "--replicas", "3", "--publish", "8081:80", "--env", "V=1")
    serve = ("sh", "-c", "echo $V > /www/index.html; exec httpd -f -p 80 -h /www")
    health = ("--health-cmd", "wget -q -O /dev/null http://127.0.0.1/", "--health-interval", "1s")
    cluster.swarmctl("service", "create", *create, *health, "demo", *serve)
    cluster.swarmctl("service", "update", "--env-add", "V=2", "--update-monitor", "1s", "web")
    assert cluster.answers("host1", 8081) == {"2"}
    service = json.loads(cluster.swarmctl("service", "inspect", "web"))[0]
    assert service["UpdateStatus"]["State"] == "completed"


def test_an_update_that_never_gets_healthy_pauses_and_keeps_the_rest(cluster: Cluster) -> None:
    health = ("--health-cmd", "test -e /healthy", "--health-interval", "0.5s", "--health-retries", "2")
    run = ("sh", "-c", "$MAKE; sleep 1000")
    cluster.swarmctl(
        "service", "create", "--name", "web", "--replicas", "3", "--env", "MAKE=touch /healthy", *health, "demo", *run
    )
    done = cluster.run("service", "update", "--env-add", "MAKE=true", "--restart-delay", "0s", "web")
    assert done.returncode != 0
    assert "paused" in done.stdout + done.stderr
    assert len(cluster.running("web")) == 2


def test_logs_of_all_replicas(cluster: Cluster) -> None:
    talk = ("sh", "-c", "echo out-$HOSTNAME; echo err-$HOSTNAME >&2; sleep 1000")
    cluster.swarmctl("service", "create", "--name", "talker", "--replicas", "3", *AT_ONCE, "demo", *talk)
    lines = wait_for(
        lambda: got if (got := cluster.swarmctl("service", "logs", "talker")).count("out-") == 3 else "",
        "three lines",
    )
    assert all("@host" in line and line.startswith("talker.") for line in lines.splitlines())
