"""What goes when the cache of builds is emptied down to a size: pure; the builder does it."""

from collections.abc import Iterable, Iterator

from swarmd.runtime.model import Struct

REGULAR = "regular"
MOUNT = "exec.cachemount"  # a directory of RUN --mount=type=cache; both as BuildKit calls them


class Kept(Struct, frozen=True):
    """A record or the directory of a cache mount. Times in ns since the epoch, size in bytes.

    shared: an image has its content too, so that dropping it frees nothing; in_use: a step that runs now has it.
    """

    id: str
    kind: str
    description: str
    created: int
    used: int
    uses: int
    size: int
    shared: bool = False
    in_use: bool = False

    @property
    def freed(self) -> int:
        """Bytes that are free when it is dropped."""
        return 0 if self.shared else self.size


class Limits(Struct, frozen=True):
    """In bytes, 0 for what is not asked for.

    reserved: what may stay anyway; most: what may stay at most; free: what is to be free on the disk afterwards.
    """

    reserved: int = 0
    most: int = 0
    free: int = 0

    def stays(self, total: int, free: int) -> int:
        """How much of a cache of `total` bytes may stay on a disk with `free` bytes."""
        most = self.most or (total if self.free else 0)
        missing = max(0, self.free - free)
        return max(min(most, total - missing), self.reserved, 0)


def doomed(kept: Iterable[Kept], total: int, stays: int) -> Iterator[Kept]:
    """The longest unused first, until no more than `stays` is left of the cache's total; with 0 all go."""
    for one in sorted(kept, key=lambda one: one.used):
        if stays and total <= stays:
            return
        total -= one.freed
        yield one
