"""Bodies and queries of the Engine API: any JSON is read or refused by a sentence, and what is read is shown again."""

import contextlib
import json
from typing import Any

from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st

from swarmd.agent.api import host_config, query
from swarmd.agent.api.container_config import container_config
from swarmd.agent.api.fields import Fields, parse
from swarmd.agent.api.host_config import shown
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.codec import decode, encode
from swarmd.proto.errors import Invalid
from swarmd.runtime import errors as runtime
from swarmd.runtime.model import ContainerState
from tests.fuzz.strategies import fuzz, json_values, mutated, words

CONTAINER = {
    "Image": "demo",
    "Entrypoint": ["/bin/sh"],
    "Cmd": ["-c", "true"],
    "Env": ["A=b"],
    "Labels": {"a": "b"},
    "StopTimeout": 3,
    "ExposedPorts": {"80/tcp": {}},
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Retries": 2},
    "MacAddress": "02:00:00:00:00:01",
    "NetworkingConfig": {"EndpointsConfig": {"n": {"IPAMConfig": {"IPv4Address": "10.0.0.3"}, "Aliases": ["x"]}}},
    "HostConfig": {
        "Binds": ["/a:/b:ro"],
        "Tmpfs": {"/t": "size=64m,mode=1777"},
        "Mounts": [
            {"Type": "bind", "Source": "/a", "Target": "/c", "BindOptions": {"Propagation": "rprivate"}},
            {"Type": "tmpfs", "Target": "/d", "TmpfsOptions": {"SizeBytes": 5, "Mode": 448, "Options": [["noexec"]]}},
        ],
        "NetworkMode": "n",
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "3"}},
        "SecurityOpt": ["no-new-privileges"],
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}],
        "DeviceCgroupRules": ["c 10:229 rwm"],
        "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 5}],
        "ConsoleSize": [24, 80],
        "Sysctls": {"net.core.somaxconn": "5"},
        "VolumesFrom": ["other:ro"],
        "TimeOffsets": {"Monotonic": 5, "Boottime": 6},
        "Dns": ["1.1.1.1"],
        "Memory": 64 << 20,
        "MemorySwappiness": 5,
    },
}
SERVICE = {
    "Name": "web",
    "Labels": {"a": "b"},
    "TaskTemplate": {
        "ContainerSpec": {"Image": "demo", "Env": ["A=b"], "StopGracePeriod": 5, "Mounts": [{"Type": "bind"}]},
        "Resources": {"Limits": {"NanoCPUs": 5, "MemoryBytes": 7}},
        "RestartPolicy": {"Condition": "any", "Delay": 5, "MaxAttempts": 3, "Window": 4},
        "Placement": {"Constraints": ["node.role==manager"], "Preferences": [{"Spread": {"SpreadDescriptor": "x"}}]},
        "Networks": [{"Target": "n", "Aliases": ["x"]}],
    },
    "Mode": {"Replicated": {"Replicas": 3}},
    "UpdateConfig": {"Parallelism": 2, "Delay": 5, "MaxFailureRatio": 0.5, "Order": "start-first"},
    "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080}]},
}
REFUSALS = (Invalid, runtime.RuntimeFault)


def read(body: Any) -> Any:
    return parse(json.dumps(body).encode())


def nobody(ref: str) -> ContainerState:
    raise runtime.NotFound(f"no container {ref}")


@fuzz
@given(mutated(CONTAINER) | mutated(CONTAINER | {"HostConfig": {}}))
def test_any_container_is_read_or_refused(body: Any) -> None:
    try:
        config = container_config(read(body), nobody)
    except REFUSALS:
        return
    json.dumps(shown(config))


@fuzz
@given(mutated({key: value for key, value in CONTAINER["HostConfig"].items() if key != "VolumesFrom"}))  # type: ignore[attr-defined]
@example({"PortBindings": {"80/tcp": [{"HostPort": "²"}]}})
@example({"LogConfig": {"Config": {"max-file": "²"}}})
@example({"LogConfig": {"Config": {"max-size": "9" * 5000}}})
@example({"Tmpfs": {"/t": "size=9" + "9" * 5000}})
@example({"DeviceCgroupRules": ["c " + "9" * 5000 + ":1 rwm"]})
def test_a_host_config_is_shown_as_it_would_be_read_again(body: Any) -> None:
    try:
        config = container_config(read({"Image": "demo", "HostConfig": body}), nobody)
    except REFUSALS:
        return
    told = shown(config)
    again = container_config({"Image": "demo", "HostConfig": {**told, "Runtime": "", "VolumesFrom": None}}, nobody)
    assert shown(again) == told


@fuzz
@given(mutated({"Memory": 5, "CpusetCpus": "0", "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 5}]}))
def test_limits_of_an_update(body: Any) -> None:
    try:
        with Fields(read(body), unsupported=host_config.UNSUPPORTED) as fields:
            host_config.limits(fields)
    except Invalid:
        pass


@fuzz
@given(mutated(SERVICE))
@example({"Name": "\ud800"})
@example({"UpdateConfig": {"MaxFailureRatio": 10**400}})
@example({"UpdateConfig": {"MaxFailureRatio": float("nan")}})
@example({"TaskTemplate": {"ContainerSpec": {"Image": {"Labels": {"a": "\ud800"}}}}})
def test_a_service_is_read_or_refused_and_comes_back(body: Any) -> None:
    try:
        spec = decode(pb.ServiceSpec, read(body))
    except Invalid:
        return
    rendered = json.loads(json.dumps(encode(spec), allow_nan=False))
    assert decode(pb.ServiceSpec, rendered) == spec


@fuzz
@given(json_values)
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59-23:59")
def test_times(value: Any) -> None:
    with contextlib.suppress(Invalid):
        encode(decode(pb.Version, read({"Index": value})))
    try:
        moment = decode(pb.TaskStatus, read({"Timestamp": value}))
        encode(moment)
    except Invalid:
        pass


@fuzz
@given(words("17", "00", ".", "m", "s", "h", "2026-01-02", "T", "10:00:00", "Z", "-", "1e9", "0001-01-01"))
@example("²")
@example("9" * 5000)
@example("9" * 5000 + "h")
@example("0001-01-01")
@example("9999-12-31T23:59:59-23:59")
@example("1700000000.²")
def test_instants(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert isinstance(query.instant(text), int)


@fuzz
@given(json_values.map(json.dumps) | words('{"', '":', "[", "]", "}", "true", "5"))
@example("[" * 100_000)
@example("9" * 5000)
def test_filters(text: str) -> None:
    request = make_mocked_request("GET", "/")
    request._rel_url = request.rel_url.with_query({"filters": text})
    try:
        found = query.filters(request)
    except Invalid:
        return
    assert all(isinstance(value, str) for values in found.values() for value in values)


@fuzz
@given(st.text(max_size=8) | st.sampled_from(["²", "9" * 5000, "-1", "1_0"]))
def test_numbers(text: str) -> None:
    request = make_mocked_request("GET", "/")
    request._rel_url = request.rel_url.with_query({"t": text, "tail": text})
    for read in (lambda: query.number(request, "t"), lambda: query.tail(request)):
        with contextlib.suppress(Invalid):
            read()
