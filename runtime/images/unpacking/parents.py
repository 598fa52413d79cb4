"""The directories of a layer by their paths, kept open: neighbours in a tar are neighbours in the tree."""

import os
import stat

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.unpacking.tar import shown
from swarmd.runtime.stages import syscalls

OPAQUE_XATTR = "trusted.overlay.opaque"
_MOST = 16  # descriptors
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Parents:
    """root: the layer's own descriptor, as which "/" and ".." of its symlinks are taken."""

    def __init__(self, directory: str) -> None:
        self.root = os.open(directory, _OPEN)
        self._open: dict[str, tuple[int, bool]] = {}
        self._stale = False

    def close(self) -> None:
        self._forget()
        os.close(self.root)

    def changed(self) -> None:
        """Something was removed or replaced: from the next call on, a path may lead elsewhere."""
        self._stale = True

    def open(self, path: str, make: bool = True) -> tuple[int, bool]:
        """A directory, and whether its group goes to what is made in it.

        The descriptor is good until the next call.  make: it and those above it, if the archive has not; whiteouts on
        the way become directories that hide what they hid.
        """
        if self._stale:
            self._forget()
        if found := self._open.get(path):
            return found
        try:
            fd = syscalls.open_beneath(self.root, path or ".", _OPEN)
        except (FileNotFoundError, NotADirectoryError):
            if not make:
                raise
            fd = self._made(path)
        while len(self._open) >= _MOST:
            os.close(self._open.pop(next(iter(self._open)))[0])
        gives_group = bool(os.fstat(fd).st_mode & stat.S_ISGID)
        self._open[path] = fd, gives_group
        return fd, gives_group

    def _forget(self) -> None:
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()
        self._stale = False

    def _made(self, path: str) -> int:
        """Go up to the nearest directory that is there, and down again making the others."""
        missing: list[str] = []
        above = path
        while True:
            above, _, name = above.rpartition("/")
            missing.append(name)
            try:
                place = syscalls.open_beneath(self.root, above or ".", _OPEN)
                break
            except (FileNotFoundError, NotADirectoryError):
                continue
        while missing:
            name = missing.pop()
            try:
                _make(place, name, path)
                inner = os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=place)
            finally:
                os.close(place)
            place = inner
        return place


def _make(place: int, name: str, path: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=place)
    except FileExistsError:
        found = os.stat(name, dir_fd=place, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            raise Invalid(f"archive entries are below {shown(path)}, a symlink that leads to no directory") from None
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev:
            raise Invalid(f"archive entries are below {shown(path)}, which is no directory") from None
        os.unlink(name, dir_fd=place)
        os.mkdir(name, 0o755, dir_fd=place)
        os.setxattr(f"/proc/self/fd/{place}/{name}", OPAQUE_XATTR, b"y")
