"""Writes tar headers: ustar, and a PAX header before it for what that has no room for."""

from msgspec import field

from swarmd.runtime.images.unpacking.tar import BLOCK, Kind
from swarmd.runtime.model import Struct

_NAME = 100  # bytes
_FLAGS = {
    Kind.FILE: b"0",
    Kind.LINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}


class Member(Struct, frozen=True):
    """An entry to be written; mtime in ns, names as the file system has them."""

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)


def header(member: Member) -> bytes:
    """All that comes before the entry's content."""
    names = ((b"path", member.name), (b"linkpath", member.target))
    numbers = ((b"uid", member.uid, 7), (b"gid", member.gid, 7), (b"size", member.size, 11))
    extra = {key: name for key, name in names if len(name) > _NAME or not name.isascii()}
    extra |= {key: b"%d" % value for key, value, digits in numbers if value >= 8**digits}
    seconds, fraction = divmod(member.mtime, 10**9)
    if fraction or not 0 <= seconds < 8**11:
        extra[b"mtime"] = _time(member.mtime)
    for attribute, data in member.xattrs.items():
        extra[b"SCHILY.xattr." + attribute.encode("utf-8", "surrogateescape")] = data
    plain = _ustar(member, _FLAGS[member.kind], member.size, seconds)
    return _pax(member, extra) + plain if extra else plain


def _pax(member: Member, extra: dict[bytes, bytes]) -> bytes:
    if not all(_is_text(extra.get(key, b"")) for key in (b"path", b"linkpath")):
        extra = {b"hdrcharset": b"BINARY", **extra}
    data = b"".join(_record(key, value) for key, value in extra.items())
    base = member.name.rstrip(b"/").rpartition(b"/")[2]
    own = Member(name=b"PaxHeaders/" + base, kind=Kind.FILE, mode=0o644, uid=0, gid=0, size=0, mtime=0)
    return _ustar(own, b"x", len(data), 0) + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """The length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _ustar(member: Member, flag: bytes, size: int, seconds: int) -> bytes:
    block = b"".join(
        (
            _short(member.name),
            _octal(member.mode, 7),
            _octal(member.uid, 7),
            _octal(member.gid, 7),
            _octal(size, 11),
            _octal(seconds, 11),
            b" " * 8,  # as which the checksum's own bytes are counted
            flag,
            _short(member.target),
            b"ustar\x0000",
            bytes(64),  # names of owners: those of this host mean nothing elsewhere
            _octal(member.device[0], 7),
            _octal(member.device[1], 7),
            bytes(167),
        )
    )
    return b"%s%06o\0 %s" % (block[:148], sum(block), block[156:])


def _short(name: bytes) -> bytes:
    """For readers that know no PAX: something like it."""
    return bytes(byte if byte < 128 else 0x5F for byte in name[:_NAME]).ljust(_NAME, b"\0")


def _octal(value: int, digits: int) -> bytes:
    return b"%0*o\0" % (digits, value if 0 <= value < 8**digits else 0)


def _time(time: int) -> bytes:
    seconds, fraction = divmod(abs(time), 10**9)
    text = f"{'-' if time < 0 else ''}{seconds}.{fraction:09}".rstrip("0").rstrip(".")
    return text.encode()


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
