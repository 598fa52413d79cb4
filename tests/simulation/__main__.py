"""Run simulated clusters: `python -m tests.simulation --seed 7` replays one with its trace, `--seeds N` runs many."""

import argparse
import sys

from tests.simulation.cluster import simulate
from tests.simulation.invariants import Violation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, metavar="N", help="replay one cluster and print all that happens")
    which.add_argument("--seeds", type=int, metavar="N", help="run so many clusters and print those that fail")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first of --seeds (default 0)")
    options = parser.parse_args()
    if options.seed is not None:
        try:
            print("\n".join(simulate(options.seed).trace))
        except Violation as violation:
            print(violation, file=sys.stderr)
            return 1
        return 0
    failed = 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            simulate(seed)
        except Violation as violation:
            failed += 1
            print(str(violation).splitlines()[0])
    print(f"{options.seeds} clusters, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
