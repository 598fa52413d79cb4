"""A full disk, in words that say what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarmd.runtime.errors import Exhausted

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def room_on(root: Path) -> Iterator[None]:
    """Raise Exhausted where what is written to the disk of root does not fit."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise Exhausted(f"the disk of {root} is full: free space on it, or remove images with `image prune`") from None
