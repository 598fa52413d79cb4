"""What a task asks for, what it says nothing of, and what is refused by name."""

from typing import Any
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from swarmd.agent.controller import Refused
from swarmd.agent.task_config import container_config, container_name
from swarmd.proto import objects_pb2 as pb
from swarmd.runtime import effective
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.model import (
    BindMount,
    ContainerConfig,
    Health,
    Limits,
    LogConfig,
    Namespaces,
    NetworkRequest,
    PortMapping,
    TmpfsMount,
    Ulimit,
)

SECOND = 1_000_000_000


def task(container: dict[str, Any]) -> pb.Task:
    return pb.Task(id="t1", spec=pb.TaskSpec(container=pb.ContainerSpec(image="web", **container)))


def test_ids_of_its_own_where_the_node_can_unless_told_otherwise() -> None:
    assert container_config(task({}), "host1", own_ids=True).namespaces.user == "auto"
    assert container_config(task({"userns_mode": "host"}), "host1", own_ids=True).namespaces.user == "host"
    assert container_config(task({"userns_mode": "auto:size=9"}), "host1").namespaces.user == "auto:size=9"


def config(container: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **task: Any) -> ContainerConfig:
    """Of a task, where only what is given differs from the default."""
    container_spec = pb.ContainerSpec(**({"image": "web"} | (container or {})))
    wanted = pb.Task(
        id="t1",
        service_id="s1",
        service_name="web",
        slot=3,
        node_id="n1",
        spec=pb.TaskSpec(container=container_spec, **(spec or {})),
        **task,
    )
    return container_config(wanted, "host1")


def test_the_name_tells_service_slot_and_task() -> None:
    assert container_name(pb.Task(id="t1", service_name="web", slot=3)) == "web.3.t1"


def test_a_task_that_says_nothing_gets_the_defaults() -> None:
    plain = config()
    labels = {
        "com.docker.swarm.node.id": "n1",
        "com.docker.swarm.service.id": "s1",
        "com.docker.swarm.service.name": "web",
        "com.docker.swarm.task": "",
        "com.docker.swarm.task.id": "t1",
        "com.docker.swarm.task.name": "web.3.t1",
    }
    expected = ContainerConfig(image="web", labels=labels, security=plain.security, namespaces=Namespaces(user="host"))
    assert plain == expected
    assert plain.security.no_new_privileges


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("A=1", "A=1"),
        ("A={{.Service.ID}}", "A=s1"),
        ("A={{.Service.Name}}", "A=web"),
        ("A={{.Node.ID}}", "A=n1"),
        ("A={{ .Node.Hostname }}", "A=host1"),
        ("A={{.Task.ID}}", "A=t1"),
        ("A={{.Task.Name}}", "A=web.3.t1"),
        ("A={{.Task.Slot}}-{{.Task.Slot}}", "A=3-3"),
        ("A={.Task.Slot}", "A={.Task.Slot}"),
    ],
)
def test_templates_are_filled(text: str, filled: str) -> None:
    bind = pb.Mount(type="bind", source=text, target="/x")
    found = config({"env": [text], "hostname": text, "mounts": [bind]})
    assert (found.env, found.hostname) == ((filled,), filled)
    assert found.mounts == (BindMount(source=filled, target="/x"),)


@pytest.mark.parametrize("word", ["{{.Service.Label}}", "{{.Task}}", "{{}}", "{{ env }}"])
def test_an_unknown_template_is_named(word: str) -> None:
    with pytest.raises(Refused, match=r"unknown template .*: known are \.Service\.ID, ") as refused:
        config({"env": [f"A={word}"]})
    assert word in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, Health()),
        ({"test": ["NONE"]}, None),
        ({"test": ["CMD", "true"], "interval": 2 * SECOND}, Health(test=("CMD", "true"), interval=2.0)),
        ({"timeout": SECOND // 2, "retries": 1}, Health(timeout=0.5, retries=1)),
        ({"start_period": 9 * SECOND, "start_interval": SECOND}, Health(start_period=9.0, start_interval=1.0)),
    ],
)
def test_a_health_check_has_defaults(asked: dict[str, Any], expected: Health | None) -> None:
    image = Mock(config=ImageConfig(health=Health(test=("CMD", "probe"))))
    found = effective.health(config({"healthcheck": pb.HealthConfig(**asked)}), image)
    assert found == (expected and replace(expected, test=expected.test or ("CMD", "probe")))


def test_limits() -> None:
    limits = pb.Limits(nano_cpus=500_000_000, memory_bytes=64 << 20, pids=7)
    resources = pb.ResourceRequirements(limits=limits, reservations=pb.Resources(memory_bytes=32 << 20))
    assert config(spec={"resources": resources}).limits == Limits(
        nano_cpus=500_000_000, memory=64 << 20, memory_reservation=32 << 20, pids=7
    )


def test_command_and_arguments_replace_those_of_the_image_only_when_given() -> None:
    plain, given = config(), config({"command": ["sh"], "args": ["-c", "true"]})
    assert (plain.entrypoint, plain.command) == (None, None)
    assert (given.entrypoint, given.command) == (("sh",), ("-c", "true"))


@pytest.mark.parametrize(
    ("grace", "seconds"), [({}, 10.0), ({"stop_grace_period": 0}, 0.0), ({"stop_grace_period": SECOND // 4}, 0.25)]
)
def test_grace_period(grace: dict[str, int], seconds: float) -> None:
    assert config(grace).stop_timeout == seconds


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        (
            pb.Mount(type="bind", source="/a", target="/b", read_only=True),
            BindMount(source="/a", target="/b", read_only=True),
        ),
        (
            pb.Mount(
                type="bind",
                source="/a",
                target="/b",
                bind_options=pb.Mount.BindOptions(propagation="rshared", non_recursive=True, create_mountpoint=True),
            ),
            BindMount(source="/a", target="/b", propagation="rshared", recursive=False, create_source=True),
        ),
        (pb.Mount(type="tmpfs", target="/b"), TmpfsMount(target="/b")),
        (
            pb.Mount(type="tmpfs", target="/b", tmpfs_options=pb.Mount.TmpfsOptions(size_bytes=4096, mode=0o700)),
            TmpfsMount(target="/b", size=4096, mode=0o700),
        ),
    ],
)
def test_mounts(mount: pb.Mount, expected: BindMount | TmpfsMount) -> None:
    assert config({"mounts": [mount]}).mounts == (expected,)


def test_a_mount_of_another_type_is_refused() -> None:
    with pytest.raises(Refused, match="mounts of type 'volume' are not available: use bind or tmpfs"):
        config({"mounts": [pb.Mount(type="volume", source="v", target="/v")]})


def test_only_ports_in_host_mode_are_the_containers_own() -> None:
    ports = [
        pb.PortConfig(protocol="tcp", target_port=80, published_port=8080),
        pb.PortConfig(protocol="udp", target_port=53, published_port=5353, publish_mode=pb.PUBLISH_MODE_HOST),
    ]
    assert config(ports=ports).ports == (PortMapping(container_port=53, host_port=5353, protocol="udp"),)


def test_networks() -> None:
    networks = [pb.NetworkAttachment(network_id="net1", addresses=["10.0.1.9/24"], aliases=["www"])]
    assert config(networks=networks).networks == (
        NetworkRequest(network="net1", address="10.0.1.9/24", aliases=("www",)),
    )


@pytest.mark.parametrize(("name", "called"), [("back", "back"), ("", "net2")])
def test_a_network_without_an_address_is_refused(name: str, called: str) -> None:
    networks = [
        pb.NetworkAttachment(network_id="net1", addresses=["10.0.1.9/24"]),
        pb.NetworkAttachment(network_id="net2", network_name=name),
    ]
    with pytest.raises(Refused, match=f"the task has no address on network {called}: "):
        config(networks=networks)


@pytest.mark.parametrize(
    ("privileges", "expected"),
    [({}, True), ({"no_new_privileges": True}, True), ({"no_new_privileges": False}, False)],
)
def test_no_new_privileges_unless_asked_for(privileges: dict[str, bool], expected: bool) -> None:
    assert config({"privileges": pb.Privileges(**privileges)}).security.no_new_privileges is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "profile", "expected"),
    [("", "", "default"), ("default", "", "default"), ("unconfined", "", "unconfined"), ("custom", "{}", "{}")],
)
def test_seccomp(mode: str, profile: str, expected: str) -> None:
    privileges = pb.Privileges(seccomp=pb.Privileges.Seccomp(mode=mode, profile=profile))
    assert config({"privileges": privileges}).security.seccomp == expected


def test_the_rest_is_passed_on_as_it_is() -> None:
    found = config(
        {
            "hosts": ["10.0.0.7 db database", "10.0.0.8 cache"],
            "ulimits": [pb.Ulimit(name="nofile", soft=1, hard=2)],
            "labels": {"a": "b"},
            "capability_add": ["NET_ADMIN"],
            "capability_drop": ["ALL"],
            "sysctls": {"net.core.somaxconn": "9"},
            "read_only": True,
            "init": True,
            "user": "app",
            "dns_config": pb.DNSConfig(nameservers=["10.0.0.1"], search=["lan"], options=["ndots:1"]),
        }
    )
    assert found.extra_hosts == ("db:10.0.0.7", "database:10.0.0.7", "cache:10.0.0.8")
    assert found.ulimits == (Ulimit(name="nofile", soft=1, hard=2),)
    assert found.labels["a"] == "b"
    assert (found.security.cap_add, found.security.cap_drop) == (("NET_ADMIN",), ("ALL",))
    assert (found.security.read_only_root, found.init, found.user) == (True, True, "app")
    assert found.sysctls == {"net.core.somaxconn": "9"}
    assert (found.dns.nameservers, found.dns.search, found.dns.options) == (("10.0.0.1",), ("lan",), ("ndots:1",))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("", {}, LogConfig()),
        ("none", {}, LogConfig(driver="none")),
        ("local", {}, LogConfig(driver="local", compress=True)),
        ("local", {"compress": "false"}, LogConfig(driver="local")),
        ("", {"compress": "true"}, LogConfig(compress=True)),
        ("json-file", {"max-size": "10m", "max-file": "3"}, LogConfig(max_size=10 << 20, max_file=3)),
        ("", {"max-size": "2G"}, LogConfig(max_size=2 << 30)),
        ("", {"max-size": "4096"}, LogConfig(max_size=4096)),
    ],
)
def test_logging(name: str, options: dict[str, str], expected: LogConfig) -> None:
    assert config(spec={"log_driver": pb.Driver(name=name, options=options)}).log == expected


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("splunk", {}, "log driver splunk is not supported: use "),
        ("", {"tags": "x"}, "log option tags is unknown to log driver json-file: it knows compress, env, "),
        ("none", {"mode": "x"}, "log option mode is unknown to log driver none: it has none"),
        ("", {"max-size": "big"}, "log option max-size is 'big': write it as 10m"),
        ("", {"max-file": "0"}, "log option max-file is '0': it is a number from 1 on"),
        ("", {"max-file": "-1"}, "log option max-file is '-1': it is a number from 1 on"),
        ("", {"max-file": "3k"}, "log option max-file is '3k': it is a number from 1 on"),
    ],
)
def test_logging_that_is_not_available_is_refused_by_name(name: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        config(spec={"log_driver": pb.Driver(name=name, options=options)})
    assert str(refused.value).startswith(sentence)
