"""Asks grpc.health.v1.Health/Check, over as much of HTTP/2 (RFC 9113) as one small call without TLS takes.

Header fields are sent as literals (RFC 7541, section 6.2.2); those of the answer are not read, since only an answer
with a message in it can say SERVING.
"""

import asyncio
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK, _PADDED = 1, 4, 1, 8
_STREAM = 1
_LARGEST_FRAME = 16384  # what we accept, as we announce nothing else
_LONGEST_NAME = 1024
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_UNANSWERED = "answered without a status: it does not know the service {!r}, or grpc.health.v1.Health"


async def check(service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Return the status of a service ("" is the server as a whole), or a sentence why there is none.

    Raises ValueError for what is not HTTP/2 or gRPC, IncompleteReadError for a connection closed early.
    """
    name = service.encode()
    if len(name) > _LONGEST_NAME:
        return f"the name of service {service[:20]}… is too long: at most {_LONGEST_NAME} bytes"
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    fields = (
        *((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/grpc.health.v1.Health/Check")),
        *((b":authority", b"localhost"), (b"content-type", b"application/grpc"), (b"te", b"trailers")),
    )
    headers = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)
    body = struct.pack(">BI", 0, len(message)) + message
    writer.write(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, _STREAM, headers)
        + _frame(_DATA, _END_STREAM, _STREAM, body)
    )
    received = b""
    while True:
        kind, flags, stream, payload = await _read_frame(reader)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY or (kind == _RST_STREAM and stream == _STREAM):
            return "refused the call"
        elif kind == _DATA and stream == _STREAM:
            received += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
            if (status := _status(received)) is not None:
                return status
        if kind in (_DATA, _HEADERS) and stream == _STREAM and flags & _END_STREAM:
            return _UNANSWERED.format(service)


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    head = await reader.readexactly(9)
    size = int.from_bytes(head[:3], "big")
    if size > _LARGEST_FRAME:
        raise ValueError("frame too large")
    kind, flags, stream = struct.unpack(">BBI", head[3:])
    return kind, flags, stream & 0x7FFFFFFF, await reader.readexactly(size)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: bytes) -> bytes:
    return bytes([len(value)]) + value  # shorter than 127 bytes, not Huffman coded


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _status(received: bytes) -> str | None:
    """The status in a whole HealthCheckResponse, whose only field is an enum; None while it is not whole."""
    if len(received) < 5:
        return None
    compressed, size = struct.unpack(">BI", received[:5])
    if compressed or size > _LARGEST_FRAME:
        raise ValueError("compressed or too large")
    message = received[5 : 5 + size]
    if len(message) < size:
        return None
    number = message[1] if size >= 2 and message[0] == 0x08 else 0
    return _STATUSES[number] if number < len(_STATUSES) else f"status {number}"
