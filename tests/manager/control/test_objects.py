"""Create, update and remove each kind of object: what is stored, and every refusal."""

import pytest

from swarmd.manager.control import clusters, networks, nodes, services
from swarmd.manager.control.filters import BY_KIND, select
from swarmd.manager.control.refs import resolve
from swarmd.manager.store.edit import edited
from swarmd.proto import objects_pb2 as pb
from swarmd.proto.control_pb2 import Values
from swarmd.proto.errors import AlreadyExists, Conflict, FailedPrecondition, Invalid, NotFound
from tests.manager.records import Records, node


def service(name: str = "web", *, published: int = 0, network: str = "") -> pb.Service:
    made = pb.Service(spec=pb.ServiceSpec(name=name, task=pb.TaskSpec(container=pb.ContainerSpec(image="demo"))))
    if published:
        made.spec.endpoint.ports.add(target_port=80, published_port=published)
    if network:
        made.spec.networks.add(target=network, aliases=["alias"])
    return made


def network(id: str = "net1", name: str = "back", subnet: str = "") -> pb.Network:
    return pb.Network(id=id, spec=pb.NetworkSpec(name=name, driver="overlay"), subnet=subnet)


# ---------------------------------------------------------------- services


def test_a_created_service_has_its_mode_protocols_and_networks_settled() -> None:
    records = Records(network())
    services.create(records, service(published=8080, network="back"), "s1", 0)
    stored = records.the(pb.Service, "s1")
    assert stored.spec_version == 1
    assert stored.spec.mode.WhichOneof("mode") == "replicated"
    assert stored.spec.endpoint.ports[0].protocol == "tcp"
    assert not stored.spec.networks
    assert [(n.target, list(n.aliases)) for n in stored.spec.task.networks] == [("net1", ["alias"])]


def test_names_and_published_ports_are_taken_once() -> None:
    records = Records()
    services.create(records, service(published=8080), "s1", 0)
    with pytest.raises(AlreadyExists, match="service web exists"):
        services.create(records, service(), "s2", 0)
    with pytest.raises(AlreadyExists, match="port 8080/tcp is already published by service web"):
        services.create(records, service("api", published=8080), "s2", 0)
    host_mode = service("api", published=8080)
    host_mode.spec.endpoint.ports[0].publish_mode = pb.PUBLISH_MODE_HOST
    services.create(records, host_mode, "s2", 0)


def test_an_allocated_port_is_taken_too() -> None:
    records = Records()
    taken = services.create(records, service(), "s1", 0)
    taken.endpoint.ports.add(target_port=80, published_port=30000, protocol="tcp")
    records.put(taken)
    with pytest.raises(AlreadyExists, match="30000/tcp"):
        services.create(records, service("api", published=30000), "s2", 0)


def test_a_network_that_is_not_there_and_the_ingress_network_are_refused() -> None:
    ingress = network("net2", "ingress")
    ingress.spec.ingress = True
    records = Records(ingress)
    with pytest.raises(NotFound, match="no such network: back"):
        services.create(records, service(network="back"), "s1", 0)
    with pytest.raises(Invalid, match="can't be attached"):
        services.create(records, service(network="ingress"), "s1", 0)


def test_an_update_keeps_the_previous_spec_and_counts_versions_of_the_template() -> None:
    records = Records()
    services.create(records, service(), "s1", 0)
    wanted = edited(records.the(pb.Service, "s1"))
    wanted.spec.mode.replicated.replicas = 3
    services.update(records, wanted, False, 0)
    scaled = edited(records.the(pb.Service, "s1"))
    assert (scaled.spec_version, scaled.previous_spec.mode.replicated.replicas) == (1, 0)
    scaled.spec.task.container.image = "demo:2"
    services.update(records, scaled, False, 0)
    changed = edited(records.the(pb.Service, "s1"))
    assert changed.spec_version == 2
    services.update(records, changed, True, 0)
    assert records.the(pb.Service, "s1").spec.task.container.image == "demo"


def test_updates_out_of_sequence_and_renames_are_refused() -> None:
    records = Records()
    services.create(records, service(), "s1", 0)
    seen = edited(records.the(pb.Service, "s1"))
    records.put(records.the(pb.Service, "s1"))
    with pytest.raises(Conflict, match="update out of sequence"):
        services.update(records, seen, False, 0)
    renamed = edited(records.the(pb.Service, "s1"))
    with pytest.raises(FailedPrecondition, match="no previous spec"):
        services.update(records, renamed, True, 0)
    renamed.spec.name = "other"
    with pytest.raises(Invalid, match="can't be renamed"):
        services.update(records, renamed, False, 0)


def test_the_name_and_the_ports_of_a_removed_service_are_free_at_once() -> None:
    records = Records()
    services.create(records, service(published=8080), "s1", 0)
    assert services.remove(records, "web", False) == "s1"
    services.create(records, service(published=8080), "s2", 0)
    assert [found.id for found in records.find(pb.Service)] == ["s2"]


def test_tasks_of_a_removed_service_answer_to_its_name_only_while_no_other_service_has_it() -> None:
    old = pb.Task(id="t1", service_id="s1", service_name="web")
    new = pb.Task(id="t2", service_id="s2", service_name="web")
    records = Records(old, new)

    def found(word: str) -> list[str]:
        return [task.id for task in select([old, new], {"service": Values(values=[word])}, BY_KIND[pb.Task], records)]

    assert found("web") == ["t1", "t2"]
    services.create(records, service(), "s2", 0)
    assert found("web") == ["t2"]
    assert found("s1") == ["t1"]


# ---------------------------------------------------------------- nodes


def test_the_last_manager_and_the_quorum_are_not_demoted_away() -> None:
    records = Records(node("n1", manager=True))
    wanted = edited(records.the(pb.Node, "n1"))
    wanted.spec.role = pb.NODE_ROLE_WORKER
    with pytest.raises(FailedPrecondition, match="only manager"):
        nodes.update(records, wanted, False, 0)
    records.put(node("n2", manager=True, reachable=False))
    with pytest.raises(FailedPrecondition, match="lose the quorum: only 0 of the 1"):
        nodes.update(records, wanted, False, 0)
    records.put(node("n2", manager=True))
    nodes.update(records, wanted, False, 0)
    assert records.the(pb.Node, "n1").spec.role == pb.NODE_ROLE_WORKER


def test_only_workers_that_are_down_are_removed_unless_forced() -> None:
    never_heard, heard = node("n3"), node("n2")
    heard.status.state = pb.NODE_STATE_READY
    records = Records(node("n1", manager=True), heard, never_heard)
    with pytest.raises(FailedPrecondition, match="demote it first"):
        nodes.remove(records, "host-n1", True)
    with pytest.raises(FailedPrecondition, match="is not down"):
        nodes.remove(records, "n2", False)
    leaving = node("n4")
    leaving.etcd_member_id = 4
    records.put(leaving)
    with pytest.raises(FailedPrecondition, match="host-n4 is still being demoted"):
        nodes.remove(records, "n4", True)
    assert nodes.remove(records, "n2", True) == "n2"
    assert records.get(pb.Node, "n2") is None
    assert nodes.remove(records, "n3", False) == "n3"


# ---------------------------------------------------------------- networks, cluster


def test_a_network_in_use_is_kept_and_says_by_whom() -> None:
    records = Records()
    networks.create(records, pb.Network(spec=pb.NetworkSpec(name="back")), "net1", 0)
    services.create(records, service(network="back"), "s1", 0)
    with pytest.raises(FailedPrecondition, match="in use by service web"):
        networks.remove(records, "back", False)
    records.delete(records.the(pb.Service, "s1"))
    networks.remove(records, "back", False)
    assert records.the(pb.Network, "net1").removing


def test_subnets_may_not_overlap() -> None:
    records = Records(network(subnet="10.0.0.0/20"))
    wanted = pb.Network(spec=pb.NetworkSpec(name="n", ipam=[pb.IPAMConfig(subnet="10.0.1.0/24")]))
    with pytest.raises(Invalid, match=r"overlaps with 10\.0\.0\.0/20 of network back"):
        networks.create(records, wanted, "net2", 0)


def test_a_rotated_token_is_another_and_keys_are_never_shown() -> None:
    cluster = pb.Cluster(id="c1")
    cluster.root_ca.MergeFrom(
        pb.RootCA(certificate=b"root", key=b"k", etcd_key=b"k", worker_token="w", manager_token="m")
    )
    records = Records(cluster)
    rotated = clusters.rotate(records, pb.NODE_ROLE_WORKER)
    assert rotated.root_ca.worker_token != "w"
    assert rotated.root_ca.manager_token == "m"
    shown = clusters.shown(rotated)
    assert (shown.root_ca.key, shown.root_ca.etcd_key) == (b"", b"")


# ---------------------------------------------------------------- references and filters


def test_references_are_ids_names_then_prefixes() -> None:
    records = Records(network("abc1", "abd"), network("abd", "x"), network("abe", "y"))
    assert resolve(records, pb.Network, "abd").spec.name == "x"
    assert resolve(records, pb.Network, "abc").id == "abc1"
    with pytest.raises(Invalid, match="ambiguous"):
        resolve(records, pb.Network, "ab")
    with pytest.raises(NotFound, match="no such network: zz"):
        resolve(records, pb.Network, "zz")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"service": ["web"]}, {"t1", "t2"}),
        ({"service": ["web"], "desired-state": ["running"]}, {"t1"}),
        ({"node": ["host-n1"]}, {"t1"}),
        ({"name": ["web.2"]}, {"t2"}),
        ({"label": ["a=1", "b"]}, {"t2"}),
        ({"id": ["t1", "t2"]}, {"t1", "t2"}),
        ({"service": ["other"]}, set()),
    ],
)
def test_task_filters(filters: dict[str, list[str]], found: set[str]) -> None:
    one = pb.Task(id="t1", service_id="s1", service_name="web", slot=1, node_id="n1")
    one.desired_state = pb.TASK_STATE_RUNNING
    two = pb.Task(id="t2", service_id="s1", service_name="web", slot=2, desired_state=pb.TASK_STATE_SHUTDOWN)
    two.spec.container.labels.update({"a": "1", "b": ""})
    records = Records(node("n1"), one, two)
    asked = {key: Values(values=values) for key, values in filters.items()}
    assert {task.id for task in select(records.find(pb.Task), asked, BY_KIND[pb.Task], records)} == found


def test_unknown_filters_and_values_are_named() -> None:
    with pytest.raises(Invalid, match="no filter 'colour' here"):
        select([], {"colour": Values(values=["red"])}, BY_KIND[pb.Node], Records())
    with pytest.raises(Invalid, match="role=king"):
        select([node("n1")], {"role": Values(values=["king"])}, BY_KIND[pb.Node], Records())
