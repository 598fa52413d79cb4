"""RUN --mount: what it says, and what is mounted for it."""

import csv

from swarmd.runtime.build.faults import WrongWord
from swarmd.runtime.model import Struct

_KEYS = {
    "bind": {"target", "source", "from", "rw"},
    "cache": {"id", "target", "ro", "sharing", "from", "source", "mode", "uid", "gid"},
    "tmpfs": {"target", "size"},
    "secret": {"id", "target", "env", "required", "mode", "uid", "gid"},
    "ssh": {"id", "target", "required", "mode", "uid", "gid"},
}
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "readonly": "ro", "readwrite": "rw"}
_SHARING = ("shared", "private", "locked")
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class RunMount(Struct, frozen=True):
    """Empty strings and None are what was not given; size in bytes."""

    type: str
    target: str = ""
    source: str = ""
    from_: str = ""
    id: str = ""
    env: str = ""
    writable: bool = False
    required: bool = False
    sharing: str = "shared"
    size: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0


def parse(text: str) -> RunMount:
    """Raises WrongWord naming the option that is wrong, or missing."""
    given: dict[str, str] = {}
    for field in next(csv.reader([text]), []):
        key, equals, value = field.partition("=")
        key = _ALIASES.get(key.strip().lower(), key.strip().lower())
        if not equals and key not in ("ro", "rw", "required"):
            raise WrongWord(f"--mount={text}: {field!r} is not of the form key=value", field)
        given[key] = value if equals else "true"
    kind = given.pop("type", "bind")
    if kind not in _KEYS:
        raise WrongWord(f"--mount={text}: type is one of {', '.join(_KEYS)}, not {kind!r}", kind)
    for key in given:
        if key not in _KEYS[kind] and not (kind == "bind" and key == "ro") and not (kind == "cache" and key == "rw"):
            allowed = ", ".join(sorted(_KEYS[kind]))
            raise WrongWord(f"--mount={text}: a {kind} mount has no {key}: it may have {allowed}", key)
    if kind in ("bind", "cache", "tmpfs") and not given.get("target"):
        raise WrongWord(f"--mount={text}: a {kind} mount needs a target", text)
    if given.get("sharing", "shared") not in _SHARING:
        raise WrongWord(f"--mount={text}: sharing is {', '.join(_SHARING)}, not {given['sharing']!r}", given["sharing"])
    writable = _flag(given, "rw", text) if kind == "bind" else not _flag(given, "ro", text)
    return RunMount(
        type=kind,
        target=given.get("target", ""),
        source=given.get("source", ""),
        from_=given.get("from", ""),
        id=given.get("id", ""),
        env=given.get("env", ""),
        writable=writable,
        required=_flag(given, "required", text),
        sharing=given.get("sharing", "shared"),
        size=_size(given.get("size", "0"), text),
        mode=_number(given["mode"], 8, "mode", text) if "mode" in given else None,
        uid=_number(given.get("uid", "0"), 10, "uid", text),
        gid=_number(given.get("gid", "0"), 10, "gid", text),
    )


def _flag(given: dict[str, str], key: str, text: str) -> bool:
    value = given.get(key, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise WrongWord(f"--mount={text}: {key} is true or false, not {value!r}", value)
    return value in ("true", "1")


def _number(value: str, base: int, key: str, text: str) -> int:
    try:
        return int(value, base)
    except ValueError:
        raise WrongWord(f"--mount={text}: {key} is a number, not {value!r}", value) from None


def _size(value: str, text: str) -> int:
    plain = value.lower().removesuffix("b") if value.lower() != "b" else value
    unit = plain[-1:] if plain[-1:] in _SIZES and not plain[-1:].isdigit() else ""
    number = plain[: len(plain) - len(unit)]
    if not number.isascii() or not number.isdigit():
        raise WrongWord(f"--mount={text}: size is a number of bytes like 64m, not {value!r}", value)
    return int(number) * _SIZES[unit]
