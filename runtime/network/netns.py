"""Makes network namespaces and works inside them, on one thread of its own.

Invariant: setns and unshare happen only on that thread, and it is back in the host's namespace before the next piece
of work starts; a thread that cannot go back ends the process rather than work in the wrong namespace.
A few namespaces are kept ready, since making one costs more than all the rest of an attach.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from swarmd.runtime.network.netlink import Netlink

CLONE_NEWNET = 0x40000000
MS_BIND = 4096
MNT_DETACH = 2
READY = 8  # namespaces kept ready

P = ParamSpec("P")
T = TypeVar("T")

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code).lower()}")


class Kernel:
    """The thread that changes the kernel's network; `run` is the only way to it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._ready: deque[int] = deque()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(*args, **kwargs))

    def close(self) -> None:
        self._thread.shutdown()
        for fd in (self._host, *self._ready):
            os.close(fd)

    @contextlib.contextmanager
    def inside(self, fd: int) -> Iterator[None]:
        check(libc.setns(fd, CLONE_NEWNET), "cannot enter the network namespace")
        try:
            yield
        finally:
            self._go_back()

    def socket_inside(self, fd: int, family: int) -> socket.socket:
        """Return a stream socket of the network namespace of a pidfd's process; it stays of it wherever it is used."""
        with self.inside(fd):
            return socket.socket(family, socket.SOCK_STREAM)

    def _go_back(self) -> None:
        if libc.setns(self._host, CLONE_NEWNET) < 0:
            os.abort()

    def fill(self) -> bool:
        """Off the hot path: make a namespace ready, with loopback up; return whether there are to be more."""
        if len(self._ready) < READY:
            self._ready.append(self._make())
        return len(self._ready) < READY

    def _make(self) -> int:
        check(libc.unshare(CLONE_NEWNET), "cannot make a network namespace")
        try:
            with Netlink() as inner:
                inner.set_up(1)
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            self._go_back()

    def _open(self, given: str) -> int:
        fd = os.open(given, os.O_RDONLY | os.O_CLOEXEC)
        with self.inside(fd), Netlink() as inner:
            inner.set_up(1)
        return fd

    def take(self, path: Path, given: str = "") -> int:
        """Return a descriptor of a new namespace, or of the given one, kept alive by a bind mount at path."""
        fd = self._open(given) if given else self._ready.popleft() if self._ready else self._make()
        path.touch(0o600)
        if libc.mount(f"/proc/self/fd/{fd}".encode(), os.fsencode(path), None, MS_BIND, None) < 0:
            code = ctypes.get_errno()
            os.close(fd)
            raise OSError(code, f"cannot keep the network namespace at {path}: {os.strerror(code).lower()}")
        return fd


def drop(path: Path) -> None:
    """Let go of a namespace; the kernel removes its interfaces once its last process is gone."""
    if path.exists():
        libc.umount2(os.fsencode(path), MNT_DETACH)
        path.unlink(missing_ok=True)
