import pytest

from tests.simulation.cluster import simulate

SEEDS = 300
BATCH = 25


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_clusters_keep_their_promises(first: int) -> None:
    for seed in range(first, first + BATCH):
        simulate(seed)


def test_a_seed_replays_exactly() -> None:
    assert simulate(12).digest == simulate(12).digest
    assert simulate(12).digest != simulate(13).digest
