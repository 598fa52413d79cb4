"""Docker's own clients against the API: docker-py, and the docker command where it is installed."""

import asyncio
import shutil
from collections.abc import Iterator

import docker
import pytest

from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.clock import timestamp
from swarmd.runtime.model import LogEntry
from tests.agent.api.conftest import Api
from tests.agent.api.fakes import NOW
from tests.docker_py import use

needs_docker = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")


async def run(api: Api, *words: str, stdin: bytes = b"", code: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        "docker", "-H", f"unix://{api.socket}", *words,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(stdin)
    assert process.returncode == code, f"docker {' '.join(words)}: {err.decode()}{out.decode()}"
    return (out + err).decode()


@pytest.fixture
def client(api: Api) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=f"unix://{api.socket}", version="1.44")
    yield client
    client.close()


def running(api: Api, service_id: str, slot: int) -> pb.Task:
    """A task that runs; returns it."""
    node = next(obj.node for (kind, _), obj in api.membership.cluster.objects.items() if kind == "node")
    service = api.membership.cluster.objects["service", service_id].service
    task = pb.Task(
        service_id=service_id, slot=slot, node_id=node.id, desired_state=pb.TASK_STATE_RUNNING, spec=service.spec.task
    )
    task.status.state = pb.TASK_STATE_RUNNING
    task.status.timestamp.CopyFrom(timestamp(NOW))
    return api.membership.cluster.put(pb.Object(task=task)).task


@needs_docker
async def test_the_docker_command_runs_a_cluster(api: Api) -> None:
    assert "is now a manager" in await run(api, "swarm", "init", "--advertise-addr", "10.0.0.1")
    assert "SWMTKN-worker 10.0.0.1:2377" in await run(api, "swarm", "join-token", "worker")
    assert "new-worker_token" in await run(api, "swarm", "join-token", "--rotate", "worker")
    nodes = await run(api, "node", "ls")
    assert "host1" in nodes
    assert "Leader" in nodes
    assert "0.1.0" in nodes
    await run(api, "network", "create", "-d", "overlay", "front")
    id = (
        await run(
            api, "service", "create", "-d", "-q", "--name", "web", "--replicas", "2", "-p", "8080:80",
            "--health-cmd", "true", "--limit-memory", "64m", "--constraint", "node.role==manager", "--network", "front",
            "--mount", "type=bind,src=/a,dst=/b", "--no-resolve-image", "demo", "sleep", "1",
        )
    ).split()[0]  # fmt: skip
    task = running(api, id, 1)
    assert "1/2" in await run(api, "service", "ls")
    assert "web.1" in await run(api, "service", "ps", "web")
    pretty = await run(api, "service", "inspect", "--pretty", "web")
    assert "PublishedPort = 8080" in pretty
    assert "sleep 1" in pretty
    await run(api, "service", "scale", "-d", "web=5")
    assert api.membership.cluster.objects["service", id].service.spec.mode.replicated.replicas == 5
    await run(api, "service", "update", "-d", "-q", "--env-add", "A=b", "--no-resolve-image", "web")
    assert api.membership.cluster.objects["service", id].service.spec.task.container.env == ["A=b"]
    await run(api, "service", "rollback", "-d", "web")
    api.membership.cluster.entries = [
        control_pb.LogEntry(
            service_id=id, task_id=task.id, node_id=task.node_id, timestamp=timestamp(NOW), data=b"hello\n"
        )
    ]
    logs = await run(api, "service", "logs", "web")
    assert f"web.1.{task.id[:12]}@host1" in logs
    assert "| hello" in logs
    await run(api, "node", "update", "--availability", "drain", task.node_id)
    assert "Drain" in await run(api, "node", "ls")
    await run(api, "service", "rm", "web")
    await run(api, "swarm", "leave", "--force")
    assert "not a swarm manager" in await run(api, "service", "ls", code=1)


@needs_docker
async def test_the_docker_command_runs_containers(api: Api, rootfs: bytes) -> None:
    await run(api, "import", "-c", 'CMD ["/hello"]', "-", "demo", stdin=rootfs)
    assert "demo" in await run(api, "images")
    id = (
        await run(api, "run", "-d", "--name", "one", "-p", "8080:80", "-v", "/tmp:/t:ro", "demo", "sleep", "1")
    ).strip()
    config = api.engine.inspect("one").config
    assert config.command == ("sleep", "1")
    assert config.ports[0].host_port == 8080
    assert (config.network_mode, config.networks) == ("bridge", ())
    assert "one" in await run(api, "ps")
    api.engine.lines = [
        LogEntry(at=NOW, stream="stdout", data=b"out\n"),
        LogEntry(at=NOW, stream="stderr", data=b"err\n"),
    ]
    assert await run(api, "logs", "one") == "out\nerr\n"
    assert await run(api, "exec", "one", "ls", "-l", code=3) == "ls -loops"
    assert "one" in await run(api, "inspect", "one")
    assert "is used by container one" in await run(api, "rmi", "demo", code=1)
    await run(api, "stop", "one")
    assert "Exited (143)" in await run(api, "ps", "-a", "-f", f"id={id}")
    await run(api, "rm", "one")
    await run(api, "rmi", "demo")
    assert "demo" not in await run(api, "images")
    assert "bridge" in await run(api, "network", "ls")
    await run(api, "network", "create", "--subnet", "10.9.0.0/24", "--attachable", "mine")
    assert "10.9.0.0/24" in await run(api, "network", "inspect", "mine")
    await run(api, "network", "rm", "mine")
    assert "Swarm: inactive" in await run(api, "info")
    assert "swarmd" in await run(api, "version")


@needs_docker
async def test_what_the_docker_command_asks_and_we_have_not_is_named(api: Api, rootfs: bytes) -> None:
    await run(api, "import", "-", "demo", stdin=rootfs)
    assert "HostConfig.CgroupParent" in await run(api, "create", "--cgroup-parent", "x", "demo", "x", code=1)
    assert "HostConfig.StorageOpt" in await run(api, "create", "--storage-opt", "size=1g", "demo", "x", code=1)
    assert "VOLUME NAME" in await run(api, "volume", "ls")
    assert "Total reclaimed space: 0B" in await run(api, "system", "prune", "-f", "--volumes")
    assert "volumes are not available yet" in await run(api, "volume", "create", "data", code=1)
    assert "no such volume: data" in await run(api, "volume", "inspect", "data", code=1)
    await run(api, "swarm", "init")
    refused = await run(api, "service", "create", "-d", "--mode", "global", "--no-resolve-image", "demo", code=1)
    assert "unknown or unsupported field Mode.Global" in refused


async def test_docker_py(api: Api, client: docker.DockerClient, rootfs: bytes) -> None:
    def work() -> None:
        client.swarm.init(advertise_addr="10.0.0.1")
        assert client.swarm.attrs["JoinTokens"]["Worker"] == "SWMTKN-worker"
        assert client.nodes.list()[0].attrs["Description"]["Hostname"] == "host1"
        ports = docker.types.EndpointSpec(ports={8080: 80})
        service = client.services.create(
            "demo", ["sleep", "1"], name="web", env=["A=b"], endpoint_spec=ports,
            mode=docker.types.ServiceMode("replicated", replicas=3),
            restart_policy=docker.types.RestartPolicy("on-failure", delay=1),
            update_config=docker.types.UpdateConfig(parallelism=2),
        )  # fmt: skip
        assert [service.name for service in client.services.list()] == ["web"]
        assert service.scale(4)
        service.reload()
        assert service.attrs["Spec"]["Mode"] == {"Replicated": {"Replicas": 4}}
        assert service.tasks() == []
        service.remove()
        client.api.import_image_from_data(rootfs, repository="demo", tag="v1")
        assert client.images.get("demo:v1").tags == ["demo:v1"]
        container = client.containers.run("demo:v1", ["sleep", "1"], name="two", detach=True, mem_limit="32m")
        assert container.exec_run("ls").exit_code == 3
        assert container.exec_run("ls").output == b"lsoops"
        assert [found.name for found in client.containers.list()] == ["two"]
        container.remove(force=True)

    await asyncio.to_thread(use, work)
    assert api.engine.list() == ()
