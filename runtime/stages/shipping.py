"""Sends a container's lines to a receiver outside of swarmd, which may be slow or away.

With a buffer, lines wait in it until the receiver takes them.  Without, the program waits, but not for ever: from a
receiver that has been away for `_PATIENCE` lines are lost until it is back, and then a line says how many.
"""

import time
from typing import Any, Protocol

from swarmd.runtime.stages.buffered import Buffered
from swarmd.runtime.stages.jsonlog import Lines, Sink

_PATIENCE = 10.0  # s
_PAUSE = 0.5  # s between two tries
_LAST_PATIENCE = 2.0  # s, once the container has ended: nobody hears of that before


class Sender(Protocol):
    """One way to a receiver; both calls raise OSError when it can't be reached."""

    def connect(self) -> None: ...
    def send(self, stream: str, line: bytes, at: int) -> None: ...
    def close(self) -> None: ...


class Both(Lines):
    """What goes to either."""

    def __init__(self, *sinks: Sink) -> None:
        super().__init__()
        self._sinks = sinks

    def append(self, stream: str, lines: bytes, at: int) -> None:
        for sink in self._sinks:
            sink.append(stream, lines, at)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


class Shipper:
    """patience: s that a line is tried again; None for ever."""

    def __init__(self, sender: Sender, patience: float | None) -> None:
        self._sender, self._patience = sender, patience
        self._connected = False
        self._away_until = 0.0  # on the monotonic clock, 0 while it is there: no line waits for it before
        self._lost = 0

    def append(self, stream: str, lines: bytes, at: int) -> None:
        for line in lines.removesuffix(b"\n").split(b"\n"):
            self._deliver(stream, line, at)

    def close(self) -> None:
        self._sender.close()

    def _deliver(self, stream: str, line: bytes, at: int) -> None:
        begin = time.monotonic()
        while begin >= self._away_until:
            try:
                self._send(stream, line, at)
            except OSError:
                self._sender.close()
                self._connected = False
                waited = time.monotonic() - begin
                if self._patience is not None and (self._away_until or waited >= self._patience):
                    self._away_until = time.monotonic() + 1
                    break
                time.sleep(_PAUSE)
            else:
                self._away_until = 0.0
                return
        self._lost += 1

    def _send(self, stream: str, line: bytes, at: int) -> None:
        if not self._connected:
            self._sender.connect()
            self._connected = True
        if self._lost:
            said = f"swarmd: {self._lost} lines lost: the log's receiver was away for longer than {_PATIENCE:g} s"
            self._sender.send("stderr", said.encode(), time.time_ns())
            self._lost = 0
        self._sender.send(stream, line, at)


def sink(target: dict[str, Any], room: int) -> Sink:
    """room: of the buffer, in bytes; 0: the program waits."""
    sender = _sender(target)
    return Buffered(Shipper(sender, None), room, _LAST_PATIENCE) if room else Shipper(sender, _PATIENCE)


def _sender(target: dict[str, Any]) -> Sender:
    # A container's keeper loads only what it uses.
    if target["driver"] == "syslog":
        from swarmd.runtime.stages.syslog import Syslog

        return Syslog(target)
    from swarmd.runtime.stages.journald import Journal

    return Journal(target["path"], target["fields"])
