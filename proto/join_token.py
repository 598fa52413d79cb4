"""Join tokens: SWMTKN-1-<digest of the root certificate>-<secret>, both in base 36.

The digest pins the root, so that a joining node knows whom to trust before it has any certificate.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from swarmd.proto.errors import Invalid

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"SWMTKN-1-(?P<digest>[0-9a-z]{50})-(?P<secret>[0-9a-z]{25})")


@dataclass(frozen=True, slots=True)
class JoinToken:
    digest: str
    secret: str

    def __str__(self) -> str:
        return f"SWMTKN-1-{self.digest}-{self.secret}"

    def pins(self, root_certificate: bytes) -> bool:
        return hmac.compare_digest(self.digest, digest(root_certificate))


def parse(text: str) -> JoinToken:
    """Raise Invalid unless the text has the form of a token."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise Invalid(
            "the join token is malformed: it reads SWMTKN-1-<50 characters>-<25 characters>; "
            "'swarmctl swarm join-token worker' on a manager prints it"
        )
    return JoinToken(found["digest"], found["secret"])


def new(root_certificate: bytes) -> JoinToken:
    return JoinToken(digest(root_certificate), "".join(secrets.choice(_DIGITS) for _ in range(25)))


def digest(root_certificate: bytes) -> str:
    """SHA-256 of the PEM text, base 36, 50 characters."""
    number = int.from_bytes(hashlib.sha256(root_certificate.strip()).digest())
    digits = []
    for _ in range(50):
        number, remainder = divmod(number, 36)
        digits.append(_DIGITS[remainder])
    return "".join(reversed(digits))
