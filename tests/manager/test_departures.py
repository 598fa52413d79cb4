"""What managers that are gone leave behind is found, and nothing else."""

from swarmd.manager.departures import StoreMember, false_managers, strays
from tests.manager.records import node

THERE = ("10.0.0.1",)
ELSEWHERE = ("10.0.0.9",)


def test_a_member_belongs_to_the_manager_whose_id_it_has_for_a_name() -> None:
    nodes = [node("n1", manager=True, member=1), node("n2")]
    members = [StoreMember(1, "n1", ELSEWHERE), StoreMember(2, "n2", THERE), StoreMember(3, "removed", THERE)]
    assert strays(members, nodes) == {2, 3}


def test_a_member_that_never_started_belongs_to_the_manager_at_its_address() -> None:
    members = [StoreMember(1, "n1", THERE), StoreMember(2, "", THERE), StoreMember(3, "", ELSEWHERE)]
    assert strays(members, [node("n1", manager=True, member=1)]) == {3}
    assert strays(members, [node("n1")]) == {1, 2, 3}


def test_a_manager_without_its_member_is_none() -> None:
    announced, lost, joining = (node(f"n{id}", manager=True, member=id) for id in (1, 2, 0))
    assert false_managers([StoreMember(1, "n1", THERE)], [announced, lost, joining, node("n4")]) == {"n2"}


def test_managers_on_an_external_etcd_have_no_members() -> None:
    assert false_managers([], [node("n1", manager=True)]) == set()
