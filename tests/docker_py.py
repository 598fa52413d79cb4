"""What docker-py needs of tests that use it."""

import gc
import warnings
from collections.abc import Callable


def use(work: Callable[[], None]) -> None:
    """Run it; connections that became streams docker-py never closes, and their end is no warning in a later test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        work()
        gc.collect()
