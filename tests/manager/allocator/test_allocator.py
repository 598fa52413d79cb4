"""What networks, services, tasks and nodes are given, and what they are told when it can't be had."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.manager.allocator import Allocator
from swarmd.manager.allocator.pools import Addresses, next_subnet
from swarmd.manager.store.edit import edited
from swarmd.proto.clock import SystemClock
from swarmd.proto.errors import Exhausted
from swarmd.proto.objects_pb2 import (
    ENDPOINT_MODE_DNSRR,
    PUBLISH_MODE_HOST,
    Cluster,
    IPAMConfig,
    Network,
    NetworkAttachmentConfig,
    Node,
    PortConfig,
    Service,
    Task,
)
from swarmd.proto.task_states import ASSIGNED, FAILED, NEW, PENDING, RUNNING, SHUTDOWN
from tests.manager.small_store import SmallStore, running


def network(id: str, subnet: str = "", **spec: bool) -> Network:
    made = Network(id=id)
    made.spec.name = id
    if subnet:
        made.spec.ipam.append(IPAMConfig(subnet=subnet))
    for key, value in spec.items():
        setattr(made.spec, key, value)
    return made


INGRESS = network("ingress", ingress=True)


def service(id: str, *networks: str, ports: list[PortConfig] | None = None) -> Service:
    made = Service(id=id, spec_version=1)
    made.spec.name = id
    made.spec.task.networks.extend(NetworkAttachmentConfig(target=each) for each in networks)
    made.spec.endpoint.ports.extend(ports or [])
    return made


def task(of: Service, number: int = 0) -> Task:
    made = Task(id=f"{of.id}-{number}", service_id=of.id, spec=of.spec.task, desired_state=RUNNING)
    made.status.state = NEW
    return made


def port(published: int, target: int = 80) -> PortConfig:
    return PortConfig(protocol="tcp", target_port=target, published_port=published)


def allocator(store: SmallStore) -> Allocator:
    return Allocator(store, SystemClock())


def state(store: SmallStore, id: str) -> int:
    return store.the(Task, id).status.state


def err(store: SmallStore, id: str) -> str:
    return store.the(Task, id).status.err


def stored(store: SmallStore, service_id: str) -> Service:
    return store.the(Service, service_id)


def end(store: SmallStore, id: str) -> None:
    ended = edited(store.the(Task, id))
    ended.status.state = FAILED
    store.put(ended)


def addresses(store: SmallStore, network_id: str) -> list[str]:
    """All addresses in use on a network, by tasks that have not ended, services and nodes."""
    found = [v.addr for s in store.find(Service) for v in s.endpoint.virtual_ips if v.network_id == network_id]
    holders: list[Task | Node] = [each for each in store.find(Task) if each.status.state != FAILED]
    holders += store.find(Node)
    return found + [a for h in holders for n in h.networks if n.network_id == network_id for a in n.addresses]


async def test_a_service_without_networks_or_ports_goes_straight_on() -> None:
    web = service("web")
    store = SmallStore(web, task(web))
    async with running(allocator(store).run):
        await store.settled(lambda store: state(store, "web-0") == PENDING)
    assert not store.the(Task, "web-0").networks
    assert store.revision == 3


async def test_networks_get_a_subnet_each_and_their_members_addresses_in_it() -> None:
    web = service("web", "front", "back")
    store = SmallStore(
        Cluster(id="c", default_addr_pool=["10.9.0.0/16"], subnet_size=24),
        network("front"), network("back", "192.168.7.0/24"), web, task(web),
    )  # fmt: skip
    async with running(allocator(store).run):
        await store.settled(lambda store: state(store, "web-0") == PENDING)
    assert store.the(Network, "front").subnet == "10.9.0.0/24"
    assert store.the(Network, "back").subnet == "192.168.7.0/24"
    assert {n.vni for n in store.find(Network)} == {4096, 4097}
    vips = {vip.network_id: vip.addr for vip in stored(store, "web").endpoint.virtual_ips}
    attached = {n.network_id: n.addresses[0] for n in store.the(Task, "web-0").networks}
    assert vips == {"front": "10.9.0.1/24", "back": "192.168.7.1/24"}
    assert attached == {"front": "10.9.0.2/24", "back": "192.168.7.2/24"}


async def test_dnsrr_has_no_virtual_ip() -> None:
    web = service("web", "front")
    web.spec.endpoint.mode = ENDPOINT_MODE_DNSRR
    store = SmallStore(network("front"), web, task(web))
    async with running(allocator(store).run):
        await store.settled(lambda store: state(store, "web-0") == PENDING)
    assert not stored(store, "web").endpoint.virtual_ips


async def test_published_ports_bring_the_ingress_network_and_keep_their_number() -> None:
    host = PortConfig(target_port=9, published_port=9, publish_mode=PUBLISH_MODE_HOST)
    web = service("web", ports=[port(8080), port(0, 81), host])
    store = SmallStore(INGRESS, Node(id="n"), web, task(web))
    async with running(allocator(store).run):
        await store.settled(lambda store: state(store, "web-0") == PENDING)
        given = [(p.protocol, p.published_port) for p in store.the(Task, "web-0").ports]
        assert given == [("tcp", 8080), ("tcp", 30000), ("tcp", 9)]
        assert [n.network_id for n in store.the(Task, "web-0").networks] == ["ingress"]
        assert [n.network_id for n in store.the(Node, "n").networks] == ["ingress"]
        changed = edited(stored(store, "web"))
        del changed.spec.endpoint.ports[0]
        store.put(changed)
        await store.settled(lambda store: len(stored(store, "web").endpoint.ports) == 2)
    assert stored(store, "web").endpoint.ports[0].published_port == 30000


async def test_a_taken_port_is_named_and_goes_to_the_next_when_free() -> None:
    one, two = service("one", ports=[port(80)]), service("two", ports=[port(80)])
    store = SmallStore(INGRESS, one, two, task(one), task(two))
    async with running(allocator(store).run):
        await store.settled(lambda store: err(store, "two-0") == "port 80/tcp is already published by service one")
        assert state(store, "one-0") == PENDING
        store.delete(stored(store, "one"))
        await store.settled(lambda store: state(store, "two-0") == PENDING)
    assert err(store, "two-0") == ""


async def test_a_full_network_says_so_and_what_comes_free_is_given_again() -> None:
    web = service("web", "small")
    store = SmallStore(network("small", "10.1.0.0/29"), web, *(task(web, n) for n in range(7)))
    async with running(allocator(store).run):
        await store.settled(lambda store: err(store, "web-6") == "network small: all 6 addresses in use")
        assert [state(store, f"web-{n}") for n in range(7)] == [PENDING] * 5 + [NEW] * 2
        freed = store.the(Task, "web-3").networks[0].addresses
        end(store, "web-3")
        await store.settled(lambda store: state(store, "web-5") == PENDING)
        assert store.the(Task, "web-5").networks[0].addresses == freed
        assert state(store, "web-6") == NEW


async def test_a_network_without_room_for_its_subnet_says_so() -> None:
    web = service("web", "second")
    cluster = Cluster(id="c", default_addr_pool=["10.9.0.0/24"], subnet_size=24)
    store = SmallStore(cluster, network("first"), network("second"), web, task(web))
    async with running(allocator(store).run):
        await store.settled(lambda store: "no subnet of size /24 is left in 10.9.0.0/24" in err(store, "web-0"))
        store.delete(store.the(Network, "first"))
        await store.settled(lambda store: state(store, "web-0") == PENDING)


async def test_nodes_have_a_gateway_on_the_networks_of_their_tasks() -> None:
    web = service("web", "front")
    store = SmallStore(network("front"), Node(id="n"), Node(id="m"), web, task(web))
    async with running(allocator(store).run):
        await store.settled(lambda store: state(store, "web-0") == PENDING)
        assigned = edited(store.the(Task, "web-0"))
        assigned.node_id, assigned.status.state = "n", ASSIGNED
        store.put(assigned)
        await store.settled(lambda store: len(store.the(Node, "n").networks) == 1)
        assert not store.the(Node, "m").networks
        assert len(set(addresses(store, "front"))) == 3
        end(store, "web-0")
        store.delete(store.the(Task, "web-0"))
        await store.settled(lambda store: not store.the(Node, "n").networks)


async def test_a_removed_network_goes_when_its_last_task_has_ended() -> None:
    web = service("web", "front")
    store = SmallStore(network("front"), web, task(web))
    async with running(allocator(store).run):
        await store.settled(lambda store: state(store, "web-0") == PENDING)
        doomed = edited(store.the(Network, "front"))
        doomed.removing = True
        store.put(doomed)
        store.put(task(web, 1))
        await store.settled(lambda store: err(store, "web-1") == "network front is not there any more")
        assert store.the(Network, "front")
        end(store, "web-0")
        await store.settled(lambda store: store.get(Network, "front") is None)


async def test_a_new_leader_gives_nothing_that_is_in_use() -> None:
    web = service("web", "front", ports=[port(0)])
    store = SmallStore(INGRESS, network("front"), web, *(task(web, n) for n in range(5)))
    for start in (5, 10):
        async with running(allocator(store).run):
            await store.settled(lambda store: all(t.status.state == PENDING for t in store.find(Task)))
        other = service(f"other{start}", "front", ports=[port(0)])
        store.put(other)
        for number in range(start, start + 5):
            store.put(task(web, number))
    async with running(allocator(store).run):
        await store.settled(lambda store: all(t.status.state == PENDING for t in store.find(Task)))
        await store.settled(lambda store: all(s.endpoint.ports for s in store.find(Service)))
    for id in ("front", "ingress"):
        given = addresses(store, id)
        assert len(given) == len(set(given))
    published = [s.endpoint.ports[0].published_port for s in store.find(Service)]
    assert sorted(published) == [30000, 30001, 30002]


async def test_a_task_stopped_while_it_is_served_gives_its_address_back() -> None:
    web = service("web", "small")
    store = SmallStore(network("small", "10.1.0.0/30"), web)
    async with running(allocator(store).run):
        await store.settled(lambda store: stored(store, "web").endpoint.virtual_ips)
        store.put(task(web, 0))
        await store.settled(lambda store: state(store, "web-0") == PENDING)
        store.put(task(web, 1))
        await store.settled(lambda store: "all 2 addresses" in err(store, "web-1"))
        stopped = edited(store.the(Task, "web-1"))
        stopped.desired_state = SHUTDOWN
        store.put(stopped)
        end(store, "web-0")
        store.put(task(web, 2))
        await store.settled(lambda store: state(store, "web-2") == PENDING)


def test_an_address_is_not_given_again_before_all_others() -> None:
    pool = Addresses("web", ipaddress.IPv4Network("10.0.0.0/29"))
    first = pool.take("a")
    pool.free(first, "a")
    assert [pool.take(str(n)) for n in range(5)].count(first) == 0
    assert pool.take("b") == first


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_no_address_has_two_owners(steps: list[tuple[bool, int]]) -> None:
    pool = Addresses("web", ipaddress.IPv4Network("10.0.0.0/29"), reserved=["10.0.0.1"])
    held: dict[int, str] = {}
    for taking, owner in steps:
        if not taking:
            if owner in held:
                pool.free(held.pop(owner), str(owner))
        elif owner not in held:
            try:
                held[owner] = pool.take(str(owner))
            except Exhausted as full:
                assert len(held) == 5
                assert str(full) == "network web: all 6 addresses in use"
        assert len(set(held.values())) == len(held)
        assert "10.0.0.1/29" not in held.values()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 15)))
def test_subnets_never_overlap(removed: list[int]) -> None:
    used: list[ipaddress.IPv4Network] = [ipaddress.IPv4Network("10.0.16.0/21")]
    for turn in removed:
        try:
            used.append(next_subnet(["10.0.0.0/18"], 20, used))
        except Exhausted:
            assert len(used) == 4
        assert not any(a.overlaps(b) for a in used for b in used if a is not b)
        if len(used) > 1 + turn:
            del used[1 + turn]


def test_subnets_come_from_the_next_pool_when_one_is_full() -> None:
    used: list[ipaddress.IPv4Network] = []
    for _ in range(3):
        used.append(next_subnet(["10.0.0.0/24", "10.5.0.0/23"], 24, used))
    assert [str(each) for each in used] == ["10.0.0.0/24", "10.5.0.0/24", "10.5.1.0/24"]
    with pytest.raises(Exhausted, match="3 networks have theirs"):
        next_subnet(["10.0.0.0/24", "10.5.0.0/23"], 24, used)
