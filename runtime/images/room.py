"""A full disk, in words that say what to do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swarmd.runtime.errors import Exhausted
from swarmd.runtime.stages import files

_RESERVE = 256 * 1024  # bytes


@contextmanager
def room_on(root: Path) -> Iterator[None]:
    """Raise Exhausted where what is written to the disk of root does not fit."""
    try:
        yield
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        raise Exhausted(f"the disk of {root} is full: free space on it, or remove images with `image prune`") from None


class Reserve:
    """Room on a disk that is given up when it is full, for what has to be written then to get on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.keep()

    def keep(self) -> None:
        """Have it again, if there is room."""
        if not self._file.exists():
            try:
                self._file.write_bytes(bytes(_RESERVE))
            except OSError:
                self._file.unlink(missing_ok=True)

    def spend(self, write: Callable[[], None]) -> None:
        """Write with the help of the reserve, if it must be."""
        try:
            write()
        except OSError as error:
            if error.errno not in files.FULL:
                raise
            self._file.unlink(missing_ok=True)
            write()
