"""The commands from outside: what they print, what they change, and how they end."""

import asyncio
import json
from collections.abc import Callable

import pytest

from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.clock import timestamp
from swarmd.runtime.model import LogEntry, NetworkRequest
from tests.agent.api.conftest import Api
from tests.agent.api.fakes import NOW
from tests.swarmctl.conftest import Run


def add_task(api: Api, service: pb.Service, slot: int, state: int = pb.TASK_STATE_RUNNING, err: str = "") -> pb.Task:
    node = next(obj.node for (kind, _), obj in api.membership.cluster.objects.items() if kind == "node")
    task = pb.Task(service_id=service.id, slot=slot, node_id=node.id, desired_state=pb.TASK_STATE_RUNNING)
    task.spec.CopyFrom(service.spec.task)
    task.status.state, task.status.err = state, err  # type: ignore[assignment]
    task.status.timestamp.CopyFrom(timestamp(NOW))
    return api.membership.cluster.put(pb.Object(task=task)).task


def only_service(api: Api) -> pb.Service:
    return next(obj.service for (kind, _), obj in api.membership.cluster.objects.items() if kind == "service")


async def test_a_cluster_is_made_and_shown(api: Api, swarmctl: Run) -> None:
    refused = await swarmctl("service", "ls")
    assert (refused.code, refused.err) == (1, "swarmctl: this node is not a swarm manager\n")
    made = await swarmctl("swarm", "init", "--advertise-addr", "10.0.0.1", "--task-history-limit", "3")
    assert made.code == 0, made.err
    assert "swarmctl swarm join --token SWMTKN-worker 10.0.0.1:2377" in made.out
    again = await swarmctl("swarm", "init")
    assert (again.code, again.err) == (1, "swarmctl: this node is already part of a swarm\n")
    assert (await swarmctl("swarm", "join-token", "-q", "manager")).out == "SWMTKN-manager\n"
    assert (await swarmctl("swarm", "join-token", "-q", "--rotate", "worker")).out == "new-worker_token\n"
    head, row = (await swarmctl("node", "ls")).out.splitlines()
    assert head.split("  ")[0] == "ID"
    assert row.split()[1:] == ["*", "host1", "Ready", "Active", "Leader", "0.1.0"]
    assert (await swarmctl("node", "update", "--availability", "drain", "--label-add", "zone=eu", "self")).code == 0
    shown = json.loads((await swarmctl("node", "inspect", "self")).out)[0]
    assert shown["Spec"]["Availability"] == "drain"
    assert shown["Spec"]["Labels"] == {"zone": "eu"}
    assert "Swarm: active" in (await swarmctl("info")).out
    assert (await swarmctl("swarm", "leave")).code == 1
    assert (await swarmctl("swarm", "leave", "--force")).code == 0


async def test_a_service_lives(api: Api, swarmctl: Run) -> None:
    await swarmctl("swarm", "init")
    made = await swarmctl(
        "service", "create", "-d", "--name", "web", "--replicas", "2", "--publish", "8080:80", "--env", "A=b",
        "--health-cmd", "true", "--health-interval", "1m30s", "--constraint", "node.role==manager",
        "--limit-memory", "64m", "--limit-cpu", "0.5", "--mount", "type=bind,src=/a,dst=/b,ro", "--read-only",
        "demo", "sh", "-c", "sleep 1",
    )  # fmt: skip
    assert made.code == 0, made.err
    spec = only_service(api).spec
    assert spec.task.container.args == ["sh", "-c", "sleep 1"]
    assert spec.task.container.healthcheck.interval == 90 * 10**9
    assert spec.task.resources.limits == pb.Limits(memory_bytes=64 << 20, nano_cpus=500_000_000)
    assert spec.endpoint.ports[0].published_port == 8080
    add_task(api, only_service(api), 1, pb.TASK_STATE_FAILED, "exit code 1")
    newest = add_task(api, only_service(api), 1)
    newest.created_at.seconds += 5
    listed = (await swarmctl("service", "ls")).out.splitlines()[1]
    assert listed.split() == [made.out[:12], "web", "replicated", "1/2", "demo", "*:8080->80/tcp"]
    head, first, older = (await swarmctl("service", "ps", "web")).out.splitlines()
    assert head.split()[:4] == ["ID", "NAME", "IMAGE", "NODE"]
    assert first.split()[1:5] == ["web.1", "demo", "host1", "Running"]
    assert " \\_ web.1" in older
    assert '"exit code 1"' in older
    assert (await swarmctl("service", "scale", "-d", "web=5")).out == "web scaled to 5\n"
    update = ("service", "update", "-d", "--env-add", "C=d", "--env-rm", "A", "--image", "demo:2", "--force", "web")
    assert (await swarmctl(*update)).code == 0
    spec = only_service(api).spec
    assert (list(spec.task.container.env), spec.task.container.image) == (["C=d"], "demo:2")
    assert (spec.mode.replicated.replicas, spec.task.force_update) == (5, 1)
    assert (await swarmctl("service", "rollback", "-d", "web")).code == 0
    assert list(only_service(api).spec.task.container.env) == ["A=b"]
    form = "{{.Spec.Name}}:{{len .Spec.TaskTemplate.ContainerSpec.Env}}"
    assert (await swarmctl("service", "inspect", "--format", form, "web")).out == "web:1\n"
    api.membership.cluster.entries = [
        control_pb.LogEntry(
            service_id=newest.service_id,
            task_id=newest.id,
            node_id=newest.node_id,
            timestamp=timestamp(NOW),
            data=b"hi\n",
            attributes={"tier": "web", "a": "b c"},
        )
    ]
    assert (await swarmctl("service", "logs", "web")).out == f"web.1.{newest.id[:12]}@host1 | hi\n"
    assert (await swarmctl("service", "logs", "--no-task-ids", "web")).out == "web.1@host1 | hi\n"
    assert (await swarmctl("service", "logs", "--details", "--no-task-ids", "web")).out == (
        "web.1@host1 | a=b+c,tier=web hi\n"
    )
    assert (await swarmctl("service", "logs", "--details", "--raw", "web")).out == "a=b+c,tier=web hi\n"
    unresolved = await swarmctl("service", "logs", "--no-resolve", "--no-task-ids", "web")
    assert unresolved.out == f"{newest.service_id}.1@{newest.node_id} | hi\n"
    for beside in (("--with-registry-auth",), ("--env-add", "X=y"), ("--image", "other"), ("--force",)):
        both = await swarmctl("service", "update", "--rollback", *beside, "web")
        assert both.code == 1 and "--rollback goes back to the spec as it was" in both.err
    assert (await swarmctl("service", "update", "-d", "--rollback", "web")).code == 0
    assert (await swarmctl("service", "rm", "web")).out == "web\n"
    gone = await swarmctl("service", "rm", "web")
    assert (gone.code, gone.err) == (1, "swarmctl: no service web\n")


async def test_inspected_for_people(api: Api, swarmctl: Run) -> None:
    await swarmctl("swarm", "init", "--advertise-addr", "10.0.0.1")
    await swarmctl("network", "create", "-d", "overlay", "front")
    made = await swarmctl(
        "service", "create", "-d", "--name", "web", "--replicas", "3", "--label", "a=b", "--publish", "8080:80",
        "--constraint", "node.role==worker", "--limit-memory", "64m", "--reserve-cpu", "0.5", "--update-delay", "1m30s",
        "--env", "A=\33[2J", "--env", "B=2", "--network", "front", "demo", "sleep", "1",
    )  # fmt: skip
    shown = (await swarmctl("service", "inspect", "--pretty", "web")).out.splitlines()
    assert shown[:5] == [
        f"ID:                       {made.out.strip()}",
        "Name:                     web",
        "Labels:                   a=b",
        "Service Mode:             Replicated",
        "Replicas:                 3",
    ]
    for line, below in (
        ("Placement:", " Constraints:             node.role==worker"),
        (" Env:                     A=?[2J", "                          B=2"),
        (" Reservations:", "  CPUs:                   0.5"),
        (" Limits:", "  Memory:                 64MiB"),
        ("Update Config:", " Delay:                   90s"),
    ):
        assert shown[shown.index(line) + 1] == below
    assert shown[-3:] == [
        "Networks:                 front",
        "Endpoint Mode:            vip",
        "Ports:                    8080->80/tcp, ingress",
    ]
    assert not any(line.strip() == "Update Status:" for line in shown), "nothing is updated"
    node = (await swarmctl("node", "inspect", "--pretty", "self")).out
    for line in (
        "Status:\n State:                   Ready\n Availability:            Active",
        " Leader:                  Yes",
    ):
        assert line in node
    both = await swarmctl("service", "inspect", "--pretty", "--format", "{{.ID}}", "web")
    said = "swarmctl: --pretty and --format contradict one another: leave one of them out\n"
    assert (both.code, both.err) == (1, said)


def write_first(api: Api, times: int, change: Callable[[pb.Object], None] = lambda obj: None) -> list[str]:
    """The next so many updates come just after a write of somebody else. Returns the attempts, as they come."""
    cluster, attempts = api.membership.cluster, list[str]()
    update = cluster.Update

    async def late(request: control_pb.UpdateRequest) -> control_pb.WriteResponse:
        kind = request.object.WhichOneof("of") or ""
        attempts.append(kind)
        if len(attempts) <= times:
            newer = pb.Object()
            newer.CopyFrom(cluster.objects[kind, getattr(request.object, kind).id])
            change(newer)
            cluster.put(newer)
        return await update(request)

    cluster.Update = late  # type: ignore[method-assign]
    return attempts


async def test_a_change_that_others_come_between_is_made_on_what_they_wrote(api: Api, swarmctl: Run) -> None:
    await swarmctl("swarm", "init")
    await swarmctl("service", "create", "-d", "--name", "web", "--env", "A=1", "demo")
    attempts = write_first(api, 4, lambda obj: obj.service.spec.task.container.env.append("B=2"))
    answer = await swarmctl("service", "update", "-d", "--env-add", "C=3", "web")
    assert (answer.code, len(attempts)) == (0, 5), answer.err
    assert list(only_service(api).spec.task.container.env) == ["A=1", *["B=2"] * 4, "C=3"]


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("service scale -d web=5", "web scaled to 5\n"),
        ("service rollback -d web", ""),
        ("node update --label-add zone=eu self", "self\n"),
        ("node update --availability drain self", "self\n"),
        ("node demote self", "node self demoted\n"),
    ],
)
async def test_changes_get_through_between_writes_of_managers(api: Api, swarmctl: Run, command: str, out: str) -> None:
    await swarmctl("swarm", "init")
    await swarmctl("service", "create", "-d", "--name", "web", "demo")
    await swarmctl("service", "update", "-d", "--image", "demo:2", "web")
    attempts = write_first(api, 2)
    answer = await swarmctl(*command.split())
    assert (answer.code, answer.out, len(attempts)) == (0, out, 3), answer.err


async def test_a_change_that_never_gets_through_says_why(api: Api, swarmctl: Run) -> None:
    await swarmctl("swarm", "init")
    await swarmctl("service", "create", "-d", "--name", "web", "--replicas", "2", "demo")
    attempts = write_first(api, 100)
    answer = await swarmctl("service", "scale", "-d", "web=5")
    assert (answer.code, answer.out, len(attempts)) == (1, "", 5)
    assert answer.err.startswith("swarmctl: service ")
    assert "read it again" in answer.err
    assert only_service(api).spec.mode.replicated.replicas == 2


async def test_a_rollback_does_not_take_back_what_others_changed_meanwhile(api: Api, swarmctl: Run) -> None:
    await swarmctl("swarm", "init")
    await swarmctl("service", "create", "-d", "--name", "web", "demo")
    await swarmctl("service", "update", "-d", "--image", "demo:2", "web")
    attempts = write_first(api, 1, lambda obj: obj.service.spec.task.container.env.append("B=2"))
    answer = await swarmctl("service", "rollback", "-d", "web")
    assert (answer.code, len(attempts)) == (1, 1)
    assert answer.err == "swarmctl: service web was updated by others meanwhile: look at it, and roll back again\n"


@pytest.mark.parametrize("flags", [(), ("--no-trunc",)])
async def test_a_slot_that_was_given_up_says_so_in_full(api: Api, swarmctl: Run, flags: tuple[str, ...]) -> None:
    await swarmctl("swarm", "init")
    await swarmctl("service", "create", "-d", "--name", "web", "--replicas", "3", "demo")
    err, reason = "the program ended with exit code 1: " + "x" * 200, "not restarted: all 3 restart attempts were used"
    add_task(api, only_service(api), 1, pb.TASK_STATE_FAILED, err).status.message = reason
    add_task(api, only_service(api), 2, pb.TASK_STATE_COMPLETE).status.message = "not restarted: it completed"
    add_task(api, only_service(api), 3).status.message = "running"
    _, failed, complete, running = (await swarmctl("service", "ps", *flags, "web")).out.splitlines()
    assert failed.endswith(f'   "{err}; {reason}"')
    assert complete.endswith('   "not restarted: it completed"')
    assert '"' not in running


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition on what the daemon has."""
    try:
        async with asyncio.timeout(15):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"waited in vain for {what}")


async def test_create_waits_until_all_tasks_run(api: Api, swarmctl: Run) -> None:
    await swarmctl("swarm", "init")
    async with asyncio.TaskGroup() as group:
        command = ("service", "create", "--init=false", "--name", "web", "--replicas", "1", "demo")
        waiting = group.create_task(swarmctl(*command))
        await until(lambda: any(kind == "service" for kind, _ in api.membership.cluster.objects), "the service")
        add_task(api, only_service(api), 1, pb.TASK_STATE_PENDING, "no suitable node (1 node: drained)")
        seen = api.membership.cluster.lists
        await until(lambda: waiting.done() or api.membership.cluster.lists > seen + 1, "swarmctl to look again")
        assert not waiting.done(), waiting.result()
        newest = add_task(api, only_service(api), 1)
        newest.created_at.seconds += 5
    answer = waiting.result()
    assert answer.code == 0, answer.err
    assert "web.1: no suitable node (1 node: drained)" in answer.out
    assert answer.out.endswith("1/1 tasks running\nservice web converged\n")


async def test_a_paused_update_is_a_failure(api: Api, swarmctl: Run) -> None:
    await swarmctl("swarm", "init")
    await swarmctl("service", "create", "-d", "--name", "web", "demo")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(swarmctl("service", "update", "--env-add", "A=b", "web"))
        await until(lambda: bool(only_service(api).spec.task.container.env), "the update")
        status = pb.UpdateStatus(state=pb.UPDATE_STATE_PAUSED, message="task failed twice")
        only_service(api).update_status.CopyFrom(status)
    answer = waiting.result()
    assert (answer.code, answer.err) == (1, "swarmctl: service web: paused: task failed twice\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("service create --replicsa 3 demo", "unknown flag: --replicsa (did you mean --replicas?)"),
        ("service create --replicas -3 demo", "'-3' is not a whole number"),
        ("service create --publish 80:eighty demo", "'eighty' is no port"),
        ("service create --limit-memory lots demo", "'lots' is no size"),
        ("service create --mode global demo", "unknown flag: --mode"),
        ("service scale web", "write it as SERVICE=REPLICAS"),
        ("node update --availability asleep x", "invalid choice: 'asleep'"),
        ("service frobnicate", "unknown command: frobnicate"),
    ],
)
async def test_bad_words_get_one_sentence_and_change_nothing(
    api: Api, swarmctl: Run, words: str, complaint: str
) -> None:
    await swarmctl("swarm", "init")
    before = dict(api.membership.cluster.objects)
    answer = await swarmctl(*words.split())
    assert answer.code == 2
    assert complaint in answer.err
    assert api.membership.cluster.objects == before


async def test_no_daemon_is_one_sentence(swarmctl: Run) -> None:
    answer = await swarmctl("-H", "unix:///nowhere/s", "service", "ls")
    assert answer.code == 1
    assert answer.err.startswith("swarmctl: no swarmd answers at unix:///nowhere/s: is it running?")


async def test_containers_images_and_networks(api: Api, swarmctl: Run, rootfs: bytes) -> None:
    assert (await swarmctl("image", "import", "-c", 'CMD ["/hello"]', "-", "demo", stdin=rootfs)).code == 0
    assert (await swarmctl("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")).out == "demo:latest\n"
    started = await swarmctl("run", "-d", "--name", "one", "-p", "8080:80", "demo", "sleep", "1")
    assert started.code == 0, started.err
    assert (await swarmctl("ps", "--format", "{{.Names}} {{.Status}}")).out.startswith("one Up ")
    api.engine.lines = [
        LogEntry(at=NOW, stream="stdout", data=b"out\n"),
        LogEntry(at=NOW, stream="stderr", data=b"e\n"),
    ]
    said = await swarmctl("logs", "one")
    assert (said.out, said.err) == ("out\n", "e\n")
    assert (await swarmctl("network", "create", "--subnet", "10.9.0.0/24", "mine")).code == 0
    assert (await swarmctl("network", "connect", "--ip", "10.9.0.7", "--alias", "db", "mine", "one")).code == 0
    joined = NetworkRequest(network="mine", address="10.9.0.7", aliases=("db",))
    assert api.engine.inspect("one").config.networks == (NetworkRequest(network="bridge"), joined)
    again = await swarmctl("network", "connect", "mine", "one")
    assert again.code == 1 and "is on network mine already" in again.err
    assert (await swarmctl("network", "disconnect", "mine", "one")).code == 0
    assert api.engine.inspect("one").config.networks == (NetworkRequest(network="bridge"),)
    assert "is not on network mine" in (await swarmctl("network", "disconnect", "-f", "mine", "one")).err
    assert (await swarmctl("stop", "one")).out == "one\n"
    assert (await swarmctl("rm", "one")).out == "one\n"
    missing = await swarmctl("rm", "one")
    assert (missing.code, missing.err) == (1, "swarmctl: no container one\n")
    assert "Untagged: demo:latest" in (await swarmctl("image", "rm", "demo")).out
    assert "mine" in (await swarmctl("network", "ls")).out
    assert (await swarmctl("network", "rm", "mine")).out == "mine\n"
    absent = await swarmctl("run", "-d", "nothing")
    assert absent.code == 125
    assert "nothing" in absent.err
