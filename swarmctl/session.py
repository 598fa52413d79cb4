"""A hijacked connection joined to this terminal: input one way, output the other, until the container's side ends.

Input is pumped by a thread of its own; its end is half a close, so that output still comes.  Output is read by the main
thread, which leaves the terminal as it was, however the session ends.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from queue import SimpleQueue

from swarmd.swarmctl import terminal
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.http import Response
from swarmd.swarmctl.streams import show_frames

# What a user's terminal or a supervisor sends; not what a process does to itself.
_PASSED_ON = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGCONT,
)  # fmt: skip


class Session:
    """stdin: whether our input goes there; tty: whether the container has a terminal, so output has no frames."""

    def __init__(self, response: Response, *, stdin: bool, tty: bool, detach_keys: str = "") -> None:
        self._response = response
        self._stdin = stdin
        self._tty = tty
        self._escape = terminal.Escape(terminal.keys(detach_keys or terminal.DEFAULT_KEYS))
        self.detached = False

    def run(self) -> None:
        """Return when the other side has ended, or `detached`."""
        is_raw = self._stdin and self._tty and sys.stdin.isatty()
        with terminal.raw(sys.stdin.fileno()) if is_raw else nullcontext():
            if self._stdin:
                threading.Thread(target=self._pump, daemon=True).start()
            try:
                self._output()
            except BrokenPipeError:  # of standard output: `swarmctl run demo yes | head`
                raise
            except OSError:
                if not self.detached:
                    raise Refusal("the daemon hung up; the container is not affected by that") from None
            finally:
                if not self._stdin:  # else the thread may be writing to it
                    self._response.close()

    def _output(self) -> None:
        if not self._tty:
            show_frames(self._read)
            return
        while data := self._response.reader.read1(65536):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def _read(self, size: int) -> bytes:
        return self._response.reader.read(size)

    def _pump(self) -> None:
        sock = self._response.sock
        with suppress(OSError):
            while data := os.read(sys.stdin.fileno(), 65536):
                if self._tty:
                    data, self.detached = self._escape.feed(data)
                if data:
                    sock.sendall(data)
                if self.detached:
                    # Not SSLSocket's: that would end decryption while output is still read.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                    return
            socket.socket.shutdown(sock, socket.SHUT_WR)


def check_terminal(*, stdin: bool, tty: bool) -> None:
    if stdin and tty and not sys.stdin.isatty():
        raise Refusal("the standard input is no terminal: leave -t out to pipe something in", code=1)


@contextmanager
def resizing(resize: Callable[[int, int], None]) -> Iterator[None]:
    """Tell of the terminal's size now, and whenever it changes."""

    def tell() -> None:
        found = terminal.size()
        if found:
            with suppress(Refusal):  # it may have ended already
                resize(*found)

    with _signals((signal.SIGWINCH,), lambda number: tell()):
        tell()
        yield


@contextmanager
def signals_to(client: Client, container: str, wanted: bool) -> Iterator[None]:
    """Pass on what this process is sent."""

    def send(number: int) -> None:
        with suppress(Refusal):
            client.post(f"/containers/{container}/kill", signal=signal.Signals(number).name.removeprefix("SIG"))

    with _signals(_PASSED_ON, send) if wanted else nullcontext():
        yield


@contextmanager
def _signals(numbers: tuple[int, ...], act: Callable[[int], None]) -> Iterator[None]:
    """A thread acts on them: the main thread may be in the middle of a read."""
    arrived: SimpleQueue[int] = SimpleQueue()

    def work() -> None:
        while number := arrived.get():
            act(number)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    before = {number: signal.signal(number, lambda got, frame: arrived.put(got)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        arrived.put(0)
