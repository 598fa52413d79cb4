"""A hijacked connection joined to this terminal: input one way, output the other, until the container's side ends.

Input is pumped by a thread of its own; its end is half a close, so that output still comes.  Output is read by the main
thread, which leaves the terminal as it was, however the session ends.
"""

from __future__ import annotations

import os
import sys
from _socket import SHUT_RDWR, SHUT_WR
from _socket import socket as Socket
from _thread import start_new_thread

from swarmd.swarmctl import terminal
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.http import Response
from swarmd.swarmctl.streams import show_frames
from swarmd.swarmctl.values import DETACH_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from signal import SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, signal
    from typing import Any
else:  # without the enumerations, for which module `re` would be loaded
    from _signal import SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, signal

# What a user's terminal or a supervisor sends; not what a process does to itself.
_PASSED_ON = (SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT)
_PATIENCE = 3  # times that one asks a program to end before one leaves it alone


class Session:
    """stdin: whether our input goes there; tty: whether the container has a terminal, so output has no frames."""

    def __init__(self, response: Response, *, stdin: bool, tty: bool, detach_keys: str = "") -> None:
        self._response = response
        self._stdin = stdin
        self._tty = tty
        self._escape = terminal.Escape(terminal.keys(detach_keys or DETACH_KEYS))
        self.detached = False

    def run(self) -> None:
        """Return when the other side has ended, or `detached`."""
        is_raw = self._stdin and self._tty and sys.stdin.isatty()
        if is_raw:
            with terminal.Raw(sys.stdin.fileno()):
                self._join()
        else:
            self._join()

    def _join(self) -> None:
        if self._stdin:
            start_new_thread(self._pump, ())
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
        try:
            while data := os.read(sys.stdin.fileno(), 65536):
                if self._tty:
                    data, self.detached = self._escape.feed(data)
                if data:
                    sock.sendall(data)
                if self.detached:
                    # Not SSLSocket's: that would end decryption while output is still read.
                    Socket.shutdown(sock, SHUT_RDWR)
                    return
            Socket.shutdown(sock, SHUT_WR)
        except OSError:
            pass  # the container's side has ended


def check_terminal(*, stdin: bool, tty: bool) -> None:
    if stdin and tty and not sys.stdin.isatty():
        raise Refusal("the standard input is no terminal: leave -t out to pipe something in", code=1)


class Signals:
    """While it is entered, `act` is called with the number of each of these signals that comes.

    In a thread: the main thread may be in the middle of a read.  at_once: act, with 0, before any has come, too.
    left: a sentence for who has asked three times to end, which is then done.
    """

    def __init__(
        self, numbers: tuple[int, ...], act: Callable[[int], None], *, at_once: bool = False, left: str = ""
    ) -> None:
        self._numbers = numbers
        self._act = act
        self._at_once = at_once
        self._left = left
        self._asked = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if not self._numbers:
            return
        from _queue import SimpleQueue

        self._arrived: SimpleQueue[int] = SimpleQueue()
        start_new_thread(self._work, ())
        for number in self._numbers:
            self._before[number] = signal(number, lambda got, frame: self._came(got))
        if self._at_once:
            self._act(0)

    def __exit__(self, *problem: object) -> None:
        for number, handler in self._before.items():
            signal(number, handler)
        if self._before:
            self._arrived.put(0)

    def _came(self, number: int) -> None:
        """In the main thread, whatever it is doing."""
        self._asked += number in (SIGINT, SIGTERM)
        if self._left and self._asked >= _PATIENCE:
            raise Refusal(self._left, code=130)
        self._arrived.put(number)

    def _work(self) -> None:
        while number := self._arrived.get():
            self._act(number)


def resizing(wanted: bool, resize: Callable[[int, int], None]) -> Signals:
    """Tell of the terminal's size now, and whenever it changes."""

    def tell(number: int) -> None:
        found = terminal.size()
        if found:
            try:
                resize(*found)
            except Refusal:
                pass  # it may have ended already

    return Signals((SIGWINCH,) if wanted else (), tell, at_once=True)


def signals_to(client: Client, container: str, wanted: bool) -> Signals:
    """Pass on what this process is sent."""

    def send(number: int) -> None:
        from signal import Signals as Names

        try:
            client.post(f"/containers/{container}/kill", signal=Names(number).name.removeprefix("SIG"))
        except Refusal:
            pass  # it may have ended already

    left = f"left it running, as it does not heed the signal: 'swarmctl kill {container[:12]}' ends it"
    return Signals(_PASSED_ON if wanted else (), send, left=left)
