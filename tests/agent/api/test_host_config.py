"""HostConfig read and shown again; refusals name the field or the value."""

from typing import Any

import pytest

from swarmd.agent.api import host_config
from swarmd.agent.api.container_config import container_config
from swarmd.proto.errors import Invalid
from swarmd.runtime.errors import NotFound
from swarmd.runtime.model import BindMount, ContainerConfig, ContainerState, DeviceRule, Phase, TmpfsMount

ALL: dict[str, Any] = {
    "Binds": ["/a:/b:ro", "/c:/d:rshared"],
    "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
    "AutoRemove": False,
    "ConsoleSize": [40, 100],
    "Annotations": {"a": "b"},
    "CapAdd": ["NET_ADMIN"],
    "CapDrop": ["CHOWN"],
    "CgroupnsMode": "host",
    "Dns": ["1.1.1.1"],
    "DnsOptions": ["ndots:1"],
    "DnsSearch": ["x"],
    "ExtraHosts": ["h:1.2.3.4"],
    "GroupAdd": ["5"],
    "IpcMode": "shareable",
    "OomScoreAdj": 7,
    "PidMode": "host",
    "Privileged": False,
    "PublishAllPorts": True,
    "ReadonlyRootfs": True,
    "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
    "UTSMode": "host",
    "UsernsMode": "auto",
    "TimeOffsets": {"Monotonic": 1_500_000_000, "Boottime": 0},
    "ShmSize": 1 << 20,
    "Sysctls": {"net.core.somaxconn": "1"},
    "Runtime": "crun",
    "Init": True,
    "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
    "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/f", "CgroupPermissions": "r"}],
    "DeviceCgroupRules": ["c 10:* rwm"],
    "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["a.b/c=d"]}],
    "MaskedPaths": [],
    "ReadonlyPaths": ["/proc/x"],
    "NanoCpus": 5 * 10**8,
    "CpuShares": 3,
    "CpusetCpus": "0",
    "Memory": 64 << 20,
    "MemorySwap": -1,
    "MemorySwappiness": 10,
    "OomKillDisable": True,
    "PidsLimit": 9,
    "BlkioWeight": 100,
    "BlkioDeviceReadBps": [{"Path": "/dev/x", "Rate": 4}],
    "Mounts": [
        {
            "Type": "bind",
            "Source": "/e",
            "Target": "/f",
            "ReadOnly": True,
            "BindOptions": {"Propagation": "rslave", "NonRecursive": True, "ReadOnlyNonRecursive": True},
        },
        {"Type": "image", "Source": "i", "Target": "/g", "ReadOnly": True, "ImageOptions": {"Subpath": "s"}},
        {
            "Type": "tmpfs",
            "Target": "/h",
            "ReadOnly": False,
            "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o700, "Options": [["exec"], ["uid", "3"]]},
        },
    ],
    "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
}


def nobody(ref: str) -> ContainerState:
    raise NotFound(f"no such container: {ref}")


def config(body: dict[str, Any] | None = None, **host: Any) -> ContainerConfig:
    return container_config({"Image": "i", "HostConfig": host, **(body or {})}, nobody)


def test_everything_that_is_read_is_shown_again() -> None:
    shown = host_config.shown(config(**ALL))
    assert {name: shown[name] for name in ALL} == ALL


def test_limits_and_rules() -> None:
    assert config(DeviceCgroupRules=["a *:* m"]).device_rules == (
        DeviceRule(kind="a", major=None, minor=None, access="m"),
    )
    assert config(MemorySwappiness=-1).limits.swappiness is None
    assert config(PidsLimit=-1).limits.pids == 0


def test_options_whose_values_have_colons_and_ranges_of_ports() -> None:
    profile = '{"defaultAction":"SCMP_ACT_ALLOW"}'
    assert config(SecurityOpt=[f"seccomp={profile}"]).security.seccomp == profile
    assert config(SecurityOpt=["no-new-privileges:true"]).security.no_new_privileges
    bindings = {"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}
    (port,) = config(PortBindings=bindings).ports
    assert (port.host_port, port.host_port_end) == (8000, 8010)
    assert host_config.bindings((port,)) == bindings


def test_links_are_one_list_wherever_they_are_given() -> None:
    endpoints = {"n": {"Links": ["db:database", "/cache"]}}
    found = config({"NetworkingConfig": {"EndpointsConfig": endpoints}}, NetworkMode="n", Links=["db:database"])
    assert [(link.container, link.alias) for link in found.links] == [("db", "database"), ("cache", "cache")]
    assert host_config.shown(found)["Links"] == ["db:database", "cache:cache"]


@pytest.mark.parametrize("mode", ["none", "host", "container:x"])
def test_an_address_without_a_network_of_its_own(mode: str) -> None:
    with pytest.raises(Invalid, match=f"network {mode} gives no address"):
        config({"MacAddress": "02:00:00:00:00:02"}, NetworkMode=mode)


def test_volumes_are_refused_unless_they_are_targets_of_mounts() -> None:
    assert len(config({"Volumes": {"/m": {}, "/t/": {}}}, Binds=["/here:/m/"], Tmpfs={"/t": ""}).mounts) == 2
    with pytest.raises(Invalid, match="volume /other: there are no volumes yet"):
        config({"Volumes": {"/m": {}, "/other": {}}}, Binds=["/here:/m"])


def test_what_is_exposed_is_only_said() -> None:
    body = {"ExposedPorts": {"80/sctp": {}, "90/TCP": {}}}
    assert config(body).exposed == ("80/sctp", "90/tcp")


def test_an_entrypoint_is_taken_away_by_an_empty_word() -> None:
    assert [config({"Entrypoint": given}).entrypoint for given in ([""], "", None, ["x"])] == [(), (), None, ("x",)]


def test_mounts_of_another_container_but_for_what_one_has_oneself() -> None:
    theirs = (BindMount(source="/x", target="/a"), TmpfsMount(target="/b"))
    other = ContainerState(
        id="1", name="o", config=ContainerConfig(image="i", mounts=theirs), image_id="i", phase=Phase.CREATED, created=0
    )
    body = {"Image": "i", "HostConfig": {"VolumesFrom": ["o:ro"], "Binds": ["/y:/b"]}}
    mounts = container_config(body, {"o": other}.__getitem__).mounts
    assert [(mount.target, mount.read_only) for mount in mounts] == [("/a", True), ("/b", False)]


def test_networks() -> None:
    endpoints = {"n": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Aliases": ["a"], "MacAddress": "02:00:00:00:00:01"}}
    (request,) = config({"NetworkingConfig": {"EndpointsConfig": endpoints}}, NetworkMode="n").networks
    assert (request.network, request.address, request.mac) == ("n", "10.0.0.9", "02:00:00:00:00:01")
    assert config(NetworkMode="container:x").network_mode == "container:x"
    assert config({"NetworkDisabled": True}).network_mode == "none"
    assert config({"MacAddress": "02:00:00:00:00:02"}).networks[0].mac == "02:00:00:00:00:02"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ({"Links": [":b"]}, "':b' names no container"),
        ({"CgroupParent": "/x"}, "HostConfig.CgroupParent"),
        ({"StorageOpt": {"size": "1g"}}, "HostConfig.StorageOpt"),
        ({"SecurityOpt": ["label=type:x"]}, "label=type:x"),
        ({"DeviceCgroupRules": ["c 1 r"]}, "c 1 r"),
        ({"Devices": [{"PathOnHost": "/x", "CgroupPermissions": "q"}]}, "'q'"),
        ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}}, "no maximum"),
        ({"Annotations": {"swarmd.user": "x"}}, "swarmd.user"),
        ({"Binds": ["name:/x"]}, "named volumes"),
        ({"Binds": ["/x:/y:nope"]}, "nope"),
        ({"Tmpfs": {"/t": "mode=9"}}, "octal"),
        ({"PortBindings": {"0/tcp": None}}, "0/tcp"),
        ({"PortBindings": {"80/sctp": None}}, "only tcp and udp"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "9000-8000"}]}}, "'9000-8000'"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "70000"}]}}, "'70000'"),
        ({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/v"}]}, "there are no volumes yet"),
        ({"VolumesFrom": ["gone"]}, "gone"),
        ({"VolumesFrom": ["x:q"]}, "ro or rw"),
        ({"ConsoleSize": [1]}, "ConsoleSize"),
    ],
)
def test_refused_by_name(host: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        config(**host)
