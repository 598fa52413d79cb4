"""Sends lines to a syslog receiver.

    rfc3164       <PRI>Mmm dd hh:mm:ss HOST TAG[PID]: text
    (no format)   the same without the host, as programs of the same host write it
    rfc5424       <PRI>1 2026-01-02T03:04:05Z HOST TAG PID TAG - text; rfc5424micro: with microseconds

On a stream a message ends with a newline; RFC 5424 over TLS is preceded by its length instead (RFC 5425).
"""

import contextlib
import os
import socket
import time
from typing import Any

_SEVERITIES = {"stdout": 6, "stderr": 3}
_STREAMS = ("tcp", "tcp+tls", "unix")
_TIMEOUT = 10.0  # s, to connect and for each message
_GOODBYE = 1.0  # s
_APP_NAME, _MESSAGE_ID = 48, 32  # the longest that RFC 5424 allows


class Syslog:
    """target: {"kind", "host", "port", "path", "facility", "format", "tag", "ca", "cert", "key", "verify"}."""

    def __init__(self, target: dict[str, Any]) -> None:
        self._target = target
        self._kind: str = target["kind"]
        self._counted = self._kind == "tcp+tls" and target["format"].startswith("rfc5424")
        self._host, self._pid = os.uname().nodename, os.getpid()
        self._socket: socket.socket | None = None
        self._to: Any = None  # where datagrams go by UDP

    def connect(self) -> None:
        if self._kind == "udp":
            self._socket = self._udp()
        elif self._kind in ("unix", "unixgram"):
            kind = socket.SOCK_STREAM if self._kind == "unix" else socket.SOCK_DGRAM
            self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.settimeout(_TIMEOUT)
            self._socket.connect(self._target["path"])
        else:
            self._socket = socket.create_connection((self._target["host"], self._target["port"]), _TIMEOUT)
            if self._kind == "tcp+tls":
                self._socket = self._secured(self._socket)

    def send(self, stream: str, line: bytes, at: int) -> None:
        assert self._socket, "it is connected first"
        text = self.message(stream, line, at)
        if self._kind == "udp":
            # Not connected: it would tell of messages before that nobody took, and lose this one for it.
            self._socket.sendto(text, self._to)
        elif self._counted:
            self._socket.sendall(b"%d %s" % (len(text), text))
        else:
            self._socket.sendall(text + b"\n" if self._kind in _STREAMS else text)

    def close(self) -> None:
        if self._socket:
            if self._kind == "tcp+tls":
                self._say_goodbye(self._socket)
            self._socket.close()
            self._socket = None

    def message(self, stream: str, line: bytes, at: int) -> bytes:
        form, tag = self._target["format"], self._target["tag"]
        priority = self._target["facility"] * 8 + _SEVERITIES[stream]
        seconds, rest = divmod(at, 10**9)
        if form.startswith("rfc5424"):
            micro = f".{rest // 1000:06d}" if form == "rfc5424micro" else ""
            when = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}{micro}Z"
            # No part may have a space in it.
            tag = "".join(char if "!" <= char <= "~" else "_" for char in tag) or "-"
            head = f"<{priority}>1 {when} {self._host} {tag[:_APP_NAME]} {self._pid} {tag[:_MESSAGE_ID]} - "
        else:
            when = time.strftime("%b %e %H:%M:%S", time.localtime(seconds))
            host = f"{self._host} " if form == "rfc3164" else ""
            head = f"<{priority}>{when} {host}{tag}[{self._pid}]: "
        return head.encode() + line

    def _udp(self) -> socket.socket:
        family, kind, _, _, self._to = socket.getaddrinfo(
            self._target["host"], self._target["port"], type=socket.SOCK_DGRAM
        )[0]
        return socket.socket(family, kind)

    def _say_goodbye(self, secured: Any) -> None:
        """Wait until the receiver has read all: what it sent besides, such as tickets, would make an end a reset."""
        with contextlib.suppress(OSError):
            secured.settimeout(_GOODBYE)
            secured.unwrap()

    def _secured(self, raw: socket.socket) -> socket.socket:
        import ssl  # only who uses it pays for it

        context = ssl.create_default_context(cafile=self._target["ca"] or None)
        if not self._target["verify"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._target["cert"]:
            context.load_cert_chain(self._target["cert"], self._target["key"] or None)
        return context.wrap_socket(raw, server_hostname=self._target["host"])
