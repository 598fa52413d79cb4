"""The user's terminal: raw while a container has it, its size, and the keys that detach from it."""

from __future__ import annotations

import os
import sys

from swarmd.swarmctl.client import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


class Raw:
    """While it is entered every key goes to the container; as before afterwards, whatever happens."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] = []

    def __enter__(self) -> None:
        import termios
        import tty

        self._before = termios.tcgetattr(self._fd)
        tty.setraw(self._fd)

    def __exit__(self, *problem: object) -> None:
        import termios

        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def size(out: IO[str] | None = None) -> tuple[int, int] | None:
    """Rows and columns of the terminal; None where there is none, or it does not know them."""
    try:
        columns, rows = os.get_terminal_size((out or sys.stdout).fileno())
    except OSError:
        return None
    return (rows, columns) if rows and columns else None


def keys(text: str) -> bytes:
    """The bytes of 'ctrl-p,ctrl-q' or 'ctrl-x,x'."""
    found = bytearray()
    for word in text.split(","):
        name = word.removeprefix("ctrl-")
        if word == name and len(word) == 1 and word.isascii():
            found.append(ord(word))
        elif len(name) == 1 and name.isascii() and name.isalpha():
            found.append(ord(name.lower()) - 96)
        elif name in _SPECIAL:
            found.append(_SPECIAL[name])
        else:
            raise Refusal(f"{text!r} are no keys to detach with: write them as ctrl-p,ctrl-q or ctrl-x,x", code=125)
    return bytes(found)


class Escape:
    """Finds the keys in what is typed.  What might be their beginning is held back until it is known."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What goes on to the container, and whether the keys have come."""
        out = bytearray()
        for byte in data:
            self._held += bytes([byte])
            while self._held and not self._sequence.startswith(self._held):
                out.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._sequence and self._sequence:
                return bytes(out), True
        return bytes(out), False
