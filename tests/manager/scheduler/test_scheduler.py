"""The loop: what it stores, and that it keeps up with what others store."""

from collections.abc import Callable, Iterable

from swarmd.manager.scheduler import Scheduler
from swarmd.manager.store.interface import I, Tx
from swarmd.proto.clock import SystemClock
from swarmd.proto.objects_pb2 import NODE_STATE_DOWN, Task
from swarmd.proto.task_states import ASSIGNED, NEW, PENDING, SHUTDOWN
from tests.manager.scheduler.test_plan import node, task, tasks
from tests.manager.small_store import SmallStore, running


def states(store: SmallStore) -> set[int]:
    return {each.status.state for each in store.find(Task)}


async def test_pending_tasks_are_assigned_and_new_ones_left_alone() -> None:
    unready = task("new", "other")
    unready.status.state = NEW
    store = SmallStore(node("a"), node("b"), unready, *tasks(4))
    async with running(Scheduler(store, SystemClock()).run):
        await store.settled(lambda store: states(store) == {ASSIGNED, NEW})
        store.put(task("later"))
        await store.settled(lambda store: store.the(Task, "later").status.state == ASSIGNED)
    assert sorted(each.node_id for each in store.find(Task)) == ["", "a", "a", "a", "b", "b"]


async def test_a_task_says_why_it_waits_once_and_goes_when_it_can() -> None:
    store = SmallStore(node("a", memory=1), task("t", memory=4))
    async with running(Scheduler(store, SystemClock()).run):
        why = "no suitable node (1 node: insufficient memory)"
        await store.settled(lambda store: store.the(Task, "t").status.err == why)
        revision = store.revision
        store.put(task("u", memory=1))
        await store.settled(lambda store: store.the(Task, "u").status.state == ASSIGNED)
        assert store.revision == revision + 2
        store.put(node("b", memory=8))
        await store.settled(lambda store: store.the(Task, "t").node_id == "b")
    assert store.the(Task, "t").status.err == ""


class Meddler(SmallStore):
    """Before the first batch a node goes down and a task is stopped."""

    meddled = False

    async def batch(self, items: Iterable[I], fn: Callable[[Tx, I], None]) -> None:
        if not self.meddled:
            self.meddled = True
            down, stopped = node("a"), task("web000")
            down.status.state = NODE_STATE_DOWN
            stopped.desired_state = SHUTDOWN
            self.put(down)
            self.put(stopped)
        await super().batch(items, fn)


async def test_what_changed_while_a_pass_was_stored_is_respected() -> None:
    store = Meddler(node("a"), *tasks(2))
    async with running(Scheduler(store, SystemClock()).run):
        await store.settled(lambda store: "node not ready" in store.the(Task, "web001").status.err)
        store.put(node("a"))
        await store.settled(lambda store: store.the(Task, "web001").status.state == ASSIGNED)
    assert store.the(Task, "web000").status.state == PENDING
