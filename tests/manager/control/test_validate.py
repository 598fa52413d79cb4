"""Each rule of a spec: what it refuses, and that it says what is allowed."""

from collections.abc import Callable

import pytest

from swarmd.manager.control.validate_network import validate_network
from swarmd.manager.control.validate_service import validate_service
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.errors import Invalid


def spec() -> pb.ServiceSpec:
    made = pb.ServiceSpec(name="web", task=pb.TaskSpec(container=pb.ContainerSpec(image="demo:1")))
    made.mode.replicated.replicas = 2
    return made


def container(**fields: object) -> Callable[[pb.ServiceSpec], None]:
    return lambda s: s.task.container.MergeFrom(pb.ContainerSpec(**fields))  # type: ignore[arg-type]


def ports(*wanted: pb.PortConfig) -> Callable[[pb.ServiceSpec], None]:
    return lambda s: s.endpoint.ports.extend(wanted)


def port(target: int = 80, published: int = 8080, protocol: str = "tcp") -> pb.PortConfig:
    return pb.PortConfig(target_port=target, published_port=published, protocol=protocol)


def resources(
    limit: pb.Limits | None = None, reservation: pb.Resources | None = None
) -> Callable[[pb.ServiceSpec], None]:
    return lambda s: s.task.resources.MergeFrom(pb.ResourceRequirements(limits=limit, reservations=reservation))


def logs(driver: str = "", **options: str) -> Callable[[pb.ServiceSpec], None]:
    return lambda s: s.task.log_driver.MergeFrom(pb.Driver(name=driver, options=options))


REFUSED: list[tuple[str, Callable[[pb.ServiceSpec], None]]] = [
    ("needs a name", lambda s: s.ClearField("name")),
    ("service name 'a b'", lambda s: s.MergeFrom(pb.ServiceSpec(name="a b"))),
    ("too long", lambda s: s.MergeFrom(pb.ServiceSpec(name="a" * 64))),
    ("needs an image", lambda s: s.task.container.ClearField("image")),
    ("image 'Demo'", container(image="Demo")),
    ("image 'a:b:c'", container(image="a:b:c")),
    ("'=x' has no name", container(env=["=x"])),
    ("hostname 'a b'", container(hostname="a b")),
    ("'srv' is not absolute", container(dir="srv")),
    ("grace period is negative", container(stop_grace_period=-1)),
    ("'SIGNOPE' is not a signal", container(stop_signal="SIGNOPE")),
    ("begins with NONE, CMD", container(healthcheck=pb.HealthConfig(test=["curl"]))),
    ("is not of the form HTTP http://", container(healthcheck=pb.HealthConfig(test=["HTTP", "http://a.b:80/"]))),
    ("is not of the form TCP tcp://", container(healthcheck=pb.HealthConfig(test=["TCP"]))),
    ("has no command", container(healthcheck=pb.HealthConfig(test=["CMD-SHELL"]))),
    ("interval is too short", container(healthcheck=pb.HealthConfig(interval=10))),
    ("mount type 'volume'", container(mounts=[pb.Mount(type="volume", target="/a")])),
    ("target 'a' is not an absolute", container(mounts=[pb.Mount(type="tmpfs", target="a")])),
    ("source 'x' is not an absolute", container(mounts=[pb.Mount(type="bind", source="x", target="/a")])),
    ("two mounts", container(mounts=[pb.Mount(type="tmpfs", target="/a")] * 2)),
    ("host entry", container(hosts=["name 1.2.3.4"])),
    ("DNS server 'x'", container(dns_config=pb.DNSConfig(nameservers=["x"]))),
    ("at least 4 MiB", resources(pb.Limits(memory_bytes=1000))),
    ("at least 0.001", resources(pb.Limits(nano_cpus=1))),
    ("above the limit", resources(pb.Limits(memory_bytes=8 << 20), pb.Resources(memory_bytes=9 << 20))),
    ("restart delay is negative", lambda s: s.task.restart.MergeFrom(pb.RestartPolicy(delay=-1))),
    ("constraint 'zone'", lambda s: s.task.placement.constraints.append("zone")),
    ("update monitor is negative", lambda s: s.update.MergeFrom(pb.UpdateConfig(monitor=-1))),
    ("not between 0 and 1", lambda s: s.update.MergeFrom(pb.UpdateConfig(max_failure_ratio=2))),
    ("target port 0", ports(port(target=0))),
    ("published port 70000", ports(port(published=70000))),
    ("published twice", ports(port(), port(target=81))),
    ("protocol 'sctp'", ports(port(protocol="sctp"))),
    ("replicas", lambda s: s.mode.MergeFrom(pb.ServiceMode(replicated=pb.ReplicatedMode(replicas=2**60)))),
    ("log driver 'sys log' is no name", logs("sys log")),
    ("log option 'Tag=' is no name", logs(**{"Tag=": "x"})),
]


@pytest.mark.parametrize(("sentence", "change"), REFUSED, ids=[sentence for sentence, _ in REFUSED])
def test_refused(sentence: str, change: Callable[[pb.ServiceSpec], None]) -> None:
    wanted = spec()
    change(wanted)
    with pytest.raises(Invalid, match=sentence):
        validate_service(wanted)


@pytest.mark.parametrize("image", ["demo", "demo:1.0", "host:5000/a/b-c__d:V1", "a@sha256:" + "0" * 64, "localhost/x"])
def test_images_as_they_are_written(image: str) -> None:
    wanted = spec()
    wanted.task.container.image = image
    validate_service(wanted)


@pytest.mark.parametrize("size", ["4096", "10m", "2G"])
def test_log_options_as_they_are_written(size: str) -> None:
    wanted = spec()
    logs("json-file", **{"max-size": size, "max-file": "3"})(wanted)
    validate_service(wanted)


def test_the_same_port_for_both_protocols_is_fine() -> None:
    wanted = spec()
    wanted.endpoint.ports.extend([port(), port(protocol="udp"), port(published=0), port(target=81, published=0)])
    validate_service(wanted)


@pytest.mark.parametrize(
    ("sentence", "network"),
    [
        ("needs a name", pb.NetworkSpec(driver="overlay")),
        ("not supported across", pb.NetworkSpec(name="n", driver="bridge")),
        ("CIDR form", pb.NetworkSpec(name="n", driver="overlay", ipam=[pb.IPAMConfig(subnet="10.0.0.1/24")])),
        ("too small", pb.NetworkSpec(name="n", driver="overlay", ipam=[pb.IPAMConfig(subnet="10.0.0.0/30")])),
    ],
)
def test_networks_refused(sentence: str, network: pb.NetworkSpec) -> None:
    with pytest.raises(Invalid, match=sentence):
        validate_network(network)
