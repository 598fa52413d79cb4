"""Signals by the names and numbers that users and images give them."""

import signal

from swarmd.runtime.errors import Invalid


def number_of(name: str) -> int:
    """Of TERM, SIGTERM, 15, or one counted from the real-time signals' ends, as SIGRTMIN+3. Raises Invalid."""
    if name.isascii() and name.isdigit() and int(name[:4]) in signal.valid_signals():
        return int(name)
    word, sign, offset = _parts(name.upper().removeprefix("SIG"))
    number = int(signal.Signals.__members__.get(f"SIG{word}", 0))
    if sign and (word, sign) in (("RTMIN", "+"), ("RTMAX", "-")) and offset.isascii() and offset.isdigit():
        number += int(f"{sign}{offset[:3]}")
        number = number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else 0
    elif sign:
        number = 0
    if not number:
        raise Invalid(f"signal {name} is not known: name one such as SIGTERM or SIGRTMIN+3, or give its number")
    return number


def _parts(word: str) -> tuple[str, str, str]:
    return word.partition("-") if "-" in word else word.partition("+")
