"""Identifiers: 25 characters of base 36, about 129 bits, in the manner operators know from Swarm."""

import secrets

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_id() -> str:
    return "".join(secrets.choice(_DIGITS) for _ in range(25))
