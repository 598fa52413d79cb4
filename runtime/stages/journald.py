"""Sends lines to systemd's journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

A datagram is one entry: fields as NAME=value, or, when the value has a newline, NAME, a newline, its length in eight
bytes and the value.
"""

import socket
import struct
from collections.abc import Mapping

from swarmd.runtime.stages.jsonlog import timestamp

_PRIORITIES = {"stdout": b"6", "stderr": b"3"}  # informational, error


class Journal:
    """fields: what each entry says besides; names are upper case, digits and underscores."""

    def __init__(self, path: str, fields: Mapping[str, str]) -> None:
        self._path = path
        self._fields = b"".join(field(name, value.encode()) for name, value in fields.items())
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.connect(self._path)

    def send(self, stream: str, line: bytes, at: int) -> None:
        assert self._socket, "it is connected first"
        head = field("PRIORITY", _PRIORITIES[stream]) + field("SYSLOG_TIMESTAMP", timestamp(at).encode())
        self._socket.send(field("MESSAGE", line) + head + self._fields)

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None


def field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value)
    return b"%s=%s\n" % (name.encode(), value)
