"""Which log drivers there are, what options each knows, and what the shim is told to write where.

json-file, local   files here; local compresses those that have been rotated unless it is told not to
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
DRIVERS: Mapping[str, frozenset[str]] = {
    "json-file": _COMMON | _FILES,
    "local": _COMMON | _FILES,
    "none": frozenset(),
}
_DEFAULT_ROOM = 1 << 20

_SIZE = re.compile(r"(\d{1,18})([bkmgt]?)b?", re.ASCII | re.IGNORECASE)
_COUNT = re.compile(r"0*[1-9]\d{0,8}", re.ASCII)
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
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
    if "max-buffer-size" in options and options.get("mode") != "non-blocking":
        raise Invalid("log option max-buffer-size is for mode=non-blocking: otherwise there is no buffer")
    default = LogConfig()
    return LogConfig(
        driver=driver,
        max_size=_bytes(options["max-size"]) if "max-size" in options else default.max_size,
        max_file=int(options.get("max-file", default.max_file)),
        compress=options.get("compress", "true" if driver == "local" else "false") == "true",
        options={name: value for name, value in options.items() if name not in _FILES},
    )


def shown(log: LogConfig) -> dict[str, str]:
    """The options in force, as Docker's clients read them."""
    compress = "true" if log.compress else "false"
    return {"max-size": str(log.max_size), "max-file": str(log.max_file), "compress": compress} | log.options


def request(id: str, name: str, directory: Path, config: ContainerConfig, image: Image) -> dict[str, Any] | None:
    """What the shim is told; None: it keeps nothing."""
    log = config.log
    if log.driver == "none":
        return None
    tag = _tag(log.options["tag"], id, name, config, image) if "tag" in log.options else ""
    attributes = _attributes(id, config, image)
    return {
        "path": str(directory / "container.log"),
        "max_size": log.max_size,
        "max_file": max(1, log.max_file),
        "compress": log.compress and log.max_file > 1,
        "attributes": attributes | ({"tag": tag} if tag else {}),
        "room": _room(log),
    }


def _room(log: LogConfig) -> int:
    """Bytes of lines that may wait to be written, so that the program needs not; 0: it waits."""
    if log.options.get("mode") != "non-blocking":
        return 0
    return _bytes(log.options["max-buffer-size"]) if "max-buffer-size" in log.options else _DEFAULT_ROOM


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
}
