"""All facts by topic, kept true by commits, and the feeds that follow each topic.

**Invariant:** a commit costs as much as the facts that it changes times the nodes that follow them, whatever the size
of the cluster.
"""

from collections import defaultdict
from collections.abc import Set

from swarmd.manager.dispatcher.facts import (
    EVERYWHERE,
    Facts,
    Key,
    Topic,
    facts_of,
    network_topic,
    node_topic,
    rank,
    reached_at,
    removal,
    same,
)
from swarmd.manager.store.interface import AnyObject, Changed, Commit, View
from swarmd.proto.dispatcher_pb2 import Assignments, Change
from swarmd.proto.objects_pb2 import Network, Node, Service, Task

Touched = dict[Topic, set[Key]]


class Board:
    def __init__(self, view: View) -> None:
        self.revision = view.revision
        self._topics: dict[Topic, dict[Key, Change]] = defaultdict(dict)
        self._facts: dict[tuple[type[AnyObject], str], Facts] = {}
        self._ingress: set[str] = set()
        self._followers: dict[Topic, set[Feed]] = defaultdict(set)
        everything: list[AnyObject] = [*view.find(Network), *view.find(Service), *view.find(Node), *view.find(Task)]
        for obj in everything:
            self._note(view, Changed(None, obj), defaultdict(set))

    def apply(self, view: View, commit: Commit) -> set[str]:
        """Tell the feeds what a commit changed; return the nodes that this may concern."""
        self.revision = commit.revision
        touched: Touched = defaultdict(set)
        for change in commit.changes:
            self._note(view, change, touched)
            if isinstance(change.obj, Node) and _moved(change):
                for task in view.find(Task, node_id=change.obj.id):
                    self._note(view, Changed(task, task), touched)
        told: set[Feed] = set()
        for topic, keys in touched.items():
            for feed in self._followers.get(topic, ()):
                feed.touch(keys)
                told.add(feed)
        # Only now: a feed that stops following a topic must have heard of the facts that went from it.
        for feed in told:
            feed.refollow(touched.keys())
        return {feed.node_id for feed in told}

    def _note(self, view: View, change: Changed, touched: Touched) -> None:
        obj = change.obj
        if isinstance(obj, Network):
            self._note_ingress(obj, change.new is not None and obj.spec.ingress, touched)
        identity = (type(obj), obj.id)
        old = self._facts.pop(identity, {})
        new = facts_of(view, change.new) if change.new is not None else {}
        for topic, key in old.keys() - new.keys():
            del self._topics[topic][key]
            if not self._topics[topic]:
                del self._topics[topic]
            touched[topic].add(key)
        for (topic, key), fact in new.items():
            self._topics[topic][key] = fact
            had = old.get((topic, key))
            if had is None or not same(had, fact):
                touched[topic].add(key)
        if new:
            self._facts[identity] = new

    def _note_ingress(self, network: Network, is_ingress: bool, touched: Touched) -> None:
        if is_ingress != (network.id in self._ingress):
            self._ingress ^= {network.id}
            touched[EVERYWHERE] |= set()  # everybody looks again at what to follow

    # ------------------------------------------------------------ for feeds

    def topics_of(self, node_id: str) -> set[Topic]:
        mine = node_topic(node_id)
        networks = {a.network_id for fact in self.facts(mine).values() for a in fact.task.networks}
        return {EVERYWHERE, mine, *map(network_topic, networks | self._ingress)}

    def facts(self, topic: Topic) -> dict[Key, Change]:
        return self._topics.get(topic, {})

    def follow(self, feed: "Feed", gained: set[Topic], lost: set[Topic]) -> None:
        for topic in gained:
            self._followers[topic].add(feed)
        for topic in lost:
            self._followers[topic].discard(feed)
            if not self._followers[topic]:
                del self._followers[topic]


class Feed:
    """What one node was sent, and what it has to be sent."""

    def __init__(self, board: Board, node_id: str) -> None:
        self._board = board
        self.node_id = node_id
        self._topics: set[Topic] = set()
        self._sent: dict[Key, Change] = {}
        self._dirty: set[Key] = set()
        self._follow(board.topics_of(node_id))

    def __len__(self) -> int:
        """How much waits to be sent."""
        return len(self._dirty)

    def touch(self, keys: set[Key]) -> None:
        self._dirty |= keys

    def refollow(self, touched: Set[Topic]) -> None:
        if not touched.isdisjoint((EVERYWHERE, node_topic(self.node_id))):
            self._follow(self._board.topics_of(self.node_id))

    def close(self) -> None:
        self._follow(set())

    def take(self, full: bool = False) -> Assignments:
        """All that waits, as one message; it may turn out that nothing changed."""
        taken = Assignments(full=full, revision=self._board.revision)
        for key in sorted(self._dirty, key=rank):
            fact = self._wanted(key)
            had = self._sent.get(key)
            if fact is None and had is not None:
                del self._sent[key]
                taken.removals.append(removal(key))
            elif fact is not None and (had is None or not same(had, fact)):
                self._sent[key] = fact
                taken.changes.append(fact)
        self._dirty.clear()
        return taken

    def _wanted(self, key: Key) -> Change | None:
        found = (self._board.facts(topic).get(key) for topic in self._topics)
        return next((fact for fact in found if fact is not None), None)

    def _follow(self, topics: set[Topic]) -> None:
        gained, lost = topics - self._topics, self._topics - topics
        for topic in gained | lost:
            self._dirty |= self._board.facts(topic).keys()
        self._board.follow(self, gained, lost)
        self._topics = topics


def _moved(change: Changed) -> bool:
    old, new = change.old, change.new
    return reached_at(old if isinstance(old, Node) else None) != reached_at(new if isinstance(new, Node) else None)
