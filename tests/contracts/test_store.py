"""What every store promises, asked of the store in memory and of the store on real etcd."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from swarmd.manager.store import etcd
from swarmd.manager.store.edit import edited
from swarmd.manager.store.election import EtcdElection
from swarmd.manager.store.etcd import PREFIX, Keys, open_store
from swarmd.manager.store.etcd_client import EtcdClient
from swarmd.manager.store.interface import AnyObject, Commit, Election, LeadershipLost, Store, Tx
from swarmd.manager.store.memory import MemoryBackend, MemoryElection, MemoryStore
from swarmd.proto import etcd_pb2 as rpc
from swarmd.proto.clock import SystemClock
from swarmd.proto.errors import AlreadyExists, Conflict, Invalid, Unavailable
from swarmd.proto.objects_pb2 import Node, NodeDescription, Service, ServiceSpec, Task, TaskStatus
from tests.contracts.etcd_server import kill, one_member

pytestmark = pytest.mark.etcd


@dataclass
class Place:
    election: Election
    open: Callable[[], "object"]
    held: AsyncExitStack

    async def store(self) -> Store:
        made = self.open()
        return made if isinstance(made, MemoryStore) else await self.held.enter_async_context(made)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "etcd"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as held:
        if request.param == "memory":
            backend = MemoryBackend()
            yield Place(MemoryElection(backend), lambda: MemoryStore(SystemClock(), backend), held)
            return
        _, _, client = await held.enter_async_context(one_member(tmp_path))
        yield Place(EtcdElection(client), lambda: open_store(client, SystemClock()), held)


def service(id: str, name: str) -> Service:
    return Service(id=id, spec=ServiceSpec(name=name))


def putting(*objects: AnyObject) -> Callable[[Tx], None]:
    def put(tx: Tx) -> None:
        for obj in objects:
            tx.put(obj)

    return put


async def until(done: Callable[[], object], seen: Callable[[], object] = lambda: "", seconds: float = 10) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not done():  # noqa: ASYNC110 (the condition is another task's doing)
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s; last seen: {seen()}") from None


@asynccontextmanager
async def collected(store: Store) -> AsyncIterator[list[Commit]]:
    """The commits as they come."""
    seen: list[Commit] = []
    async with store.view_and_watch() as (_, commits), asyncio.TaskGroup() as group:

        async def collect() -> None:
            async for commit in commits:
                seen.append(commit)  # noqa: PERF401 (others look at it meanwhile)

        task = group.create_task(collect())
        yield seen
        task.cancel()


async def test_what_was_written_is_in_the_view_when_transact_returns(place: Place) -> None:
    store = await place.store()
    await store.transact(putting(service("s", "web"), Task(id="t", service_id="s", node_id="n")))
    view = store.view()
    found = view.get(Service, "s")
    assert found is not None
    assert found.version.index > 0
    assert found.created_at == found.updated_at != Service().created_at
    assert [o.id for o in view.find(Task, service_id="s")] == ["t"] == [o.id for o in view.find(Task, node_id="n")]
    assert [o.id for o in view.find(Service, name="web")] == ["s"]
    assert view.find(Service, name="other") == view.find(Task, node_id="other") == []


async def test_nodes_are_found_by_hostname(place: Place) -> None:
    store = await place.store()
    await store.transact(putting(Node(id="n", description=NodeDescription(hostname="host1"))))
    assert [node.id for node in store.view().find(Node, name="host1")] == ["n"]


async def test_a_transaction_sees_its_own_writes_and_leaves_nothing_when_it_raises(place: Place) -> None:
    store = await place.store()

    def fails(tx: Tx) -> None:
        tx.put(service("s", "web"))
        assert tx.get(Service, "s") is not None
        assert len(tx.find(Service, name="web")) == 1
        raise Invalid("no")

    with pytest.raises(Invalid):
        await store.transact(fails)
    assert store.view().find(Service) == []


async def test_a_name_is_taken_once_and_free_again_after_removal(place: Place) -> None:
    one, other = await place.store(), await place.store()
    await one.transact(putting(service("s", "web")))
    with pytest.raises(AlreadyExists, match="web"):
        await other.transact(putting(service("x", "web")))
    await one.transact(lambda tx: tx.delete(service("s", "web")))
    await until(lambda: not other.view().find(Service))
    await other.transact(putting(service("x", "web")))


async def test_two_managers_race_for_a_name_and_one_wins(place: Place) -> None:
    stores = [await place.store() for _ in range(4)]
    results = await asyncio.gather(
        *(store.transact(putting(service(f"s{n}", "web"))) for n, store in enumerate(stores)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["AlreadyExists"] * 3 + ["NoneType"]


async def test_an_update_from_an_old_version_is_refused(place: Place) -> None:
    store = await place.store()
    await store.transact(putting(service("s", "web")))
    old = store.view().get(Service, "s")
    assert old is not None
    await store.transact(putting(edited(old)))
    with pytest.raises(Conflict):
        await store.transact(putting(edited(old)))


async def test_increments_by_rivals_are_all_counted(place: Place) -> None:
    stores = [await place.store() for _ in range(3)]
    await stores[0].transact(putting(Task(id="t")))

    def increment(tx: Tx) -> None:
        task = edited(tx.get(Task, "t") or Task(id="t"))
        task.slot += 1
        tx.put(task)

    await asyncio.gather(*(store.transact(increment) for store in stores for _ in range(10)))
    await until(lambda: all((store.view().get(Task, "t") or Task()).slot == 30 for store in stores))


async def test_a_watcher_sees_every_change_in_order(place: Place) -> None:
    store, writer = await place.store(), await place.store()
    async with collected(store) as seen:
        for slot in range(1, 21):
            await writer.transact(putting(Task(id="t", slot=slot)))
        await writer.transact(lambda tx: tx.delete(Task(id="t")))
        await until(lambda: seen and seen[-1].changes[-1].new is None, lambda: seen)
        states = [(change.old, change.new) for commit in seen for change in commit.changes]
        assert states[0][0] is None
        assert all(earlier[1] == later[0] for earlier, later in pairwise(states))
        assert [commit.revision for commit in seen] == sorted({commit.revision for commit in seen})


async def test_a_slow_watcher_gets_changes_merged(place: Place) -> None:
    store = await place.store()
    async with store.view_and_watch() as (_, commits):
        for slot in range(50):
            await store.transact(putting(Task(id="t", slot=slot)))
        await store.transact(putting(Task(id="u")))
        merged = await anext(commits)
    assert [(c.old, c.obj.id, getattr(c.new, "slot", None)) for c in merged.changes] == [
        (None, "t", 49),
        (None, "u", 0),
    ]


async def test_a_batch_is_cut_into_transactions_that_fit(place: Place) -> None:
    store = await place.store()
    await store.batch(range(1000), lambda tx, n: tx.put(Task(id=f"t{n}", status=TaskStatus(message="m" * 5000))))
    assert len(store.view().find(Task)) == 1000
    with pytest.raises(Invalid):
        await store.transact(putting(*(Task(id=f"x{n}") for n in range(1000))))


async def test_a_deposed_leader_writes_nothing(place: Place) -> None:
    store = await place.store()
    async with place.election.campaign("one") as leadership:
        assert await place.election.leader() == "one"
        fenced = store.fenced(leadership.fence)
        await fenced.transact(putting(Task(id="t")))
    with pytest.raises(LeadershipLost):
        await fenced.transact(putting(Task(id="u")))
    assert store.view().get(Task, "u") is None


async def test_the_next_candidate_leads_when_the_first_resigns(place: Place) -> None:
    led: list[str] = []

    async def lead(name: str, enough: asyncio.Event) -> None:
        async with place.election.campaign(name):
            led.append(name)
            await enough.wait()

    first, second = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(lead("one", first))
        await until(lambda: led == ["one"], lambda: led)
        group.create_task(lead("two", second))
        await asyncio.sleep(0)
        first.set()
        await until(lambda: led == ["one", "two"], lambda: led)
        second.set()


# ---------------------------------------------------------------- etcd alone


async def test_a_watch_goes_on_after_etcd_was_killed(tmp_path: Path) -> None:
    async with (
        one_member(tmp_path) as (_, member, client),
        open_store(client, SystemClock()) as store,
        collected(store) as seen,
    ):
        await store.transact(putting(Task(id="before")))
        kill(member)
        while True:
            try:
                await store.transact(putting(Task(id="after")))
                break
            except Unavailable:
                continue
        await until(lambda: {c.obj.id for commit in seen for c in commit.changes} == {"before", "after"})


async def test_what_was_compacted_away_is_listed_again(tmp_path: Path) -> None:
    async with one_member(tmp_path) as (cluster, member, client), open_store(client, SystemClock()) as store:
        await store.transact(putting(Task(id="kept"), Task(id="gone")))
        async with collected(store) as seen:
            kill(member)  # the watch is down while others write and compact
            async with type(client)([member.client_url], cluster.tls) as other:
                await until_answers(other)
                put = rpc.PutRequest(key=Keys(PREFIX).objects + b"task/new", value=Task(id="new").SerializeToString())
                await other.call("put", lambda at: at.kv.Put(put))
                gone = rpc.DeleteRangeRequest(key=Keys(PREFIX).objects + b"task/gone")
                answer = await other.call("delete", lambda at: at.kv.DeleteRange(gone))
                compact = rpc.CompactionRequest(revision=answer.header.revision)
                await other.call("compact", lambda at: at.kv.Compact(compact))
            await until(lambda: {task.id for task in store.view().find(Task)} == {"kept", "new"})
            changed = {(c.obj.id, c.new is None) for commit in seen for c in commit.changes}
            assert changed == {("new", False), ("gone", True)}


async def until_answers(client: object) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await client.range(b"\0")  # type: ignore[attr-defined]
                return
            except Unavailable:
                continue


async def test_without_etcd_a_write_fails_in_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd, "PATIENCE", 0.5)
    monkeypatch.setitem(EtcdClient.call.__kwdefaults__, "deadline", 0.4)
    async with AsyncExitStack() as held:
        _, member, client = await held.enter_async_context(one_member(tmp_path))
        store = await held.enter_async_context(open_store(client, SystemClock()))
        member._files.root.rename(tmp_path / "away")  # it can't come back
        kill(member)
        with pytest.raises(Unavailable):
            async with asyncio.timeout(15):
                await store.transact(putting(Task(id="t")))


async def test_an_independent_client_reads_and_writes_the_same(tmp_path: Path) -> None:
    """The published etcd3 client, on our stubs in place of its own, which no current protobuf can load."""
    etcd3 = pytest.importorskip("tests.contracts.witness").etcd3
    async with one_member(tmp_path) as (_, member, client), open_store(client, SystemClock()) as store:
        await store.transact(putting(service("s", "web")))
        host = member.client_url.removeprefix("https://").partition(":")[0]
        files = member._files

        def read_and_write() -> bytes:
            witness = etcd3.client(
                host=host, port=2379, ca_cert=str(files.root), cert_cert=str(files.certificate), cert_key=str(files.key)
            )
            value, _ = witness.get("/swarmd/v1/service/s")
            assert witness.get("/swarmd/names/service/web")[0] == b"s"
            witness.put("/swarmd/v1/task/t", Task(id="t", slot=7).SerializeToString())
            witness.close()
            return bytes(value)

        value = await asyncio.to_thread(read_and_write)
        assert Service.FromString(value).spec.name == "web"
        await until(lambda: (store.view().get(Task, "t") or Task()).slot == 7)
