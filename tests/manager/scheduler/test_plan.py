"""Where tasks go, and what they are told when they can't go anywhere."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.manager.scheduler.index import FAULTY_WINDOW, Index
from swarmd.manager.scheduler.plan import plan
from swarmd.manager.store.edit import edited
from swarmd.proto.clock import timestamp
from swarmd.proto.objects_pb2 import (
    NODE_AVAILABILITY_ACTIVE,
    NODE_AVAILABILITY_DRAIN,
    NODE_STATE_DOWN,
    NODE_STATE_READY,
    PUBLISH_MODE_HOST,
    Node,
    Platform,
    PortConfig,
    RestartEvent,
    Service,
    Task,
)
from swarmd.proto.task_states import ASSIGNED, FAILED, PENDING, RUNNING, SHUTDOWN

NOW = 1_700_000_000 * 10**9


def node(id: str, cpus: int = 4, memory: int = 8, **labels: str) -> Node:
    made = Node(id=id)
    made.spec.availability, made.status.state = NODE_AVAILABILITY_ACTIVE, NODE_STATE_READY
    made.spec.labels.update(labels)
    made.description.hostname = id
    made.description.platform.CopyFrom(Platform(os="linux", architecture="x86_64"))
    made.description.resources.nano_cpus, made.description.resources.memory_bytes = cpus * 10**9, memory << 30
    return made


def task(id: str, service: str = "web", *constraints: str, memory: int = 0, cpus: float = 0, port: int = 0) -> Task:
    made = Task(id=id, service_id=service, spec_version=1, desired_state=RUNNING)
    made.status.state = PENDING
    made.spec.resources.reservations.memory_bytes = memory << 30
    made.spec.resources.reservations.nano_cpus = int(cpus * 10**9)
    made.spec.placement.constraints.extend(constraints)
    if port:
        made.ports.append(PortConfig(protocol="tcp", published_port=port, publish_mode=PUBLISH_MODE_HOST))
    return made


def running(id: str, node_id: str, service: str = "web", **fields: int) -> Task:
    made = task(id, service, **fields)
    made.node_id, made.status.state = node_id, RUNNING
    return made


def tasks(count: int, service: str = "web", *constraints: str, **fields: int) -> list[Task]:
    return [task(f"{service}{n:03}", service, *constraints, **fields) for n in range(count)]


def index_of(*objects: Node | Task | Service) -> Index:
    index = Index()
    for obj in objects:
        index.observe(obj)
    return index


def place(index: Index, now: int = NOW) -> dict[str, str]:
    return {p.task.id: p.node_id for p in plan(index.take_due(), index, now).placements}


def loads(index: Index) -> Counter[str]:
    return Counter(place(index).values())


def refusals(index: Index) -> set[str]:
    return {refusal.why for refusal in plan(index.take_due(), index, NOW).refusals}


def test_tasks_of_a_service_spread_over_all_nodes() -> None:
    assert loads(index_of(node("a"), node("b"), node("c"), *tasks(7))) == {"a": 3, "b": 2, "c": 2}


def test_fewest_of_the_service_comes_before_fewest_in_all() -> None:
    others = [running(f"other{n}", "a", "other") for n in range(5)]
    index = index_of(node("a"), node("b"), *others, running("web-1", "b"), task("web-2"))
    assert place(index) == {"web-2": "a"}


def test_services_fill_nodes_evenly_between_them() -> None:
    nodes = [node("a"), node("b"), node("c")]
    assert loads(index_of(*nodes, *(task(f"t{n}", f"service{n}") for n in range(9)))) == {"a": 3, "b": 3, "c": 3}


def test_a_task_on_its_way_out_takes_room_but_is_not_counted() -> None:
    leaving = running("old", "a", memory=6)
    leaving.desired_state = SHUTDOWN
    assert place(index_of(node("a"), node("b"), leaving, running("new", "b"), task("t"))) == {"t": "a"}
    assert place(index_of(node("a"), leaving, task("t", memory=4))) == {}


@pytest.mark.parametrize(
    ("nodes", "asked", "why"),
    [
        ([], task("t"), "no suitable node (the cluster has no nodes)"),
        (
            [node("a", memory=1), node("b", memory=2), node("c", memory=9, zone="us")],
            task("t", "web", "node.labels.zone!=us", memory=4),
            "no suitable node (2 nodes: insufficient memory; 1 node: constraint node.labels.zone!=us not met)",
        ),
        ([node("a", cpus=1)], task("t", cpus=1.5), "no suitable node (1 node: insufficient cpu)"),
    ],
)
def test_the_reasons_are_counted(nodes: Sequence[Node], asked: Task, why: str) -> None:
    assert refusals(index_of(*nodes, asked)) == {why}


def test_nodes_that_are_down_or_drained_take_nothing() -> None:
    down, drained = node("a"), node("b")
    down.status.state = NODE_STATE_DOWN
    drained.spec.availability = NODE_AVAILABILITY_DRAIN
    assert refusals(index_of(down, drained, task("t"))) == {
        "no suitable node (1 node: node not ready; 1 node: node not active)"
    }


def test_platforms_are_compared_by_any_of_their_names() -> None:
    good, bad = task("good"), task("bad", "other")
    good.spec.placement.platforms.append(Platform(os="linux", architecture="amd64"))
    bad.spec.placement.platforms.append(Platform(os="linux", architecture="arm64"))
    index = index_of(node("a"), good, bad)
    decided = plan(index.take_due(), index, NOW)
    assert [p.task.id for p in decided.placements] == ["good"]
    assert [r.why for r in decided.refusals] == ["no suitable node (1 node: unsupported platform)"]


def test_a_host_port_is_given_once_per_node() -> None:
    index = index_of(node("a"), node("b"), *tasks(3, port=80))
    decided = plan(index.take_due(), index, NOW)
    assert sorted(p.node_id for p in decided.placements) == ["a", "b"]
    assert [r.why for r in decided.refusals] == ["no suitable node (2 nodes: host port 80/tcp in use)"]


def test_no_more_replicas_per_node_than_allowed() -> None:
    wanted = tasks(5)
    for each in wanted:
        each.spec.placement.max_replicas = 2
    index = index_of(node("a"), node("b"), *wanted)
    decided = plan(index.take_due(), index, NOW)
    assert Counter(p.node_id for p in decided.placements) == {"a": 2, "b": 2}
    assert [r.why for r in decided.refusals] == ["no suitable node (2 nodes: max replicas per node reached)"]


def test_preferences_spread_over_the_values_of_a_label_first() -> None:
    wanted = tasks(8)
    for each in wanted:
        each.spec.placement.preferences.add().spread.spread_descriptor = "node.labels.zone"
    nodes = [node("a", zone="eu"), node("b", zone="us"), node("c", zone="us"), node("d", zone="us")]
    found = loads(index_of(*nodes, *wanted))
    assert found["a"] == 4
    assert sorted(found[id] for id in "bcd") == [1, 1, 2]


def test_a_branch_without_room_leaves_it_to_the_others() -> None:
    wanted = tasks(4, memory=4)
    for each in wanted:
        each.spec.placement.preferences.add().spread.spread_descriptor = "node.labels.zone"
    assert loads(index_of(node("a", memory=4, zone="eu"), node("b", memory=16, zone="us"), *wanted)) == {"a": 1, "b": 3}


def failing(node_id: str, times: int, at: int = NOW) -> Service:
    service = Service(id="web")
    service.restarts.events.extend(RestartEvent(node_id=node_id, failed=True, at=timestamp(at)) for _ in range(times))
    return service


def test_a_node_where_the_service_keeps_failing_comes_last() -> None:
    busy = [running(f"b{n}", "b") for n in range(3)]
    nodes = [node("a"), node("b")]
    assert place(index_of(*nodes, *busy, failing("a", 5), task("t"))) == {"t": "b"}
    assert place(index_of(*nodes, *busy, failing("a", 4), task("t"))) == {"t": "a"}
    assert place(index_of(*nodes, *busy, failing("a", 5, NOW - FAULTY_WINDOW), task("t"))) == {"t": "a"}
    assert place(index_of(node("a"), failing("a", 5), task("t"))) == {"t": "a"}


def test_an_end_by_health_check_counts_against_the_node_twice() -> None:
    ended = [running(f"u{n}", "a") for n in range(3)]
    for each in ended:
        each.status.state, each.status.unhealthy = FAILED, True
        each.status.timestamp.CopyFrom(timestamp(NOW))
    objects: list[Node | Task | Service] = [node("a"), node("b"), running("b1", "b"), failing("a", 3), task("t")]
    assert place(index_of(*objects)) == {"t": "a"}
    assert place(index_of(*objects, *ended)) == {"t": "b"}


def test_a_refused_task_is_tried_again_only_when_something_changed() -> None:
    small = node("a", memory=1)
    index = index_of(small, task("t", memory=4))
    assert refusals(index)
    heartbeat = edited(small)
    heartbeat.updated_at.CopyFrom(timestamp(NOW))
    index.observe(heartbeat)
    assert not index.due
    index.observe(node("a", memory=8))
    assert place(index) == {"t": "a"}


def test_what_ends_makes_room() -> None:
    held = running("old", "a", memory=8)
    index = index_of(node("a"), held, task("t", memory=8))
    assert refusals(index)
    ended = edited(held)
    ended.status.state = FAILED
    index.observe(ended)
    assert place(index) == {"t": "a"}


def test_a_booking_is_confirmed_or_taken_back_by_the_stored_task() -> None:
    index = index_of(node("a"), task("t", memory=8))
    assert place(index) == {"t": "a"}
    stored = task("t", memory=8)
    stored.version.index, stored.node_id, stored.status.state = 2, "a", ASSIGNED
    index.observe(stored)
    late = task("t", memory=8)
    late.version.index = 1
    index.observe(late)
    index.observe(task("u", memory=1))
    assert refusals(index) == {"no suitable node (1 node: insufficient memory)"}
    index.forget(stored)
    assert place(index) == {"u": "a"}


@settings(max_examples=60, deadline=None)
@given(
    memory=st.lists(st.integers(0, 8), min_size=1, max_size=6),
    wanted=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2)), max_size=40),
)
def test_no_node_is_ever_given_more_than_it_has(memory: list[int], wanted: list[tuple[int, int, int]]) -> None:
    nodes = [node(f"n{number}", memory=size) for number, size in enumerate(memory)]
    asked = [
        task(f"t{number}", f"s{service}", memory=size, port=port) for number, (size, service, port) in enumerate(wanted)
    ]
    index = index_of(*nodes, *asked)
    decided = plan(index.take_due(), index, NOW)
    by_id = {each.id: each for each in asked}
    used: Counter[str] = Counter()
    ports: set[tuple[str, int]] = set()
    for placement in decided.placements:
        each = by_id[placement.task.id]
        used[placement.node_id] += each.spec.resources.reservations.memory_bytes >> 30
        for port in each.ports:
            assert (placement.node_id, port.published_port) not in ports
            ports.add((placement.node_id, port.published_port))
    assert all(used[f"n{number}"] <= size for number, size in enumerate(memory))
    assert len(decided.placements) + len(decided.refusals) == len(asked)
    for refusal in decided.refusals:
        free = max(size - used[f"n{number}"] for number, size in enumerate(memory))
        needs = by_id[refusal.task.id].spec.resources.reservations.memory_bytes >> 30
        assert needs > free or by_id[refusal.task.id].ports
