"""What each flag of `run` and `create` becomes in the body of POST /containers/create."""

import json
from pathlib import Path
from typing import Any

import pytest

from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.container_body import body
from swarmd.swarmctl.main import find


def made(*words: str, detach: bool = True) -> dict[str, Any]:
    line = ["run", *words, "demo", "sleep", "--of=its", "own"]
    return body(find(line).parse_args(line), detach=detach)


HOST: list[tuple[str, dict[str, Any]]] = [
    (
        "-m 64m --memory-swap -1 --memory-reservation 32m",
        {"Memory": 64 << 20, "MemorySwap": -1, "MemoryReservation": 32 << 20},
    ),
    ("--cpus 1.5 -c 512 --cpuset-cpus 0,1", {"NanoCpus": 1_500_000_000, "CpuShares": 512, "CpusetCpus": "0,1"}),
    ("--pids-limit=-1 --oom-score-adj -500", {"PidsLimit": -1, "OomScoreAdj": -500}),
    ("--ulimit nofile=1024:2048", {"Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}]}),
    ("--blkio-weight-device /dev/sda:200", {"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 200}]}),
    ("--device-read-bps /dev/sda:1m", {"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1 << 20}]}),
    ("--device-write-iops /dev/sda:9", {"BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 9}]}),
    ("--cap-add NET_ADMIN --cap-drop ALL", {"CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"]}),
    ("--privileged --init=true --read-only", {"Privileged": True, "Init": True, "ReadonlyRootfs": True}),
    ("--privileged --privileged=false", {}),
    ("--rm", {"AutoRemove": True}),
    ("--restart on-failure:3", {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}),
    (
        "--device /dev/fuse:rw",
        {"Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rw"}]},
    ),
    (
        "--device /dev/a:/dev/b",
        {"Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rwm"}]},
    ),
    ("--device vendor.com/gpu=all", {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/gpu=all"]}]}),
    (
        "--gpus device=0,1",
        {
            "DeviceRequests": [
                {"Driver": "", "Count": 0, "DeviceIDs": ["0", "1"], "Capabilities": [["gpu"]], "Options": {}}
            ]
        },
    ),
    (
        "--gpus all",
        {"DeviceRequests": [{"Driver": "", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}]},
    ),
    ("--tmpfs /t:size=1m --tmpfs /u", {"Tmpfs": {"/t": "size=1m", "/u": ""}}),
    ("-v /a:/b:ro -v data:/d", {"Binds": ["/a:/b:ro", "data:/d"]}),
    (
        "--mount type=bind,src=/a,dst=/b,ro,bind-propagation=rslave,bind-recursive=disabled",
        {
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/a",
                    "Target": "/b",
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rslave", "NonRecursive": True},
                }
            ]
        },
    ),
    (
        "--mount source=v,target=/v,volume-nocopy,volume-driver=local,volume-opt=type=nfs,volume-label=a=b",
        {
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": "v",
                    "Target": "/v",
                    "VolumeOptions": {
                        "NoCopy": True,
                        "DriverConfig": {"Name": "local", "Options": {"type": "nfs"}},
                        "Labels": {"a": "b"},
                    },
                }
            ]
        },
    ),
    (
        "--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777",
        {"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}}]},
    ),
    (
        "--log-driver json-file --log-opt max-size=1m",
        {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}},
    ),
    ("--log-opt max-file=2", {"LogConfig": {"Type": "", "Config": {"max-file": "2"}}}),
    (
        "--security-opt no-new-privileges --security-opt label:disable",
        {"SecurityOpt": ["no-new-privileges", "label=disable"]},
    ),
    ("--security-opt systempaths=unconfined", {"MaskedPaths": [], "ReadonlyPaths": []}),
    ("--add-host db:10.0.0.9 --add-host six=[::1]", {"ExtraHosts": ["db:10.0.0.9", "six:::1"]}),
    (
        "--dns 1.1.1.1 --dns-option ndots:2 --dns-search lan",
        {"Dns": ["1.1.1.1"], "DnsOptions": ["ndots:2"], "DnsSearch": ["lan"]},
    ),
    (
        "--sysctl net.core.somaxconn=9 --annotation a=b",
        {"Sysctls": {"net.core.somaxconn": "9"}, "Annotations": {"a": "b"}},
    ),
    (
        "--ipc host --pid container:x --uts host --userns auto:size=4096 --cgroupns private",
        {
            "IpcMode": "host",
            "PidMode": "container:x",
            "UTSMode": "host",
            "UsernsMode": "auto:size=4096",
            "CgroupnsMode": "private",
        },
    ),
    (
        "--time-offset monotonic=1h --time-offset boottime=-1s",
        {"TimeOffsets": {"Monotonic": 3600 * 10**9, "Boottime": -(10**9)}},
    ),
    ("--network back", {"NetworkMode": "back"}),
    ("--memory-swappiness 0 --stop-timeout 3", {"MemorySwappiness": 0}),
    (
        "--volumes-from other:ro --group-add 9 -P",
        {"VolumesFrom": ["other:ro"], "GroupAdd": ["9"], "PublishAllPorts": True},
    ),
]


@pytest.mark.parametrize(("words", "host"), HOST, ids=[words for words, _ in HOST])
def test_host_config(words: str, host: dict[str, Any]) -> None:
    found = made(*words.split())
    assert found["HostConfig"] == host
    assert (found["Image"], found["Cmd"]) == ("demo", ["sleep", "--of=its", "own"])


CONFIG: list[tuple[str, dict[str, Any]]] = [
    ("-it", {"Tty": True, "OpenStdin": True}),
    (
        "-h box --domainname lan -u 1:2 -w /w",
        {"Hostname": "box", "Domainname": "lan", "User": "1:2", "WorkingDir": "/w"},
    ),
    ("-e A=b -e NOWHERE_SET -lx=y -l z", {"Env": ["A=b", "NOWHERE_SET"], "Labels": {"x": "y", "z": ""}}),
    ("--entrypoint /run", {"Entrypoint": ["/run"]}),
    ("--entrypoint=", {"Entrypoint": [""]}),
    ("-v /data", {"Volumes": {"/data": {}}}),
    ("--stop-signal KILL --stop-timeout -1", {"StopSignal": "KILL", "StopTimeout": -1}),
    ("--expose 80-81/udp", {"ExposedPorts": {"80/udp": {}, "81/udp": {}}}),
    ("--health-interval 1m30s --health-retries 2", {"Healthcheck": {"Interval": 90 * 10**9, "Retries": 2}}),
    ("--health-cmd true", {"Healthcheck": {"Test": ["CMD-SHELL", "true"]}}),
    ("--health-probe http://:8080/path", {"Healthcheck": {"Test": ["HTTP", "http://:8080/path"]}}),
    ("--health-probe tcp://:5432", {"Healthcheck": {"Test": ["TCP", "tcp://:5432"]}}),
    ("--health-probe grpc://:50051/service", {"Healthcheck": {"Test": ["GRPC", "grpc://:50051/service"]}}),
    ("--no-healthcheck", {"Healthcheck": {"Test": ["NONE"]}}),
]


@pytest.mark.parametrize(("words", "config"), CONFIG, ids=[words for words, _ in CONFIG])
def test_config(words: str, config: dict[str, Any]) -> None:
    found = made(*words.split())
    assert {key: found[key] for key in found if key not in ("Image", "Cmd", "HostConfig")} == config


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("8080:80", {"80/tcp": [("", "8080")]}),
        ("80", {"80/tcp": [("", "")]}),
        ("127.0.0.1:8080:80/udp", {"80/udp": [("127.0.0.1", "8080")]}),
        ("127.0.0.1::80", {"80/tcp": [("127.0.0.1", "")]}),
        ("[::1]:8080:80", {"80/tcp": [("::1", "8080")]}),
        ("8080-8081:80-81", {"80/tcp": [("", "8080")], "81/tcp": [("", "8081")]}),
        ("8080-8090:80", {"80/tcp": [("", "8080-8090")]}),
        ("target=80,published=8080,protocol=udp", {"80/udp": [("", "8080")]}),
    ],
)
def test_ports(text: str, ports: dict[str, list[tuple[str, str]]]) -> None:
    found = made("-p", text)
    wanted = {port: [{"HostIp": ip, "HostPort": host} for ip, host in where] for port, where in ports.items()}
    assert found["HostConfig"]["PortBindings"] == wanted
    assert found["ExposedPorts"] == {port: {} for port in ports}


def test_networks() -> None:
    found = made("--network", "name=front,alias=web,ip=10.0.0.9,driver-opt=a=b,gw-priority=2", "--network", "back")
    assert found["HostConfig"]["NetworkMode"] == "front"
    assert found["NetworkingConfig"]["EndpointsConfig"] == {
        "front": {
            "Aliases": ["web"],
            "IPAMConfig": {"IPv4Address": "10.0.0.9"},
            "DriverOpts": {"a": "b"},
            "GwPriority": 2,
        },
        "back": {},
    }
    found = made("--network", "back", "--network-alias", "db", "--ip6", "fd00::9", "--mac-address", "02:42:00:00:00:01")
    assert found["NetworkingConfig"]["EndpointsConfig"] == {
        "back": {"Aliases": ["db"], "IPAMConfig": {"IPv6Address": "fd00::9"}, "MacAddress": "02:42:00:00:00:01"}
    }


def test_files_are_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "1")
    (tmp_path / "env").write_text("# comment\nA=b c\n\nHERE\nNOWHERE_SET\n")
    (tmp_path / "labels").write_text("x=y\nz\n")
    (tmp_path / "seccomp.json").write_text('{ "defaultAction": "SCMP_ACT_ALLOW" }')
    found = made(
        "--env-file", f"{tmp_path}/env", "-e", "A=last", "--label-file", f"{tmp_path}/labels",
        "--security-opt", f"seccomp={tmp_path}/seccomp.json",
    )  # fmt: skip
    assert found["Env"] == ["A=b c", "HERE=1", "A=last"]
    assert found["Labels"] == {"x": "y", "z": ""}
    (option,) = found["HostConfig"]["SecurityOpt"]
    assert json.loads(option.removeprefix("seccomp=")) == {"defaultAction": "SCMP_ACT_ALLOW"}


def test_what_is_attached() -> None:
    def streams(*words: str) -> tuple[bool, bool, bool, bool]:
        found = made(*words, detach=False)
        return found["AttachStdin"], found["AttachStdout"], found["AttachStderr"], found["StdinOnce"]

    assert streams() == (False, True, True, False)
    assert streams("-i") == (True, True, True, True)
    assert streams("-a", "stdout") == (False, True, False, False)
    assert streams("-i", "-a", "STDIN") == (True, False, False, True)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--rm --restart always", "--restart and --rm contradict"),
        ("-a stdout", "--attach and --detach contradict"),
        ("--no-healthcheck --health-cmd true", "--no-healthcheck and --health-... contradict"),
        ("--health-cmd true --health-probe tcp://:1", "--health-cmd and --health-probe contradict"),
        ("--log-driver none --log-opt a=b", "--log-driver none has no options"),
        ("--network a --network a", "network a is given twice"),
    ],
)
def test_contradictions(words: str, complaint: str) -> None:
    with pytest.raises(Refusal, match=complaint) as refused:
        made(*words.split())
    assert refused.value.code == 125


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--mount type=bind,dst=/b", "lacks source="),
        ("--mount type=bind,src=/a,dst=/b,tmpfs-size=1", "tmpfs-size is for mounts of type tmpfs, not bind"),
        ("--mount type=tape,dst=/b", "there are no mounts of type 'tape'"),
        ("--mount colour=red,dst=/b", "unknown key 'colour'"),
        ("--publish 8080-8082:80-81", "3 ports here cannot be 2 in the container"),
        ("--restart sometimes", "is no restart policy"),
        ("--security-opt seccomp=/nowhere", "seccomp profile /nowhere: No such file or directory"),
        ("--env-file /nowhere", "/nowhere: No such file or directory"),
        ("--health-probe udp://:1", "is no probe"),
        ("--time-offset realtime=1h", "'realtime' is no clock"),
        ("--network name=a,colour=red", "unknown key 'colour'"),
        ("--add-host db", "is no host entry"),
        ("--interactive=maybe", "neither true nor false"),
        ("--memroy 1m", "unknown flag: --memroy (did you mean --memory?)"),
        ("--isolation hyperv", "--isolation is not available: it is for Windows containers"),
    ],
)
def test_bad_words_are_one_sentence(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        made(*words.split())
    assert ended.value.code == 125
    told = capsys.readouterr().err
    assert complaint in told
    assert told.endswith("See 'swarmctl run --help'.\n")
