"""From what managers say of networks to the state that this node's kernel should have."""

from pathlib import Path

import pytest

from swarmd.agent.network_state import NetworkState
from swarmd.proto import dispatcher_pb2 as pb
from swarmd.proto import objects_pb2 as objects
from swarmd.runtime.network.values import Endpoint, IngressPort, NodeEndpoint, Overlay, OverlayState, ServiceRoute

SPEC = objects.NetworkSpec(name="back", internal=True)
NETWORK = pb.Change(network=objects.Network(id="net1", subnet="10.0.1.0/24", vni=4097, spec=SPEC))
INGRESS = pb.Change(
    network=objects.Network(
        id="net0", subnet="10.0.0.0/24", vni=4096, spec=objects.NetworkSpec(name="ingress", ingress=True)
    )
)
TASK = pb.NetworkEndpoint(
    task_id="t1",
    network_id="net1",
    service_id="s1",
    service_name="web",
    task_name="web.1.t1",
    aliases=["www", "web"],
    address="10.0.1.9",
    node_addr="192.0.2.2",
    serving=True,
)
PORTS = [
    objects.PortConfig(protocol="tcp", target_port=80, published_port=8080),
    objects.PortConfig(protocol="udp", target_port=53, published_port=53, publish_mode=objects.PUBLISH_MODE_HOST),
]
SERVICE = pb.ServiceEndpoint(
    service_id="s1",
    service_name="web",
    ports=PORTS,
    virtual_ips=[objects.VirtualIP(network_id="net1", addr="10.0.1.3/24")],
)

BACK = Overlay(
    id="net1",
    name="back",
    subnet="10.0.1.0/24",
    vni=4097,
    gateway="10.0.1.2",
    node_addr="192.0.2.1",
    internal=True,
)
ENDPOINT = Endpoint(
    network_id="net1",
    address="10.0.1.9",
    node_addr="192.0.2.2",
    service_id="s1",
    names=("web.1.t1",),
    serving=True,
)
THERE = NodeEndpoint(network_id="net1", address="10.0.1.5", node_addr="192.0.2.2")
ROUTE = ServiceRoute("s1", ("web", "www"), {"net1": "10.0.1.3"}, (IngressPort("tcp", 8080, 80),))
PLAIN_ROUTE = ServiceRoute("s1", ("web",), {"net1": "10.0.1.3"}, (IngressPort("tcp", 8080, 80),))
ALL = OverlayState((BACK,), (ENDPOINT,), (THERE,), (ROUTE,))


def present(node_id: str, address: str, node_addr: str, network_id: str = "net1") -> pb.Change:
    return pb.Change(
        node_endpoint=pb.NodeEndpoint(node_id=node_id, network_id=network_id, address=address, node_addr=node_addr)
    )


HERE = present("n1", "10.0.1.2", "192.0.2.1")
PEER = present("n2", "10.0.1.5", "192.0.2.2")
EVERYTHING = (NETWORK, HERE, PEER, pb.Change(endpoint=TASK), pb.Change(service=SERVICE))


def told(*changes: pb.Change, full: bool = False, gone: tuple[pb.Removal, ...] = ()) -> pb.Assignments:
    return pb.Assignments(full=full, changes=changes, removals=gone)


def changed(**fields: object) -> pb.Change:
    """The task's endpoint with some fields different."""
    endpoint = pb.NetworkEndpoint()
    endpoint.CopyFrom(TASK)
    endpoint.MergeFrom(pb.NetworkEndpoint(**fields))  # type: ignore[arg-type]
    return pb.Change(endpoint=endpoint)


@pytest.fixture
def state(tmp_path: Path) -> NetworkState:
    return NetworkState(tmp_path / "networks.pb", "n1")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), OverlayState()),
        (EVERYTHING, ALL),
        ((NETWORK,), OverlayState()),  # no address of this node's own on it yet
        ((NETWORK, PEER, pb.Change(endpoint=TASK)), OverlayState()),
        ((HERE,), OverlayState()),
        ((NETWORK, HERE), OverlayState((BACK,))),
        ((pb.Change(service=SERVICE),), OverlayState(services=(PLAIN_ROUTE,))),
        (
            (INGRESS, present("n1", "10.0.0.2", "192.0.2.1", "net0")),
            OverlayState((Overlay("net0", "ingress", "10.0.0.0/24", 4096, "10.0.0.2", "192.0.2.1", ingress=True),)),
        ),
    ],
)
def test_what_follows_from_changes(state: NetworkState, changes: tuple[pb.Change, ...], expected: OverlayState) -> None:
    state.update(told(*changes))
    assert state.desired() == expected


@pytest.mark.parametrize(
    ("removal", "expected"),
    [
        (pb.Removal(network_id="net1"), OverlayState((), (ENDPOINT,), (THERE,), (ROUTE,))),
        (pb.Removal(service_id="s1"), OverlayState((BACK,), (ENDPOINT,), (THERE,))),
        (
            pb.Removal(endpoint=pb.NetworkEndpoint(task_id="t1", network_id="net1")),
            OverlayState((BACK,), (), (THERE,), (PLAIN_ROUTE,)),
        ),
        (
            pb.Removal(node_endpoint=pb.NodeEndpoint(node_id="n2", network_id="net1")),
            OverlayState((BACK,), (ENDPOINT,), (), (ROUTE,)),
        ),
        (
            pb.Removal(node_endpoint=pb.NodeEndpoint(node_id="n1", network_id="net1")),
            OverlayState(services=(ROUTE,)),
        ),
        (pb.Removal(network_id="never there"), ALL),
        (pb.Removal(service_id="never there"), ALL),
        (pb.Removal(endpoint=pb.NetworkEndpoint(task_id="t1", network_id="net0")), ALL),
    ],
)
def test_what_follows_from_removals(state: NetworkState, removal: pb.Removal, expected: OverlayState) -> None:
    state.update(told(*EVERYTHING))
    state.update(told(gone=(removal,)))
    assert state.desired() == expected


def test_a_later_word_on_the_same_thing_counts(state: NetworkState) -> None:
    state.update(told(*EVERYTHING))
    state.update(told(changed(address="10.0.1.99")))
    assert [endpoint.address for endpoint in state.desired().endpoints] == ["10.0.1.99"]


def test_a_task_on_two_networks_has_an_endpoint_on_each(state: NetworkState) -> None:
    here = present("n1", "10.0.0.2", "192.0.2.1", "net0")
    state.update(told(*EVERYTHING, INGRESS, here, changed(network_id="net0", address="10.0.0.9")))
    assert {(at.network_id, at.address) for at in state.desired().endpoints} == {
        ("net1", "10.0.1.9"),
        ("net0", "10.0.0.9"),
    }


def test_a_full_list_replaces_everything(state: NetworkState) -> None:
    state.update(told(*EVERYTHING))
    state.update(told(NETWORK, HERE, full=True))
    assert state.desired() == OverlayState((BACK,))


def test_it_is_the_same_after_a_restart(state: NetworkState, tmp_path: Path) -> None:
    state.update(told(*EVERYTHING))
    state.save()
    again = NetworkState(tmp_path / "networks.pb", "n1")
    assert again.desired() == ALL
    again.update(told(gone=(pb.Removal(service_id="s1"),)))
    again.save()
    assert NetworkState(tmp_path / "networks.pb", "n1").desired() == OverlayState((BACK,), (ENDPOINT,), (THERE,))


def test_a_damaged_file_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "networks.pb").write_bytes(b"\xff\xff")
    assert NetworkState(tmp_path / "networks.pb", "n1").desired() == OverlayState()
