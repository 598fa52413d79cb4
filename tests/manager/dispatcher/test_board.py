"""Feeds against a model: after any commits, what a node was told by changes is what a new session would be told."""

import random

import pytest

from swarmd.manager.dispatcher.board import Board, Feed
from swarmd.manager.store.interface import AnyObject, Changed, Commit
from swarmd.proto import objects_pb2 as pb
from swarmd.proto import task_states as states
from tests.manager.dispatcher.agents import Known, apply, network, node, task
from tests.manager.records import Records

NODES, NETWORKS = ("a", "b", "c"), ("n1", "n2", "n3")


@pytest.mark.parametrize("seed", range(20))
def test_changes_add_up_to_the_whole(seed: int) -> None:
    rng = random.Random(seed)
    records = Records(*(node(id) for id in NODES), *(network(id) for id in NETWORKS))
    board = Board(records)
    feeds = {id: Feed(board, id) for id in NODES}
    known: dict[str, Known] = {id: {} for id in NODES}
    for _ in range(200):
        board.apply(records, Commit(records.revision, tuple(_random_change(rng, records) for _ in range(3))))
        if rng.random() < 0.5:
            for id, feed in feeds.items():
                apply(known[id], feed.take())
                for fresh in (Feed(board, id), Feed(Board(records), id)):
                    whole: Known = {}
                    apply(whole, fresh.take(full=True))
                    fresh.close()
                    assert _told(known[id]) == _told(whole)


def _random_change(rng: random.Random, records: Records) -> Changed:
    new: AnyObject
    match rng.choice(("task", "task", "task", "node", "network", "service", "gone")):
        case "task":
            new = task(f"t{rng.randrange(6)}", rng.choice(NODES), rng.choice(states.ORDER), networks=_some(rng))
            new.desired_state = rng.choice(states.DESIRED)
        case "node":
            new = node(rng.choice(NODES), networks=_some(rng))
            new.status.addr = f"10.9.9.{rng.randrange(3)}"
        case "network":
            new = network(rng.choice(NETWORKS), ingress=rng.random() < 0.3)
        case "service":
            new = pb.Service(id=f"s{rng.randrange(3)}")
            for network_id in _some(rng):
                new.endpoint.virtual_ips.add(network_id=network_id, addr="10.0.1.9/24")
            if rng.random() < 0.5:
                new.endpoint.ports.add(target_port=80, published_port=rng.randrange(8000, 8003))
        case _:
            present: list[AnyObject] = [*records.find(pb.Task), *records.find(pb.Service), *records.find(pb.Network)]
            old = rng.choice(present)
            records.delete(old)
            return Changed(old, None)
    before = records.get(type(new), new.id)
    records.put(new)
    return Changed(before, records.the(type(new), new.id))


def _some(rng: random.Random) -> list[str]:
    return rng.sample(NETWORKS, rng.randrange(3))


def _told(known: Known) -> dict[tuple[str, ...], object]:
    """A task without what its node is not told again."""
    return {
        key: (obj.id, obj.desired_state, list(obj.networks)) if isinstance(obj, pb.Task) else obj
        for key, obj in known.items()
    }
