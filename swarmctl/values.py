"""What users write on the command line, as the Engine API wants it.

Each parser raises BadValue with a sentence that shows the right form.
"""

from __future__ import annotations

import os

from swarmd.swarmctl.parser import BadValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

DETACH_KEYS = "ctrl-p,ctrl-q"  # where nothing is said
_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_POWERS = " kmgtp"


def digits(text: str, most: int = 18) -> bool:
    return text.isdigit() and text.isascii() and len(text) <= most


def _decimal(text: str) -> bool:
    whole, point, part = text.partition(".")
    return digits(whole) and (not point or digits(part, len(part)))


def octal(text: str) -> int:
    if not text or len(text) > 5 or text.strip("01234567"):
        raise BadValue(f"{text!r} is no file mode: write it as 1777")
    return int(text, 8)


def duration(text: str) -> int:
    """Nanoseconds of '1m30s', '500ms', '0'."""
    total, rest = 0.0, "" if text == "0" else text or "?"
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = next((unit for unit in _UNITS if rest.startswith(unit)), "")
        if not unit or not _decimal(number):
            raise BadValue(f"{text!r} is no duration: write it as 10s, 1m30s or 500ms")
        total += float(number) * _UNITS[unit]
        rest = rest[len(unit) :]
    return int(total)


def size(text: str) -> int:
    """Bytes of '512m', '1.5g', '10 MiB', '1048576'."""
    number = text.strip().lower()
    if number.endswith("b"):
        number = number[:-1].removesuffix("i")
    unit = number[-1:] if number[-1:] in _POWERS.strip() else ""
    number = number.removesuffix(unit).rstrip()
    if not text.isascii() or not _decimal(number):
        raise BadValue(f"{text!r} is no size: write it as 512m, 2g or a number of bytes")
    return int(float(number) * 1024 ** _POWERS.index(unit or " "))


def cpus(text: str) -> int:
    """Billionths of a processor of '0.5'."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e6:
        raise BadValue(f"{text!r} is no number of processors: write it as 0.5 or 2")
    return round(value * 1e9)


def comma_separated(text: str) -> list[str]:
    """Fields as CSV has them: 'a,"b,c"'."""
    import csv  # late: most commands need none

    try:
        return next(csv.reader([text]), [])
    except csv.Error as problem:
        raise BadValue(f"{text!r}: {problem}") from None


def count(text: str) -> int:
    if not digits(text):
        raise BadValue(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise BadValue(f"{text!r} is no ratio: it is a number from 0 to 1")
    return value


def pair(text: str) -> tuple[str, str]:
    """('key', 'value') of 'key=value'; the value may be absent."""
    key, _, value = text.partition("=")
    if not key:
        raise BadValue(f"{text!r} has no key: write it as key=value")
    return key, value


def env(text: str) -> str:
    """'KEY=value'; a bare KEY takes its value from this shell, and is left out there if it has none."""
    key, equals, _ = text.partition("=")
    if not key:
        raise BadValue(f"{text!r} has no name: write it as NAME=value")
    return text if equals else f"{key}={os.environ[key]}" if key in os.environ else key


def lines_of(path: str) -> list[str]:
    """A file's lines, without comments and empty ones."""
    try:
        with open(path) as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadValue(f"{path}: {getattr(problem, 'strerror', None) or 'is not text'}") from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def env_file(path: str) -> list[str]:
    """NAME=value lines; a bare NAME has this shell's value, and is left out where that has none."""
    lines = lines_of(path)
    for line in lines:
        if line.partition("=")[0].split() != [line.partition("=")[0]]:
            raise BadValue(f"{path}: {line!r} has no name: write it as NAME=value")
    return [env for env in map(env, lines) if "=" in env]


def port_number(text: str) -> int:
    if not digits(text) or not 1 <= int(text) <= 65535:
        raise BadValue(f"{text!r} is no port: it is a number from 1 to 65535")
    return int(text)


def published(text: str) -> dict[str, Any]:
    """A service's port of '8080:80/tcp', '80' or 'published=8080,target=80,protocol=tcp,mode=host'."""
    if "=" in text:
        fields = keyed(text, {"published", "target", "protocol", "mode"})
        if "target" not in fields:
            raise BadValue(f"{text!r} lacks target=PORT, the port in the container")
        outside, inside = fields.get("published", ""), fields["target"]
        protocol, mode = fields.get("protocol", "tcp"), fields.get("mode", "ingress")
    else:
        ports, _, protocol = text.partition("/")
        outside, _, inside = ports.rpartition(":")
        protocol, mode = protocol or "tcp", "ingress"
    if protocol not in ("tcp", "udp"):
        raise BadValue(f"{text!r}: protocol {protocol!r} is neither tcp nor udp")
    if mode not in ("ingress", "host"):
        raise BadValue(f"{text!r}: mode {mode!r} is neither ingress nor host")
    port = {"Protocol": protocol, "TargetPort": port_number(inside), "PublishMode": mode}
    return {**port, "PublishedPort": port_number(outside)} if outside else port


def keyed(text: str, known: Iterable[str]) -> dict[str, str]:
    """{'type': 'bind', ...} of 'type=bind,...'; a bare word has the value 'true'."""
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key not in known:
            raise BadValue(f"{text!r}: unknown key {key!r}; known are {', '.join(sorted(known))}")
        fields[key] = value if equals else "true"
    return fields


_MOUNT_KEYS = {
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "type": "type",
    "readonly": "readonly",
    "ro": "readonly",
    "bind-propagation": "propagation",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
}


def mount(text: str) -> dict[str, Any]:
    """'type=bind,src=/a,dst=/b,ro' or 'type=tmpfs,dst=/t,tmpfs-size=10m'."""
    fields = {_MOUNT_KEYS[key]: value for key, value in keyed(text, _MOUNT_KEYS).items()}
    kind = fields.get("type", "volume")
    if kind not in ("bind", "tmpfs"):
        raise BadValue(f"{text!r}: mounts of type {kind!r} are not available; use type=bind or type=tmpfs")
    if not fields.get("target", "").startswith("/"):
        raise BadValue(f"{text!r} lacks target=/absolute/path, the place in the container")
    if kind == "bind" and not fields.get("source", "").startswith("/"):
        raise BadValue(f"{text!r} lacks source=/absolute/path, the place on the host")
    wanted: dict[str, Any] = {"Type": kind, "Target": fields["target"]}
    if kind == "bind":
        wanted["Source"] = fields["source"]
    if fields.get("readonly", "false") not in ("false", "0"):
        wanted["ReadOnly"] = True
    if "propagation" in fields:
        wanted["BindOptions"] = {"Propagation": fields["propagation"]}
    tmpfs = {"SizeBytes": size(fields["size"])} if "size" in fields else {}
    if "mode" in fields:
        tmpfs["Mode"] = octal(fields["mode"])
    return {**wanted, "TmpfsOptions": tmpfs} if tmpfs else wanted


def ulimit(text: str) -> dict[str, Any]:
    """'nofile=1024:2048'."""
    name, values = pair(text)
    soft, _, hard = values.partition(":")
    if not all(digits(limit.removeprefix("-"), 19) for limit in (soft, hard or soft)):
        raise BadValue(f"{text!r} is no ulimit: write it as nofile=1024:2048")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def preference(text: str) -> dict[str, Any]:
    strategy, descriptor = pair(text)
    if strategy != "spread" or not descriptor:
        raise BadValue(f"{text!r} is no placement preference: write it as spread=node.labels.zone")
    return {"Spread": {"SpreadDescriptor": descriptor}}


def network(text: str) -> dict[str, Any]:
    """'back' or 'name=back,alias=db'."""
    if "=" not in text:
        return {"Target": text}
    fields = keyed(text, {"name", "alias"})
    if "name" not in fields:
        raise BadValue(f"{text!r} lacks name=NETWORK")
    return {"Target": fields["name"], **({"Aliases": [fields["alias"]]} if "alias" in fields else {})}


def extra_host(text: str) -> str:
    """'IP name' of 'name:IP'."""
    name, _, address = text.partition(":")
    if not name or not address:
        raise BadValue(f"{text!r} is no host entry: write it as name:address")
    return f"{address} {name}"
