"""How much is in a directory of the host; blocks while it looks, so call it in a thread."""

import os
import stat
from pathlib import Path


def tree_size(top: Path) -> int:
    """Bytes of the regular files below, each inode once, as its size says."""
    seen: set[tuple[int, int]] = set()
    total = 0
    waiting = [str(top)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
                    elif stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
                        seen.add((found.st_dev, found.st_ino))
                        total += found.st_size
        except FileNotFoundError:
            continue  # it went meanwhile
    return total
