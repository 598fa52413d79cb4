"""Reads and writes the few DNS messages that we answer ourselves (RFC 1035): one question, A and PTR answers."""

import ipaddress
import struct
from collections.abc import Sequence
from typing import NamedTuple

A, PTR, AAAA, ANY = 1, 12, 28, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN = 0, 1, 2, 3
TTL = 5  # seconds: tasks move


class Question(NamedTuple):
    id: int
    flags: int
    name: str  # lower case, no final dot
    type: int
    raw: bytes  # the question section, as it was asked


class Malformed(ValueError):
    pass


def parse(message: bytes) -> Question:
    """Raise Malformed for anything but one plain question."""
    if len(message) < 12:
        raise Malformed("the message is shorter than its header")
    ident, flags, questions = struct.unpack_from("!HHH", message)
    if flags & 0x8000 or questions != 1:
        raise Malformed("the message is not one question")
    labels, at = [], 12
    while True:
        if at >= len(message):
            raise Malformed("the name runs past the message")
        length = message[at]
        if length > 63:
            raise Malformed("the name is compressed or too long")
        at += 1
        if length == 0:
            break
        labels.append(message[at : at + length].decode("latin-1").lower())
        at += length
    if at + 4 > len(message):
        raise Malformed("the question ends early")
    (kind,) = struct.unpack_from("!H", message, at)
    return Question(ident, flags, ".".join(labels), kind, message[12 : at + 4])


def answer(question: Question, data: Sequence[bytes] = (), code: int = NOERROR) -> bytes:
    """Return the reply; data are record contents of the type that was asked (see `address` and `name`)."""
    flags = 0x8400 | (question.flags & 0x0100) | 0x0080 | code
    head = struct.pack("!HHHHHH", question.id, flags, 1, len(data), 0, 0)
    kind = A if question.type == ANY else question.type
    records = b"".join(struct.pack("!HHHIH", 0xC00C, kind, 1, TTL, len(item)) + item for item in data)
    return head + question.raw + records


def truncated(reply: bytes, limit: int = 512) -> bytes:
    """Return the reply as UDP may carry it: over the limit, only its question and the bit that says "ask by TCP"."""
    if len(reply) <= limit:
        return reply
    ident, flags = struct.unpack_from("!HH", reply)
    at = 12
    while reply[at]:
        at += reply[at] + 1
    return struct.pack("!HHHHHH", ident, flags | 0x0200, 1, 0, 0, 0) + reply[12 : at + 5]


def address(ip: str) -> bytes:
    return ipaddress.IPv4Address(ip).packed


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("latin-1") for label in text.split(".")) + b"\0"


def reversed_address(text: str) -> str:
    """Return 10.0.0.2 for 2.0.0.10.in-addr.arpa, and nothing for any other name."""
    labels = text.removesuffix(".in-addr.arpa").split(".")
    return ".".join(reversed(labels)) if text.endswith(".in-addr.arpa") and len(labels) == 4 else ""
