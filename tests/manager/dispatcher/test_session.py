"""Sessions over real gRPC: what an agent is told, what becomes of its statuses, and when its node is down."""

import grpc
import pytest

from swarmd.agent import session
from swarmd.manager.dispatcher import attendance
from swarmd.manager.store.memory import MemoryBackend, MemoryStore
from swarmd.proto import objects_pb2 as pb
from swarmd.proto import task_states as states
from tests.manager.dispatcher.agents import (
    CLOCK,
    agent,
    change,
    delete,
    dispatching,
    goodbye,
    network,
    node,
    put,
    state_of,
    task,
    until,
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(CLOCK)


def short_period(ms: int = 200) -> pb.Cluster:
    cluster = pb.Cluster(id="cluster1", spec=pb.ClusterSpec(name="default"))
    cluster.spec.dispatcher.heartbeat_period = ms * 1_000_000
    return cluster


async def test_hello_registers_and_welcomes(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(store, node("m", manager_addr="10.0.0.1:2378"), node("a"))
    async with dispatching(store, "m", monkeypatch) as address, agent(address, "a") as a:
        await until(lambda: a.fulls, lambda: a.known)
        assert a.welcome is not None
        assert a.welcome.heartbeat_period == 1_000_000_000
        assert a.welcome.node_info.node.id == "a"
        assert [peer.addr for peer in a.welcome.node_info.managers] == ["10.0.0.1:2378"]
        assert a.welcome.node_info.root_certificate == b"root"
        stored = store.view().get(pb.Node, "a")
        assert stored is not None
        assert stored.status.state == pb.NODE_STATE_READY
        assert stored.status.addr == stored.description.addr == "10.1.1.97"
        assert stored.session_manager == "m"


async def test_full_then_incremental(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = task("t0", "a", states.FAILED)
    await put(store, node("m"), node("a"), task("t1", "a"), ended, task("t2", "b"), task("t3", "a", states.PENDING))
    async with dispatching(store, "m", monkeypatch) as address, agent(address, "a") as a:
        await until(lambda: a.keys("task") == {("t1",)}, lambda: a.known)
        await put(store, task("t4", "a"))
        await until(lambda: ("t4",) in a.keys("task"), lambda: a.known)
        await change(store, pb.Task, "t1", lambda t: setattr(t, "desired_state", states.SHUTDOWN))
        await until(lambda: a.known["task", "t1"].desired_state == states.SHUTDOWN, lambda: a.known)
        await a.report(1, t1=states.SHUTDOWN)
        await until(lambda: a.keys("task") == {("t4",)}, lambda: a.known)
        await delete(store, pb.Task, "t4")
        await until(lambda: not a.keys("task"), lambda: a.known)
        assert a.fulls == 1


async def test_only_networks_of_live_tasks_and_ingress(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(store, network("ingress", ingress=True), network("n1"), network("n2"))
    await put(store, node("a", networks=["n1"]), node("b", networks=["n1", "n2"]), task("t1", "a", networks=["n1"]))
    await put(store, task("t2", "b", states.RUNNING, networks=["n1"]), task("t3", "b", networks=["n2"]))
    async with dispatching(store, "m", monkeypatch) as address, agent(address, "a") as a:
        await until(lambda: a.fulls, lambda: a.known)
        assert a.keys("network") == {("ingress",), ("n1",)}
        assert a.keys("endpoint") == {("n1", "t1"), ("n1", "t2")}
        assert a.keys("node_endpoint") == {("n1", "a"), ("n1", "b")}
        assert a.known["endpoint", "n1", "t2"].serving
        assert a.known["endpoint", "n1", "t2"].task_name == "web.1.t2"
        await a.report(1, t1=states.COMPLETE)
        await until(lambda: a.keys("network") == {("ingress",)} and not a.keys("endpoint"), lambda: a.known)
        await put(store, task("t4", "a", networks=["n2"]))
        await until(lambda: a.keys("endpoint") == {("n2", "t3"), ("n2", "t4")}, lambda: a.known)
        await put(store, network("ingress2", ingress=True))
        await until(lambda: ("ingress2",) in a.keys("network"), lambda: a.known)


async def test_ingress_services_go_to_all(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(store, node("a"), network("n1"))
    published = pb.Service(id="web", spec=pb.ServiceSpec(name="web"))
    published.endpoint.ports.add(protocol="tcp", target_port=80, published_port=8080)
    inner = pb.Service(id="db", spec=pb.ServiceSpec(name="db"))
    inner.endpoint.virtual_ips.add(network_id="n1", addr="10.0.1.2/24")
    await put(store, published, inner)
    async with dispatching(store, "m", monkeypatch) as address, agent(address, "a") as a:
        await until(lambda: a.keys("service") == {("web",)}, lambda: a.known)
        await put(store, task("t1", "a", networks=["n1"]))
        await until(lambda: a.keys("service") == {("web",), ("db",)}, lambda: a.known)
        await delete(store, pb.Service, "web")
        await until(lambda: a.keys("service") == {("db",)}, lambda: a.known)


async def test_running_task_serves_and_knows_the_address_of_its_node(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, network("n1"), node("a"), node("b"))
    await put(store, task("t1", "a", networks=["n1"]), task("t2", "b", networks=["n1"]))
    async with dispatching(store, "m", monkeypatch) as address, agent(address, "a") as a:
        await until(lambda: a.fulls, lambda: a.known)
        assert not a.known["endpoint", "n1", "t2"].serving
        async with agent(address, "b") as b:
            await until(lambda: a.known["endpoint", "n1", "t2"].node_addr == "10.1.1.98", lambda: a.known)
            await b.report(1, t2=states.RUNNING)
            await until(lambda: a.known["endpoint", "n1", "t2"].serving, lambda: a.known)
            await change(store, pb.Task, "t2", lambda t: setattr(t, "desired_state", states.SHUTDOWN))
            await until(lambda: not a.known["endpoint", "n1", "t2"].serving, lambda: a.known)


async def test_statuses_are_acked_and_only_legal_moves_stored(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, node("a"), task("t1", "a"), task("t2", "b"), task("t3", "a", states.FAILED), task("t4", "a"))
    async with dispatching(store, "m", monkeypatch) as address, agent(address, "a") as a:
        await until(lambda: a.fulls, lambda: a.known)
        await a.report(7, t1=states.RUNNING, t2=states.RUNNING, t3=states.RUNNING, t4=states.ORPHANED, t5=states.READY)
        await until(lambda: a.acked == [7], lambda: a.acked)
        await a.report(8, t1=states.STARTING)
        await until(lambda: a.acked == [7, 8], lambda: a.acked)
        found = {t.id: t.status.state for t in store.view().find(pb.Task)}
        assert found == {"t1": states.RUNNING, "t2": states.ASSIGNED, "t3": states.FAILED, "t4": states.ASSIGNED}


async def test_node_info_again_when_role_or_managers_change(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, node("a"), node("m", manager_addr="10.0.0.1:2378"))
    async with dispatching(store, "m", monkeypatch) as address, agent(address, "a") as a:
        await until(lambda: a.fulls, lambda: a.known)
        await change(store, pb.Node, "a", lambda n: setattr(n.spec, "role", pb.NODE_ROLE_MANAGER))
        await until(lambda: [i.node.spec.role for i in a.infos] == [pb.NODE_ROLE_MANAGER], lambda: a.infos)
        await put(store, node("m2", manager_addr="10.0.0.2:2378"))
        await until(lambda: a.infos[-1].managers[-1].addr == "10.0.0.2:2378", lambda: a.infos)


async def test_unknown_or_removed_node_is_told_so(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(store, node("a"))
    async with dispatching(store, "m", monkeypatch) as address:
        async with agent(address, "x") as x:
            await until(lambda: x.error, lambda: x.known)
            assert x.error is not None and x.error.code() == grpc.StatusCode.NOT_FOUND
        async with agent(address, "a") as a:
            await until(lambda: a.fulls, lambda: a.known)
            await delete(store, pb.Node, "a")
            await until(lambda: a.error, lambda: a.known)
            assert a.error is not None and a.error.code() == grpc.StatusCode.NOT_FOUND
            assert "node a was removed from the cluster" in (a.error.details() or "")


async def test_silent_node_is_down_after_three_periods(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(store, short_period(), node("a"), node("b"))
    async with (
        dispatching(store, "m", monkeypatch) as address,
        agent(address, "a", period=None) as a,
        agent(address, "b", period=0.1) as b,
    ):
        await until(lambda: a.fulls and b.fulls, lambda: a.known)
        begun = CLOCK.monotonic()
        await until(lambda: state_of(store, "a") == pb.NODE_STATE_DOWN, lambda: state_of(store, "a"))
        assert CLOCK.monotonic() - begun > 0.5
        await until(lambda: a.error, lambda: a.known)
        assert state_of(store, "b") == pb.NODE_STATE_READY


async def test_closed_stream_is_disconnected_then_down_and_a_session_brings_it_back(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmd.manager.dispatcher.attendance.GRACE", 0.6)
    await put(store, node("a"))
    async with dispatching(store, "m", monkeypatch) as address:
        async with agent(address, "a") as a:
            await until(lambda: a.fulls, lambda: a.known)
        await until(lambda: state_of(store, "a") == pb.NODE_STATE_DISCONNECTED, lambda: state_of(store, "a"))
        await until(lambda: state_of(store, "a") == pb.NODE_STATE_DOWN, lambda: state_of(store, "a"))
        async with agent(address, "a") as a:
            await until(lambda: a.fulls, lambda: a.known)
            assert state_of(store, "a") == pb.NODE_STATE_READY


async def test_a_node_that_says_goodbye_is_down_at_once(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.manager.dispatcher.attendance.GRACE", 60)
    await put(store, node("a"))
    async with dispatching(store, "m", monkeypatch) as address:
        async with agent(address, "a") as a:
            await until(lambda: a.fulls, lambda: a.known)
            await goodbye(address, "a")
            assert state_of(store, "a") == pb.NODE_STATE_DOWN
        with pytest.raises(grpc.aio.AioRpcError, match="was removed from the cluster"):
            await goodbye(address, "stranger")
        assert state_of(store, "a") == pb.NODE_STATE_DOWN
        async with agent(address, "a") as again:
            await until(lambda: again.fulls, lambda: again.known)
            assert state_of(store, "a") == pb.NODE_STATE_READY


async def test_newer_session_takes_over(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(store, node("a"))
    async with dispatching(store, "m", monkeypatch) as address, agent(address, "a") as first:
        await until(lambda: first.fulls, lambda: first.known)
        async with agent(address, "a") as second:
            await until(lambda: second.fulls and first.error, lambda: second.known)
            await put(store, task("t1", "a"))
            await until(lambda: second.keys("task"), lambda: second.known)
            assert state_of(store, "a") == pb.NODE_STATE_READY


async def test_session_with_another_manager_keeps_the_node_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.manager.dispatcher.attendance.GRACE", 0.3)
    backend = MemoryBackend()
    here, there = MemoryStore(CLOCK, backend), MemoryStore(CLOCK, backend)
    await put(here, short_period(), node("a"), node("c"), task("t1", "a"))
    async with (
        dispatching(here, "m1", monkeypatch) as one,
        dispatching(there, "m2", monkeypatch) as two,
        agent(one, "a", period=0.1) as a,
        agent(one, "c", period=0.1) as c,
    ):
        await until(lambda: a.fulls and c.fulls, lambda: a.known)
        a.drop()
        async with agent(two, "a", period=0.1) as again:
            await until(lambda: again.keys("task") == {("t1",)}, lambda: again.known)
            await until(lambda: state_of(here, "a") == pb.NODE_STATE_READY, lambda: state_of(here, "a"))
            c.drop()  # its grace ends after that of a would
            await until(lambda: state_of(here, "c") == pb.NODE_STATE_DOWN, lambda: state_of(here, "c"))
            stored = there.view().get(pb.Node, "a")
            assert stored is not None
            assert (stored.status.state, stored.session_manager) == (pb.NODE_STATE_READY, "m2")


async def test_restarted_manager_gives_its_nodes_time_then_calls_them_down(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmd.manager.dispatcher.attendance.RETURN", 0.4)
    lost = node("a")
    lost.status.state = pb.NODE_STATE_READY
    lost.session_manager = "m"
    await put(store, lost)
    async with dispatching(store, "m", monkeypatch):
        await until(lambda: state_of(store, "a") == pb.NODE_STATE_DOWN, lambda: state_of(store, "a"))


def test_a_restarted_manager_waits_longer_than_its_nodes_take_to_find_it() -> None:
    assert session.WELCOME + session.LONGEST_PAUSE < attendance.RETURN
