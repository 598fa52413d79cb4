"""Chooses nodes for waiting tasks: rules say where one may run, the order of nodes where it should.

Order: nodes on which the service keeps failing last; then the least used branch of each placement preference; then
fewest tasks of the service; then fewest tasks in all.  Tasks alike are placed together, and tasks that demand the
same share one heap of nodes, so a placement costs O(log nodes).  No await, no clock; the only effect is that what is
given is booked in the index, for the next task to see.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace

from swarmd.manager.scheduler.constraints import value_of
from swarmd.manager.scheduler.filters import CAPACITY, STANDING, Rule, max_replicas_per_node_reached, reason, rules
from swarmd.manager.scheduler.index import Demand, GroupKey, Index, NodeInfo
from swarmd.proto.objects_pb2 import Task

_MOST_REMEMBERED = 1_000  # verdicts per node


@dataclass(frozen=True, slots=True)
class Placement:
    task: Task
    node_id: str


@dataclass(frozen=True, slots=True)
class Refusal:
    task: Task
    why: str


@dataclass(slots=True)
class Plan:
    placements: list[Placement] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def plan(groups: Iterable[tuple[GroupKey, Sequence[Task]]], index: Index, now: int) -> Plan:
    """Place as many tasks as there is room for; the others come back with the reason. now: ns."""
    decided = Plan()
    pools: dict[Demand, Pool] = {}
    for key, tasks in groups:
        pool = pools.get(key.demand)
        if pool is None:
            pool = pools[key.demand] = Pool(key.demand, index.nodes)
        group = _Group(key, index, pool, index.faulty(key.service_id, now))
        for task in tasks:
            info = group.place(task.id)
            if info is None:
                break
            decided.placements.append(Placement(task, info.id))
        group.finish()
        if group.placed < len(tasks):
            why = pool.explain(index.nodes, group.limit)
            decided.refusals += [Refusal(task, why) for task in tasks[group.placed :]]
    return decided


class Pool:
    """The nodes that may take a demand, fewest tasks first.

    Entries may be out of date, but only too low, since counts grow within a pass: put right when they reach the top.
    """

    def __init__(self, demand: Demand, nodes: Iterable[NodeInfo]) -> None:
        self._terms = demand.terms
        self._standing = rules(STANDING, demand)
        self._capacity = rules(CAPACITY, demand)
        self._refusal = ""
        self._heap = [(info.tasks, info.id, info) for info in nodes if not self._unfit(info)]
        heapify(self._heap)

    def pop(self) -> NodeInfo | None:
        """The node with the fewest tasks that can take one more; `push` it back for others."""
        heap = self._heap
        while heap:
            tasks, id, info = heap[0]
            if info.tasks != tasks:
                heapreplace(heap, (info.tasks, id, info))
                continue
            heappop(heap)
            if self.has_room(info):
                return info
        return None

    def push(self, info: NodeInfo) -> None:
        heappush(self._heap, (info.tasks, info.id, info))

    def has_room(self, info: NodeInfo) -> bool:
        return not any(rule.broken(info) for rule in self._capacity)

    def explain(self, nodes: Iterable[NodeInfo], limit: Sequence[Rule]) -> str:
        """Why no node is left, counted; the same for all services unless a limit of its own is in play."""
        if self._refusal and not limit:
            return self._refusal
        tail = [*self._capacity, *limit]
        reasons = Counter(self._unfit(info) or reason(tail, info) for info in nodes)
        counted = "; ".join(f"{n} node{'s' * (n != 1)}: {why}" for why, n in reasons.most_common())
        self._refusal = f"no suitable node ({counted or 'the cluster has no nodes'})"
        return self._refusal

    def _unfit(self, info: NodeInfo) -> str:
        """The standing rule the node breaks, remembered with the node until its state changes."""
        known = info.standing.get(self._terms)
        if known is None:
            if len(info.standing) >= _MOST_REMEMBERED:
                info.standing.clear()
            known = info.standing[self._terms] = reason(self._standing, info)
        return known


class _Group:
    """Places tasks alike, one at a time.

    Nodes without a task of the service come first, straight from the shared pool; only when those are used up are
    the others put in order, by how many they have.
    """

    def __init__(self, key: GroupKey, index: Index, pool: Pool, faulty: Collection[str]) -> None:
        self._key, self._index, self._pool, self._faulty = key, index, pool, faulty
        self._running = index.running(key.service_id)
        self._borrowed: list[NodeInfo] = []
        self._ranked: _Branch | None = None
        self.limit = max_replicas_per_node_reached(key.demand, lambda id: self._running[id])
        self.placed = 0

    def place(self, task_id: str) -> NodeInfo | None:
        info = self._fresh() if self._ranked is None and not self._key.demand.preferences else None
        if info is not None:
            self._book(task_id, info)
            return info
        if self._ranked is None:
            self._ranked = self._rank()
        return self._ranked.take(self._suits, lambda chosen: self._book(task_id, chosen))

    def finish(self) -> None:
        for info in self._borrowed:
            self._pool.push(info)

    def _fresh(self) -> NodeInfo | None:
        while info := self._pool.pop():
            self._borrowed.append(info)
            if info.id not in self._running and info.id not in self._faulty:
                return info
        return None

    def _rank(self) -> "_Branch":
        while info := self._pool.pop():
            self._borrowed.append(info)
        root = _Branch()
        for info in self._borrowed:
            rank = (info.id in self._faulty, self._running[info.id], info.tasks, info.id, info)
            assert info.node is not None
            root.add([value_of(key, info.node) for key in self._key.demand.preferences], rank)
        root.settle()
        return root

    def _suits(self, info: NodeInfo) -> bool:
        return self._pool.has_room(info) and not reason(self.limit, info)

    def _book(self, task_id: str, info: NodeInfo) -> None:
        self._index.book(task_id, self._key.service_id, self._key.demand, info)
        self.placed += 1


_Rank = tuple[bool, int, int, str, NodeInfo]


class _Branch:
    """Nodes below one value of a preference: either branches of the next one, or the nodes in order."""

    def __init__(self) -> None:
        self._tasks = 0  # of the service
        self._faulty = True  # all nodes are
        self._below: dict[str, _Branch] = {}
        self._heap: list[_Rank] = []

    def add(self, path: Sequence[str], rank: _Rank) -> None:
        self._tasks += rank[1]
        self._faulty &= rank[0]
        if path:
            self._below.setdefault(path[0], _Branch()).add(path[1:], rank)
        else:
            self._heap.append(rank)

    def settle(self) -> None:
        heapify(self._heap)
        for branch in self._below.values():
            branch.settle()

    def take(self, suits: Callable[[NodeInfo], bool], book: Callable[[NodeInfo], None]) -> NodeInfo | None:
        """Book the first node that suits; those that no longer do are dropped for good."""
        info = self._take_below(suits, book) if self._below else self._take_here(suits, book)
        if info is not None:
            self._tasks += 1
        return info

    def _take_below(self, suits: Callable[[NodeInfo], bool], book: Callable[[NodeInfo], None]) -> NodeInfo | None:
        while self._below:
            name = min(self._below, key=lambda name: (self._below[name]._faulty, self._below[name]._tasks, name))
            info = self._below[name].take(suits, book)
            if info is not None:
                return info
            del self._below[name]
        return None

    def _take_here(self, suits: Callable[[NodeInfo], bool], book: Callable[[NodeInfo], None]) -> NodeInfo | None:
        heap = self._heap
        while heap:
            faulty, tasks, _, id, info = heap[0]
            if suits(info):
                book(info)
                heapreplace(heap, (faulty, tasks + 1, info.tasks, id, info))
                return info
            heappop(heap)
        return None
