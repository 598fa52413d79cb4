"""Health checks from a container's network, of real servers: nothing in the image takes part, not even a shell."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from swarmd.runtime import probes
from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import Health, HealthState, Security
from swarmd.runtime.network.netns import Kernel
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]

ADMIN = Security(cap_add=("NET_ADMIN",))  # to set its loopback up: the test's networks leave it down


def health(*test: str) -> Health:
    return Health(test=test, interval=0.1, retries=2, timeout=5)


async def test_http_from_the_containers_network(host: Host) -> None:
    script = "ip link set lo up; mkdir /www; echo fine > /www/ok; exec httpd -f -p 127.0.0.1:8099 -h /www"
    good = await host.start("sh", "-c", script, health=health("HTTP", "http://:8099/ok"), security=ADMIN)
    bad = await host.start("sh", "-c", script, health=health("HTTP", "http://:8099/no"), security=ADMIN)
    await until("healthy", lambda: host.engine.inspect(good).health is HealthState.HEALTHY)
    assert host.engine.inspect(good).health_log[-1].output == "fine\n"
    await until("unhealthy", lambda: host.engine.inspect(bad).health is HealthState.UNHEALTHY)
    assert host.engine.inspect(bad).health_log[-1].output.startswith("answered 404 Not Found")


async def test_tcp_and_the_port_of_another_container(host: Host) -> None:
    script = "ip link set lo up; exec httpd -f -p 127.0.0.1:8098"
    good = await host.start("sh", "-c", script, health=health("TCP", "tcp://:8098"), security=ADMIN)
    bad = await host.start("sh", "-c", "ip link set lo up; sleep 100", health=health("TCP", "tcp://:8098"),
                           security=ADMIN)  # fmt: skip
    await until("healthy", lambda: host.engine.inspect(good).health is HealthState.HEALTHY)
    await until("unhealthy", lambda: host.engine.inspect(bad).health is HealthState.UNHEALTHY)
    assert host.engine.inspect(bad).health_log[-1].output == "health check tcp://:8098: connection refused"


@contextmanager
def grpc_server(pid: int) -> Iterator[int]:
    """Run one in a process's network namespace; yields its port."""
    program = Path(__file__).with_name("grpc_health_server.py")
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


async def test_grpc(host: Host) -> None:
    id = await host.start("sh", "-c", "ip link set lo up; echo up; sleep 100", security=ADMIN)
    await anext(aiter(host.engine.logs(id, follow=True)))
    pid = host.engine.inspect(id).pid
    kernel, pidfd = Kernel(), os.pidfd_open(pid)
    try:
        with grpc_server(pid) as port:
            said = {}
            for service in ("", "/good", "/bad", "/unknown"):
                test = ("GRPC", f"grpc://:{port}{service}")
                said[service] = await probes.run(
                    test, 5.0, lambda family: kernel.run(kernel.socket_inside, pidfd, family), ()
                )
    finally:
        kernel.close()
        os.close(pidfd)
    assert said[""] == said["/good"] == (0, "SERVING")
    assert said["/bad"] == (1, "NOT_SERVING")
    assert said["/unknown"][0] == 1 and "does not know the service 'unknown'" in said["/unknown"][1]


async def test_what_is_not_a_probe_is_refused_when_the_container_is_made(host: Host) -> None:
    with pytest.raises(Invalid, match="is not of the form HTTP"):
        await host.make("sleep", "1", health=health("HTTP", "ftp://:80/"))
