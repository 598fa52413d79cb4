from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from swarmd.runtime import checks, effective, etc_files, spec
from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.model import (
    BindMount,
    ContainerConfig,
    Dns,
    Health,
    NetworkState,
    PortMapping,
    Security,
    TmpfsMount,
    Ulimit,
)


@dataclass
class AnImage:
    config: ImageConfig = field(default_factory=ImageConfig)
    id: str = "sha256:1"
    layers: tuple[Path, ...] = (Path("/base"), Path("/top"))


@dataclass
class ASandbox:
    netns_path: str = "/run/netns/x"
    networks: tuple[NetworkState, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    nameservers: tuple[str, ...] = ("10.0.0.1",)
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()


IMAGE = AnImage(ImageConfig(entrypoint=("run",), cmd=("it",), env=("A=image", "B=image"), workdir="/w"))


def config(**changes: Any) -> ContainerConfig:
    return ContainerConfig(image="an-image", **changes)


def built(**changes: Any) -> dict[str, Any]:
    given = spec.Given(sandbox=ASandbox(), procs=["/cg/cgroup.procs"])
    return spec.build("f" * 64, Path("/c"), config(**changes), IMAGE, given)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("run", "it")),
        ({"command": ("that",)}, ("run", "that")),
        ({"entrypoint": ("go",)}, ("go",)),
        ({"entrypoint": (), "command": ("only",)}, ("only",)),
    ],
)
def test_arguments(changes: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert effective.arguments(config(**changes), IMAGE) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entrypoint": ()}, "names no command"),
        ({"stop_signal": "SIGNOPE"}, "signal SIGNOPE is not known"),
        ({"security": Security(cap_add=("nope",))}, "capability CAP_NOPE"),
        ({"sysctls": {"vm.swappiness": "1"}}, "sysctl vm.swappiness"),
        ({"sysctls": {"net.x": "1"}, "network_mode": "host"}, "sysctl net.x"),
        ({"ulimits": (Ulimit(name="nope", soft=1, hard=1),)}, "ulimit nope"),
        ({"ulimits": (Ulimit(name="nofile", soft=2, hard=1),)}, "soft limit 2 is above"),
        ({"mounts": (TmpfsMount(target="relative"),)}, "mount target 'relative'"),
        ({"mounts": (TmpfsMount(target="/"),)}, "mount target '/'"),
        ({"mounts": (BindMount(source="relative", target="/x"),)}, "mount source 'relative'"),
        ({"restart": "sometimes"}, "restart policy sometimes"),
        ({"command": ("echo", "a\0b")}, "command of .* can't hold a NUL character"),
        ({"env": ("A=\0",)}, "environment of .* can't hold a NUL character"),
        ({"workdir": "/a\0"}, "working directory of .* can't hold a NUL character"),
        ({"mounts": (TmpfsMount(target="/a\0"),)}, "mounts of .* can't hold a NUL character"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        checks.check(config(**changes), IMAGE)


def test_environment_of_the_container_wins() -> None:
    env = built(env=("B=container", "C=container"), hostname="here")["process"]["env"]
    assert {"A=image", "B=container", "C=container", "HOSTNAME=here"} <= set(env)
    assert len(env) == len({entry.partition("=")[0] for entry in env})


def test_capabilities() -> None:
    assert "CAP_SYS_ADMIN" not in effective.capabilities(config())
    assert effective.capabilities(config(security=Security(cap_drop=("ALL",), cap_add=("net_raw",)))) == {"CAP_NET_RAW"}
    assert "CAP_CHOWN" not in effective.capabilities(config(security=Security(cap_drop=("CHOWN",))))
    assert "CAP_BPF" in effective.capabilities(config(security=Security(privileged=True)))


def test_mounts_of_parents_come_first() -> None:
    mounts = built(mounts=(TmpfsMount(target="/a/b/c"), TmpfsMount(target="/a")))["mounts"]
    targets = [mount["destination"] for mount in mounts]
    assert targets[0] == "/proc"
    assert targets[-2:] == ["/a", "/a/b/c"]


def test_layers_are_given_topmost_first() -> None:
    assert built()["annotations"]["swarmd.overlay.lower"] == '["/top", "/base"]'


def test_health_of_the_image_is_inherited_refined_or_turned_off() -> None:
    image = AnImage(ImageConfig(cmd=("x",), health=Health(test=("CMD", "probe"), interval=9.0, retries=7)))
    assert effective.health(config(), image) == image.config.health
    asked = Health(interval=0.0, timeout=0.0, retries=1, start_interval=0.0)
    refined = effective.health(config(health=asked), image)
    assert refined == Health(test=("CMD", "probe"), interval=9.0, retries=1)
    assert effective.health(config(health=Health(test=("NONE",))), image) is None
    assert effective.health(config(), IMAGE) is None


def test_hosts_and_resolvers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etc_files, "_host_resolv_conf", lambda: "nameserver 9.9.9.9\n")
    sandbox = ASandbox(hosts=(("10.0.0.9", ("db", "d")),))
    hosts = etc_files.hosts(config(extra_hosts=("six:fd00::1",)), sandbox)
    assert {"10.0.0.9\tdb d", "fd00::1\tsix"} <= set(hosts.splitlines())
    assert etc_files.resolv_conf(config(), sandbox) == "nameserver 10.0.0.1\n"
    dns = Dns(nameservers=("1.2.3.4",), search=("a", "b"), options=("ndots:0",))
    assert etc_files.resolv_conf(config(dns=dns), sandbox) == "nameserver 1.2.3.4\nsearch a b\noptions ndots:0\n"
    monkeypatch.setattr(etc_files, "_host_resolv_conf", lambda: "search old\n#\nsearch corp.example\noptions rotate\n")
    assert etc_files.resolv_conf(config(), sandbox) == ("nameserver 10.0.0.1\nsearch corp.example\noptions rotate\n")
    assert etc_files.resolv_conf(config(dns=Dns(search=(".",), options=("x",))), sandbox) == (
        "nameserver 10.0.0.1\noptions x\n"
    )


def test_names_in_etc_hosts() -> None:
    for given, names in (
        ({"hostname": "web"}, ("web",)),
        ({"hostname": "web", "domainname": "example.com"}, ("web.example.com", "web")),
        ({"hostname": "web.example.com"}, ("web.example.com", "web")),
        ({}, ("0123456789ab",)),
    ):
        assert effective.host_names("0123456789abcdef", config(**given)) == names


def test_of_all_that_an_image_exposes_what_can_be_a_port_is_published() -> None:
    odd = AnImage(
        ImageConfig(exposed_ports=("80/tcp", "53/UDP", "abc/xyz", "99999/tcp", "/tcp", "0", "70/sctp", "²/tcp"))
    )
    found = effective.ports(config(publish_all=True), odd)
    assert [(port.container_port, port.protocol) for port in found] == [(80, "tcp"), (53, "udp")]
