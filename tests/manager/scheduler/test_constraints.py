import pytest

from swarmd.manager.scheduler import constraints
from swarmd.proto.errors import Invalid
from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER, Node


def node() -> Node:
    made = Node(id="n1")
    made.spec.role = NODE_ROLE_MANAGER
    made.spec.labels["zone"] = "eu"
    made.description.hostname = "Alpha"
    made.description.addr = "10.1.2.3"
    made.description.platform.os = "linux"
    made.description.platform.architecture = "x86_64"
    made.description.engine.labels["disk"] = "ssd"
    return made


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("node.id==n1", True),
        ("node.id!=n1", False),
        ("node.hostname == alpha", True),
        ("node.role==manager", True),
        ("node.role!=worker", True),
        ("node.ip==10.1.2.3", True),
        ("node.ip==10.1.0.0/16", True),
        ("node.ip!=10.2.0.0/16", True),
        ("node.ip==fe80::/10", False),
        ("node.platform.os==linux", True),
        ("node.platform.arch==aarch64", False),
        ("node.labels.zone==eu", True),
        ("node.labels.zone!=us", True),
        ("node.labels.missing!=x", True),
        ("node.labels.missing==x", False),
        ("engine.labels.disk==ssd", True),
    ],
)
def test_matches(expression, holds):
    (constraint,) = constraints.parse([expression])
    assert constraint.matches(node()) == holds


@pytest.mark.parametrize(
    "expression",
    ["node.labels.zone", "node.labels.zone=eu", "node.colour==red", "node.ip==everywhere", "==x", "node.id==", ""],
)
def test_a_bad_one_is_named(expression):
    with pytest.raises(Invalid, match="constraint"):
        constraints.parse([expression])


def test_an_unknown_address_is_in_no_network():
    assert not constraints.parse(["node.ip==10.0.0.0/8"])[0].matches(Node())
