"""The JSON of the cluster's objects: it comes back as it went out, and what is not known is refused by its path."""

import json
from random import Random
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from swarmd.proto import objects_pb2 as pb
from swarmd.proto.codec import decode, encode
from swarmd.proto.errors import Invalid

KINDS = [pb.Cluster, pb.Node, pb.Service, pb.Task, pb.Network, pb.Secret, pb.Config, pb.Volume]
RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def filled(kind: type[Message], seed: int) -> Message:
    """Drawing hundreds of fields one by one is slow in hypothesis, so it draws the seed."""
    message = kind()
    fill(Random(seed), message, kind.DESCRIPTOR)
    return message


def fill(random: Random, message: Any, descriptor: Any) -> None:
    for field in descriptor.fields:
        if not field.json_name[0].isupper() or random.random() < 0.4:
            continue
        target = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            target.update({text(random): text(random) for _ in range(random.randint(0, 2))})
        elif field.is_repeated:
            for _ in range(random.randint(0, 2)):
                if field.message_type is not None:
                    fill(random, target.add(), field.message_type)
                else:
                    target.append(scalar(random, field))
        elif field.message_type is Timestamp.DESCRIPTOR:
            target.SetInParent()
            target.seconds = random.randint(-62135596800, 253402300799)
            target.nanos = random.choice([0, 1, 999_999_999])
        elif field.message_type is not None:
            target.SetInParent()
            fill(random, target, field.message_type)
        else:
            setattr(message, field.name, scalar(random, field))


def scalar(random: Random, field: FieldDescriptor) -> Any:
    if field.cpp_type in RANGES:
        low, high = RANGES[field.cpp_type]
        return random.choice([0, 1, low, high, random.randint(low, high)])
    if field.enum_type is not None:
        return random.choice(field.enum_type.values).number
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return random.choice([0.0, 0.1, 1 / 3, random.uniform(-1e9, 1e9), 1e-30])
    return random.randbytes(3) if field.type == FieldDescriptor.TYPE_BYTES else text(random)


def text(random: Random) -> str:
    return "".join(random.choice('aé中\U0001f433\0"\\ .') for _ in range(random.randint(0, 5)))


@given(st.sampled_from(KINDS), st.integers())
def test_every_object_survives_the_round_trip(kind: type[Message], seed: int) -> None:
    message = filled(kind, seed)
    assert decode(kind, json.loads(json.dumps(encode(message)))) == message


def test_a_service_reads_as_docker_shows_it() -> None:
    spec = pb.ServiceSpec(
        name="web",
        mode=pb.ServiceMode(replicated=pb.ReplicatedMode(replicas=0)),
        task=pb.TaskSpec(restart=pb.RestartPolicy(condition=pb.RESTART_CONDITION_ON_FAILURE, delay=0)),
        update=pb.UpdateConfig(max_failure_ratio=0.1, order=pb.UPDATE_ORDER_START_FIRST),
    )
    assert encode(spec) == {
        "Name": "web",
        "Labels": {},
        "Mode": {"Replicated": {"Replicas": 0}},
        "TaskTemplate": {"ForceUpdate": 0, "RestartPolicy": {"Condition": "on-failure", "Delay": 0}},
        "UpdateConfig": {"FailureAction": "pause", "MaxFailureRatio": 0.1, "Order": "start-first"},
    }


def test_update_states_keep_their_underscore() -> None:
    status = pb.UpdateStatus(state=pb.UPDATE_STATE_ROLLBACK_STARTED, started_at=Timestamp(seconds=1, nanos=2))
    assert encode(status) == {"State": "rollback_started", "StartedAt": "1970-01-01T00:00:01.000000002Z"}


def test_what_is_internal_is_neither_shown_nor_taken() -> None:
    cluster = pb.Cluster(id="c", root_ca=pb.RootCA(key=b"secret"))
    assert encode(cluster) == {"ID": "c"}
    for name in ("rootCa", "RootCA", "root_ca", "ROOTCA"):
        with pytest.raises(Invalid, match=f"unknown or unsupported field {name}"):
            decode(pb.Cluster, {name: {}})


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (
            {"TaskTemplate": {"ContainerSpec": {"Foo": 1}}},
            "unknown or unsupported field TaskTemplate.ContainerSpec.Foo",
        ),
        ({"TaskTemplate": {"ContainerSpec": {"Foo": ""}}}, "field TaskTemplate.ContainerSpec.Foo"),
        ({"TaskTemplate": {"ContainerSpec": {"Secrets": [{"SecretID": "x"}]}}}, "TaskTemplate.ContainerSpec.Secrets"),
        ({"TaskTemplate": {"ContainerSpec": {"Isolation": "hyperv"}}}, "TaskTemplate.ContainerSpec.Isolation"),
        ({"TaskTemplate": {"ContainerSpec": {"Mounts": [{}, {"X": 1}]}}}, "TaskTemplate.ContainerSpec.Mounts[1].X"),
        ({"TaskTemplate": {"ForceUpdate": "1"}}, "field TaskTemplate.ForceUpdate must be a whole number, not '1'"),
        ({"TaskTemplate": {"ForceUpdate": True}}, "must be a whole number, not a boolean"),
        ({"TaskTemplate": {"ForceUpdate": -1}}, "field TaskTemplate.ForceUpdate is out of range: -1"),
        ({"TaskTemplate": []}, "field TaskTemplate must be an object, not a list"),
        ({"Mode": {"Global": {}}}, "unknown or unsupported field Mode.Global"),
        ({"Labels": {"a": 1}}, "field Labels.a must be a string, not a number"),
        ({"Labels": [["a", "b"]]}, "field Labels must be an object, not a list"),
        ({"UpdateConfig": {"Order": "sideways"}}, "must be one of stop-first, start-first, not 'sideways'"),
        ([], "the body must be an object, not a list"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(spec: object, complaint: str) -> None:
    with pytest.raises(Invalid) as refused:
        decode(pb.ServiceSpec, spec)
    assert complaint in str(refused.value)


def test_what_clients_send_without_meaning_it_is_accepted() -> None:
    task = {
        "ContainerSpec": {"Image": "a", "Isolation": "default", "Init": False, "DNSConfig": {}, "Secrets": None},
        "Resources": {"Limits": {}, "Reservations": {"GenericResources": []}},
        "Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
        "ForceUpdate": 0,
        "Runtime": "container",
        "LogDriver": None,
    }
    spec = decode(pb.ServiceSpec, {"Name": "web", "Labels": None, "TaskTemplate": task, "EndpointSpec": {"Mode": ""}})
    assert spec.task.container.HasField("init")
    assert not spec.task.container.init
    assert spec.task.placement.platforms[0].architecture == "amd64"


def test_a_swarm_spec_from_dockers_command_line_is_accepted() -> None:
    decode(
        pb.ClusterSpec,
        {
            "Labels": None,
            "Orchestration": {"TaskHistoryRetentionLimit": 3},
            "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
            "Dispatcher": {},
            "CAConfig": {},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": False},
        },
    )
    with pytest.raises(Invalid, match="unsupported field EncryptionConfig"):
        decode(pb.ClusterSpec, {"EncryptionConfig": {"AutoLockManagers": True}})
