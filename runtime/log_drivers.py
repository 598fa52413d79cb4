"""Which log drivers there are, what options each knows, and what the shim is told to write where.

json-file, local   files here; local compresses those that have been rotated unless it is told not to
syslog, journald   a receiver outside, and a file here for `docker logs` unless cache-disabled=true
none               nothing is kept
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from swarmd.runtime.effective import environment
from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import ContainerConfig, LogConfig
from swarmd.runtime.ports import Image

_COMMON = frozenset({"labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"})
_FILES = frozenset({"max-size", "max-file", "compress"})
_CACHE = frozenset({"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_SYSLOG = frozenset({"syslog-address", "syslog-facility", "syslog-format"})
_TLS = frozenset({"syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"})
DRIVERS: Mapping[str, frozenset[str]] = {
    "json-file": _COMMON | _FILES,
    "local": _COMMON | _FILES,
    "syslog": _COMMON | _CACHE | _SYSLOG | _TLS,
    "journald": _COMMON | _CACHE,
    "none": frozenset(),
}
_REMOTE = ("syslog", "journald")
_DEFAULT_ROOM = 1 << 20

JOURNAL = Path("/run/systemd/journal/socket")
_DEV_LOG = "/dev/log"
_FACILITIES = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
_LOCAL = 16  # local0 to local7 follow from here

_SIZE = re.compile(r"(\d{1,18})([bkmgt]?)b?", re.ASCII | re.IGNORECASE)
_COUNT = re.compile(r"0*[1-9]\d{0,8}", re.ASCII)
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
_NOT_IN_FIELDS = re.compile(r"[^A-Z0-9_]")
_SYSLOG_PORT = 514
_ADDRESS = re.compile(
    r"(?P<kind>udp|tcp|tcp\+tls)://(?P<host>\[[0-9a-fA-F:.]+\]|[^/:\[\]\s]+)(:(?P<port>\d{1,5}))?"
    r"|(?P<local>unix|unixgram)://(?P<path>/.{1,106})",
    re.ASCII,
)
_TAG_FIELDS = ("ID", "FullID", "Name", "ImageName", "ImageID", "DaemonName")


def parse(driver: str, options: Mapping[str, str]) -> LogConfig:
    """Read what a user asked for. Raises Invalid."""
    driver = driver or "json-file"
    if driver not in DRIVERS:
        raise Invalid(f"log driver {driver} is not supported: use {_either(DRIVERS)}")
    for name, value in options.items():
        if name not in DRIVERS[driver]:
            known = f"it knows {', '.join(sorted(DRIVERS[driver]))}" if DRIVERS[driver] else "it has none"
            raise Invalid(f"log option {name} is unknown to log driver {driver}: {known}")
        if check := _CHECKS.get(name):
            check(name, value)
    if "max-buffer-size" in options and _blocks(driver, options):
        raise Invalid("log option max-buffer-size is for mode=non-blocking: otherwise there is no buffer")
    address = options.get("syslog-address", "")
    if options.keys() & _TLS and not address.startswith("tcp+tls://"):
        raise Invalid(f"log option {min(options.keys() & _TLS)} is for a syslog-address that begins with tcp+tls://")
    default, of_file = LogConfig(), "cache-" if driver in _REMOTE else ""
    size, files = options.get(f"{of_file}max-size"), options.get(f"{of_file}max-file", default.max_file)
    return LogConfig(
        driver=driver,
        max_size=_bytes(size) if size else default.max_size,
        max_file=int(files),
        compress=options.get(f"{of_file}compress", "false" if driver in ("json-file", "none") else "true") == "true",
        options={name: value for name, value in options.items() if name not in _FILES},
    )


def check_here(log: LogConfig) -> None:
    """Raise Invalid for what this host has no receiver or no file for."""
    if log.driver == "journald" and not JOURNAL.exists():
        raise Invalid(f"log driver journald needs systemd's journal: there is no {JOURNAL} on this host")
    if log.driver == "syslog" and not log.options.get("syslog-address") and not Path(_DEV_LOG).exists():
        raise Invalid(f"there is no {_DEV_LOG} on this host: name a receiver by log option syslog-address")
    for name in ("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key"):
        if (path := log.options.get(name)) and not Path(path).is_file():
            raise Invalid(f"log option {name} is {path}: there is no such file on this host")


def keeps_file(log: LogConfig) -> bool:
    """Whether what was written can be read here."""
    return log.driver != "none" and log.options.get("cache-disabled") != "true"


def _blocks(driver: str, options: Mapping[str, str]) -> bool:
    """A receiver outside holds up no program, unless it is asked to."""
    return options.get("mode", "non-blocking" if driver in _REMOTE else "blocking") == "blocking"


def shown(log: LogConfig) -> dict[str, str]:
    """The options in force, as Docker's clients read them."""
    if log.driver in _REMOTE:
        return log.options
    compress = "true" if log.compress else "false"
    return {"max-size": str(log.max_size), "max-file": str(log.max_file), "compress": compress} | log.options


def request(id: str, name: str, directory: Path, config: ContainerConfig, image: Image) -> dict[str, Any] | None:
    """What the shim is told; None: it keeps nothing."""
    log = config.log
    if log.driver == "none":
        return None
    template = log.options.get("tag", "{{.ID}}" if log.driver in _REMOTE else "")
    tag = _tag(template, id, name, config, image)
    attributes = _attributes(id, config, image) | ({"tag": tag} if "tag" in log.options else {})
    return {
        "path": str(directory / "container.log") if keeps_file(log) else "",
        "max_size": log.max_size,
        "max_file": max(1, log.max_file),
        "compress": log.compress and log.max_file > 1,
        "attributes": attributes,
        "room": _room(log),
        "target": _target(log, tag, _journal_fields(id, name, config, tag, attributes)),
    }


def _room(log: LogConfig) -> int:
    """Bytes of lines that may wait to be written, so that the program needs not; 0: it waits."""
    if _blocks(log.driver, log.options):
        return 0
    return _bytes(log.options["max-buffer-size"]) if "max-buffer-size" in log.options else _DEFAULT_ROOM


def _target(log: LogConfig, tag: str, fields: Mapping[str, str]) -> dict[str, Any] | None:
    """The receiver outside."""
    if log.driver == "journald":
        return {"driver": "journald", "path": str(JOURNAL), "fields": fields}
    if log.driver != "syslog":
        return None
    return {
        "driver": "syslog",
        **_receiver(log.options.get("syslog-address", "")),
        "facility": _facility_number(log.options.get("syslog-facility", "daemon")),
        "format": log.options.get("syslog-format", ""),
        "tag": tag,
        "ca": log.options.get("syslog-tls-ca-cert", ""),
        "cert": log.options.get("syslog-tls-cert", ""),
        "key": log.options.get("syslog-tls-key", ""),
        "verify": log.options.get("syslog-tls-skip-verify") != "true",
    }


def _receiver(address: str) -> dict[str, Any]:
    match = _ADDRESS.fullmatch(address or f"unixgram://{_DEV_LOG}")
    assert match, "it has been checked"
    if match["path"]:
        return {"kind": match["local"], "path": match["path"]}
    return {"kind": match["kind"], "host": match["host"].strip("[]"), "port": int(match["port"] or _SYSLOG_PORT)}


def _journal_fields(
    id: str, name: str, config: ContainerConfig, tag: str, attributes: Mapping[str, str]
) -> dict[str, str]:
    """As Docker names them; a label's name is written in capitals, with _ for what a field's name can't have."""
    fields = {_NOT_IN_FIELDS.sub("_", key.upper()).lstrip("_"): value for key, value in attributes.items()}
    fields |= {"CONTAINER_ID": id[:12], "CONTAINER_ID_FULL": id, "CONTAINER_NAME": name, "CONTAINER_TAG": tag}
    fields |= {"IMAGE_NAME": config.image, "SYSLOG_IDENTIFIER": tag}
    return {key: value for key, value in fields.items() if key}


def _attributes(id: str, config: ContainerConfig, image: Image) -> dict[str, str]:
    """The labels and variables that each line is to carry."""
    options = config.log.options
    labels = image.config.labels | config.labels
    variables = dict(text.split("=", 1) for text in environment(id, config, image))
    found: dict[str, str] = {}
    for kind, values in (("labels", labels), ("env", variables)):
        names = [name.strip() for name in options.get(kind, "").split(",")]
        pattern = re.compile(options.get(f"{kind}-regex") or r"(?!)")
        found |= {key: value for key, value in values.items() if key in names or pattern.search(key)}
    return found


def _tag(template: str, id: str, name: str, config: ContainerConfig, image: Image) -> str:
    values = (id[:12], id, name, config.image, image.id.removeprefix("sha256:")[:12], "swarmd")
    fields = dict(zip(_TAG_FIELDS, values, strict=True))
    return _FIELD.sub(lambda match: fields[match[1]], template)


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    assert match, "it has been checked"
    return int(match[1]) << 10 * "bkmgt".index(match[2].lower() or "b")


# What the values of options have to be


def _size(name: str, value: str) -> None:
    if not _SIZE.fullmatch(value):
        raise Invalid(f"log option {name} is {value!r}: write it as 10m")


def _count(name: str, value: str) -> None:
    if not _COUNT.fullmatch(value):
        raise Invalid(f"log option {name} is {value!r}: it is a number from 1 on")


def _one_of(*allowed: str) -> Callable[[str, str], None]:
    def check(name: str, value: str) -> None:
        if value not in allowed:
            raise Invalid(f"log option {name} is {value!r}: it is {_either(allowed)}")

    return check


def _regex(name: str, value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        raise Invalid(f"log option {name} is no regular expression: {error}") from None


def _template(name: str, value: str) -> None:
    for field in _FIELD.findall(value):
        if field not in _TAG_FIELDS:
            raise Invalid(f"log option {name} names {{{{.{field}}}}}: there are {', '.join(_TAG_FIELDS)}")
    if "{{" in _FIELD.sub("", value):
        raise Invalid(f"log option {name} is {value!r}: write a field of the container as {{{{.Name}}}}")


def _address(name: str, value: str) -> None:
    match = _ADDRESS.fullmatch(value)
    if not match or not 0 < int(match["port"] or _SYSLOG_PORT) < 65536:
        raise Invalid(
            f"log option {name} is {value!r}: write it as udp://HOST:PORT, tcp://..., tcp+tls://..., "
            "unix:///PATH or unixgram:///PATH"
        )


def _facility(name: str, value: str) -> None:
    try:
        _facility_number(value)
    except ValueError:
        known = ", ".join(_FACILITIES)
        raise Invalid(f"log option {name} is {value!r}: there are {known}, local0 to local7, and 0 to 23") from None


def _facility_number(text: str) -> int:
    """Raises ValueError."""
    if match := re.fullmatch(r"local([0-7])", text):
        return _LOCAL + int(match[1])
    return range(24).index(int(text)) if text.isdecimal() else _FACILITIES.index(text)


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


_CHECKS: Mapping[str, Callable[[str, str], None]] = {
    "max-size": _size,
    "max-file": _count,
    "compress": _one_of("true", "false"),
    "max-buffer-size": _size,
    "mode": _one_of("blocking", "non-blocking"),
    "labels-regex": _regex,
    "env-regex": _regex,
    "tag": _template,
    "cache-disabled": _one_of("true", "false"),
    "cache-max-size": _size,
    "cache-max-file": _count,
    "cache-compress": _one_of("true", "false"),
    "syslog-address": _address,
    "syslog-facility": _facility,
    "syslog-format": _one_of("rfc3164", "rfc5424", "rfc5424micro"),
    "syslog-tls-skip-verify": _one_of("true", "false"),
}
