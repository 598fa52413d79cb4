"""How much of the cache of builds may stay, and what goes first."""

import pytest

from swarmd.runtime.build.pruning import REGULAR, Kept, Limits, doomed


@pytest.mark.parametrize(
    ("limits", "free", "stays"),
    [
        (Limits(), 50, 0),
        (Limits(reserved=30), 50, 30),
        (Limits(most=40), 50, 40),
        (Limits(reserved=60, most=40), 50, 60),
        (Limits(free=40), 50, 100),
        (Limits(free=70), 50, 80),
        (Limits(free=500), 50, 0),
        (Limits(free=500, reserved=10), 50, 10),
        (Limits(free=70, most=90), 50, 80),
        (Limits(free=55, most=20), 50, 20),
    ],
)
def test_how_much_of_a_hundred_bytes_may_stay(limits: Limits, free: int, stays: int) -> None:
    assert limits.stays(100, free) == stays


def one(name: str, used: int, size: int, **more: bool) -> Kept:
    return Kept(id=name, kind=REGULAR, description="", created=0, used=used, uses=1, size=size, **more)


def test_the_longest_unused_go_first_and_what_frees_nothing_counts_for_nothing() -> None:
    kept = [one("new", 9, 40), one("old", 1, 30), one("image", 2, 500, shared=True), one("empty", 3, 0)]
    total = sum(each.freed for each in kept)
    assert total == 70
    assert [each.id for each in doomed(kept, total, 70)] == []
    assert [each.id for each in doomed(kept, total, 69)] == ["old"]
    assert [each.id for each in doomed(kept, total, 39)] == ["old", "image", "empty", "new"]
    assert [each.id for each in doomed(kept, total, 0)] == ["old", "image", "empty", "new"]
