"""Figures of the scheduler: placements per second of the plan alone (scheduler.py says what is timed)."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.scheduler import measure
from tests.benchmarks.table import Row, Sample

NODES, TASKS = 1_000, 100_000


def _figure(label: str, services: int, constraints: bool, target: float) -> Callable[..., list[Row]]:
    def run(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
        rates = [measure(NODES, TASKS, services, constraints).plan for _ in range(rounds)]
        return [Row(label, "placements/s", Sample(rates), target=target, at_least=True)]

    return run


FIGURES = {
    "scheduler-one-service": _figure("one service over 1,000 nodes", 1, False, 100_000),
    "scheduler-one-service-constrained": _figure("the same, three constraints", 1, True, 100_000),
    "scheduler-unrelated": _figure("100,000 services over 1,000 nodes", TASKS, False, 50_000),
    "scheduler-unrelated-constrained": _figure("the same, three constraints each", TASKS, True, 50_000),
}
