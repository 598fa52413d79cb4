"""The records of PAX headers: "<length> <keyword>=<value>\\n", see POSIX.1-2017 `pax`, "pax Extended Header"."""

import base64
import binascii
import re

from swarmd.runtime.errors import Invalid

_SCHILY, _LIBARCHIVE = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
_KNOWN = frozenset({b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"})
_PREFIXES = (_SCHILY, _LIBARCHIVE, b"GNU.sparse.")
_TIME = re.compile(rb"(-?)(\d{1,19})(?:\.(\d*))?")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_NONE: dict[str, bytes] = {}


class Pax:
    """What is said of entries beyond their own headers; keywords that nobody here asks for are not kept."""

    __slots__ = ("found", "has_xattrs", "size", "sparse")

    def __init__(self) -> None:
        self.found: dict[bytes, bytes] = {}
        self.sparse: list[tuple[bytes, bytes]] = []  # of which some keywords come again and again, in order
        self.has_xattrs = False
        self.size = 0

    def update(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            space = data.find(b" ", at, at + 12)
            digits = data[at:space]
            end = at + int(digits) if space > at and digits.isdigit() else at
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if not (at < space < end <= len(data)) or data[end - 1] != 0x0A or not equals or not key:
                raise Invalid("the tar archive has a PAX header that is damaged")
            at = end
            if key in _KNOWN or key.startswith(_PREFIXES):
                self._keep(key, value)

    def _keep(self, key: bytes, value: bytes) -> None:
        self.size += len(key) + len(value)
        if key.startswith(b"GNU.sparse."):
            self.sparse.append((key, value))
        elif key.startswith((_SCHILY, _LIBARCHIVE)):
            self.has_xattrs = True
        elif not value:  # takes back what a global header said
            self.found.pop(key, None)
            return
        self.found[key] = value

    def over(self, own: "Pax | None") -> "Pax":
        """What holds for an entry with headers of its own, or without."""
        if own is None or not self.found:
            return self if own is None else own
        both = Pax()
        both.found = {**self.found, **own.found}
        both.sparse, both.has_xattrs = own.sparse or self.sparse, own.has_xattrs or self.has_xattrs
        return both

    def number(self, key: bytes) -> int | None:
        if (value := self.found.get(key)) is None:
            return None
        if not value.isdigit() or len(value) > 19:
            raise Invalid(f"the tar archive has {value[:40]!r} as the {key.decode()} of an entry, which is no number")
        return int(value)

    def time(self) -> int:
        """mtime, in ns since the epoch."""
        match = _TIME.fullmatch(self.found[b"mtime"])
        if not match:
            raise Invalid(f"the tar archive has {self.found[b'mtime'][:40]!r} as the time of an entry")
        sign, seconds, fraction = match.groups()
        value = int(seconds) * 10**9 + int((fraction or b"")[:9].ljust(9, b"0"))
        return -value if sign else value

    def xattrs(self) -> dict[str, bytes]:
        """Extended attributes by name, as star and GNU tar or else as bsdtar wrote them."""
        if not self.has_xattrs:
            return _NONE
        found: dict[bytes, bytes] = {}
        for key, value in self.found.items():
            if key.startswith(_LIBARCHIVE):
                name = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), key.removeprefix(_LIBARCHIVE))
                try:
                    found[name] = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
                except binascii.Error:
                    raise Invalid(f"the tar archive has the attribute {name!r}, which is no base64") from None
        for key, value in self.found.items():
            if key.startswith(_SCHILY):
                found[key.removeprefix(_SCHILY)] = value
        return {name.decode("utf-8", "surrogateescape"): value for name, value in found.items()}
