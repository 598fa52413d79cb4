"""What users write after the flags of `run` and `create`, as the Engine API wants it.

Each parser raises BadValue with a sentence that shows the right form.
"""

from __future__ import annotations

import os

from swarmd.swarmctl import values
from swarmd.swarmctl.jsontext import dumps, loads
from swarmd.swarmctl.parser import BadValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PROTOCOLS = ("tcp", "udp", "sctp")


def label_file(path: str) -> list[tuple[str, str]]:
    return [values.pair(line) for line in values.lines_of(path)]


def attached(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise BadValue(f"{text!r} cannot be attached: it is one of stdin, stdout and stderr")
    return text.lower()


# ---------------------------------------------------------------- ports


def _span(text: str, whole: str) -> list[int]:
    first, dash, last = text.partition("-")
    start = values.port_number(first)
    end = values.port_number(last) if dash else start
    if end < start:
        raise BadValue(f"{whole!r}: the range of ports ends before it starts")
    return [*range(start, end + 1)]


def exposed(text: str) -> list[str]:
    """['80/tcp', ...] of '80', '80-82/udp'."""
    ports, _, protocol = text.partition("/")
    return [f"{port}/{_protocol(protocol, text)}" for port in _span(ports, text)]


def _protocol(text: str, whole: str) -> str:
    if (text or "tcp").lower() not in _PROTOCOLS:
        raise BadValue(f"{whole!r}: protocol {text!r} is none of {', '.join(_PROTOCOLS)}")
    return (text or "tcp").lower()


def published(text: str) -> list[tuple[str, dict[str, str]]]:
    """[('80/tcp', {'HostIp': '', 'HostPort': '8080'})] of '8080:80', '127.0.0.1:8080-8081:80-81/udp', '80'."""
    if "=" in text:
        fields = values.keyed(text, {"published", "target", "protocol", "mode"})
        if "target" not in fields:
            raise BadValue(f"{text!r} lacks target=PORT, the port in the container")
        address, outside, inside = "", fields.get("published", ""), fields["target"]
        protocol = fields.get("protocol", "")
    else:
        ports, _, protocol = text.partition("/")
        front, _, inside = ports.rpartition(":")
        address, _, outside = front.rpartition(":")
        address = address.removeprefix("[").removesuffix("]")
    name = _protocol(protocol, text)
    targets = _span(inside, text)
    hosts = _span(outside, text) if outside else []
    if len(hosts) == len(targets):
        sources = [str(port) for port in hosts]
    elif not hosts:
        sources = [""] * len(targets)
    elif len(targets) == 1:
        sources = [outside]  # any free one of the range
    else:
        raise BadValue(f"{text!r}: {len(hosts)} ports here cannot be {len(targets)} in the container")
    return [
        (f"{port}/{name}", {"HostIp": address, "HostPort": source})
        for port, source in zip(targets, sources, strict=True)
    ]


# ---------------------------------------------------------------- devices


def device(text: str) -> dict[str, Any]:
    """/dev/a[:/dev/b][:rwm], or the name of a CDI device: vendor.com/class=name."""
    if "=" in text and _is_cdi(text):
        return {"Driver": "cdi", "DeviceIDs": [text]}
    parts = text.split(":")
    rights = "rwm"
    if len(parts) > 1 and 0 < len(parts[-1]) <= 3 and not parts[-1].strip("rwm"):
        rights = parts.pop()
    if len(parts) > 2 or not parts[0]:
        raise BadValue(f"{text!r} is no device: write it as /dev/here[:/dev/inside][:rwm]")
    return {"PathOnHost": parts[0], "PathInContainer": parts[-1], "CgroupPermissions": rights}


def _is_cdi(text: str) -> bool:
    import re

    return bool(re.fullmatch(r"[A-Za-z][\w.-]*\w/[A-Za-z][\w-]*=[\w.:-]+", text))


def gpus(text: str) -> dict[str, Any]:
    """'all', '2', 'device=0,1' or 'driver=..,count=..,"device=0,1",capabilities=..'."""
    wanted: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}
    last = ""
    for field in values.comma_separated(text):
        key, equals, value = field.partition("=")
        if not equals and last == "device":  # device=0,1 without quotes
            wanted["DeviceIDs"].append(key)
            continue
        last = key
        if not equals or key == "count":
            number = value if equals else key
            if number != "all" and not values.digits(number, 9):
                raise BadValue(f"{text!r}: {number!r} is no number of GPUs: write all or a number")
            wanted["Count"] = -1 if number == "all" else int(number)
        elif key == "device":
            wanted["DeviceIDs"] += value.split(",")
        elif key == "driver":
            wanted["Driver"] = value
        elif key == "capabilities":
            wanted["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            wanted["Options"] = dict(values.pair(one) for one in value.split(","))
        else:
            raise BadValue(f"{text!r}: unknown key {key!r}; known are capabilities, count, device, driver, options")
    return wanted


def path_weight(text: str) -> dict[str, Any]:
    path, number = _device_limit(text, "/dev/sda:200")
    return {"Path": path, "Weight": values.count(number)}


def path_bytes(text: str) -> dict[str, Any]:
    path, rate = _device_limit(text, "/dev/sda:1mb")
    return {"Path": path, "Rate": values.size(rate)}


def path_count(text: str) -> dict[str, Any]:
    path, rate = _device_limit(text, "/dev/sda:1000")
    return {"Path": path, "Rate": values.count(rate)}


def _device_limit(text: str, example: str) -> tuple[str, str]:
    path, colon, limit = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise BadValue(f"{text!r} is no limit of a device: write it as {example}")
    return path, limit


# ---------------------------------------------------------------- the rest


def swap(text: str) -> int:
    return -1 if text == "-1" else values.size(text)


def bind(text: str) -> str:
    """A volume's text; a path that starts with a dot is one from here."""
    if not text:
        raise BadValue("'' is no volume: write it as /here:/inside[:ro]")
    source, colon, rest = text.partition(":")
    return f"{os.path.abspath(source)}{colon}{rest}" if colon and source.startswith(".") else text


def tmpfs(text: str) -> tuple[str, str]:
    path, _, options = text.partition(":")
    return path, options


def security(text: str) -> str:
    """seccomp=FILE is read here: the daemon may be elsewhere."""
    key, equals, value = text.partition("=")
    if not equals and ":" in text:
        key, equals, value = text.partition(":")
    if not equals and key != "no-new-privileges":
        raise BadValue(f"{text!r} is no security option: write it as key=value")
    if key == "seccomp" and value not in ("unconfined", "builtin"):
        try:
            with open(value) as file:
                return f"seccomp={dumps(loads(file.read()))}"
        except OSError as problem:
            raise BadValue(f"seccomp profile {value}: {problem.strerror}") from None
        except ValueError:
            raise BadValue(f"seccomp profile {value} is no JSON") from None
    return f"{key}={value}" if equals else key


def restart(text: str) -> dict[str, Any]:
    name, colon, retries = text.partition(":")
    if name not in ("", "no", "always", "unless-stopped", "on-failure") or (colon and name != "on-failure"):
        raise BadValue(
            f"{text!r} is no restart policy: use no, always, unless-stopped, on-failure or on-failure:RETRIES"
        )
    return {"Name": name or "no", "MaximumRetryCount": values.count(retries) if colon else 0}


def host_entry(text: str) -> str:
    """'name:address' of 'name:address' or 'name=address'."""
    name = text.partition(":")[0].partition("=")[0]
    address = text[len(name) + 1 :]
    if not name or not address:
        raise BadValue(f"{text!r} is no host entry: write it as name:address")
    return f"{name}:{address.removeprefix('[').removesuffix(']')}"


def network(text: str) -> dict[str, Any]:
    """A network's name, or 'name=back,alias=db,ip=10.0.0.9,driver-opt=key=value'."""
    if "=" not in text:
        return {"name": text}
    lists, words = {"alias": "Aliases", "link-local-ip": "LinkLocalIPs"}, {"ip": "IPv4Address", "ip6": "IPv6Address"}
    found: dict[str, Any] = {}
    for field in values.comma_separated(text):
        key, _, value = field.partition("=")
        if key == "name":
            found["name"] = value
        elif key == "alias":
            found.setdefault(lists[key], []).append(value)
        elif key == "link-local-ip":
            found.setdefault("IPAMConfig", {}).setdefault(lists[key], []).append(value)
        elif key in words:
            found.setdefault("IPAMConfig", {})[words[key]] = value
        elif key == "mac-address":
            found["MacAddress"] = value
        elif key == "gw-priority":
            found["GwPriority"] = -values.count(value[1:]) if value.startswith("-") else values.count(value)
        elif key == "driver-opt":
            option, content = values.pair(value)
            found.setdefault("DriverOpts", {})[option] = content
        else:
            known = "alias, driver-opt, gw-priority, ip, ip6, link-local-ip, mac-address, name"
            raise BadValue(f"{text!r}: unknown key {key!r}; known are {known}")
    if not found.get("name"):
        raise BadValue(f"{text!r} lacks name=NETWORK")
    return found


def health_probe(text: str) -> list[str]:
    """A check that needs no program in the image."""
    scheme, _, rest = text.partition("://")
    if scheme == "http" and rest:
        return ["HTTP", text]
    if scheme == "tcp" and ":" in rest and values.digits(rest.rpartition(":")[2]):
        return ["TCP", text]
    if scheme == "grpc" and ":" in rest and values.digits(rest.partition("/")[0].rpartition(":")[2]):
        return ["GRPC", text]
    raise BadValue(f"{text!r} is no probe: use http://:8080/path, tcp://:5432 or grpc://:50051/service")


def time_offset(text: str) -> tuple[str, int]:
    clock, _, offset = text.partition("=")
    if clock not in ("monotonic", "boottime"):
        raise BadValue(f"{text!r}: {clock!r} is no clock: write monotonic=DURATION or boottime=DURATION")
    sign = -1 if offset.startswith("-") else 1
    return clock.capitalize(), sign * values.duration(offset.removeprefix("-"))
