"""Tells when something in a directory has changed, by inotify(7)."""

import ctypes
import os
from pathlib import Path

from swarmd.runtime.spawner_client import readable

_MODIFY, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE_SELF = 0x2, 0x40, 0x80, 0x100, 0x400
_WATCHED = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE_SELF
_LIBC = ctypes.CDLL(None, use_errno=True)
_ROOM = 1 << 16


class Changes:
    """What changes in a directory from now on. Raises OSError when the kernel watches no more for this user."""

    def __init__(self, directory: Path) -> None:
        self._fd = _checked(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), directory)
        try:
            _checked(_LIBC.inotify_add_watch(self._fd, os.fsencode(directory), _WATCHED), directory)
        except OSError:
            os.close(self._fd)
            raise

    async def wait(self) -> None:
        """Return when there was a change since the last time, or since this was made."""
        await readable(self._fd)
        os.read(self._fd, _ROOM)

    def close(self) -> None:
        os.close(self._fd)


def _checked(result: int, directory: Path) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(directory))
    return result
