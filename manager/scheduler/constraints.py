"""Placement constraints: `node.labels.zone==eu`, all of which a node has to meet.

Keys: node.id, node.hostname, node.ip (an address or a CIDR), node.role, node.platform.os, node.platform.arch,
node.labels.*, engine.labels.*; operators: == and !=. Values are compared without regard to case, as in Swarm.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from swarmd.proto.errors import Invalid
from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER, Node

_FORM = re.compile(r"\s*(?P<key>[A-Za-z0-9][\w.\-/]*)\s*(?P<operator>==|!=)\s*(?P<value>[^\s=!][^=]*?)\s*")
_LABELS = re.compile(r"(?P<whose>node|engine)\.labels\.(?P<label>.+)", re.IGNORECASE)

_FIELDS: dict[str, Callable[[Node], str]] = {
    "node.id": lambda node: node.id,
    "node.hostname": lambda node: node.description.hostname,
    "node.role": lambda node: "manager" if node.spec.role == NODE_ROLE_MANAGER else "worker",
    "node.platform.os": lambda node: node.description.platform.os,
    "node.platform.arch": lambda node: node.description.platform.architecture,
}


@dataclass(frozen=True, slots=True)
class Constraint:
    key: str
    equal: bool
    value: str

    def __str__(self) -> str:
        return f"{self.key}{'==' if self.equal else '!='}{self.value}"

    def matches(self, node: Node) -> bool:
        return self._holds(node) == self.equal

    def _holds(self, node: Node) -> bool:
        if self.key == "node.ip":
            address = _address(node)
            return address is not None and address in ipaddress.ip_network(self.value, strict=False)
        return value_of(self.key, node).casefold() == self.value.casefold()


def parse(expressions: Iterable[str]) -> list[Constraint]:
    """Raise Invalid, naming the expression, if one can't be understood."""
    return [_parse(expression) for expression in expressions]


def _parse(expression: str) -> Constraint:
    found = _FORM.fullmatch(expression)
    if found is None:
        raise Invalid(f"constraint {expression!r} is not of the form key==value or key!=value")
    key, equal, value = found["key"], found["operator"] == "==", found["value"]
    if labels := _LABELS.fullmatch(key):
        return Constraint(f"{labels['whose'].lower()}.labels.{labels['label']}", equal, value)
    key = key.lower()
    if key == "node.ip":
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise Invalid(f"constraint {expression!r} needs an IP address or a CIDR, not {value!r}") from None
    elif key not in _FIELDS:
        raise Invalid(
            f"constraint {expression!r} has an unknown key; there are {', '.join(_FIELDS)}, node.ip, node.labels.* "
            "and engine.labels.*"
        )
    return Constraint(key, equal, value)


def value_of(key: str, node: Node) -> str:
    """What a node has under a key, "" when nothing; also for spreading over the values of a key."""
    if labels := _LABELS.fullmatch(key):
        held = node.spec.labels if labels["whose"] == "node" else node.description.engine.labels
        return held.get(labels["label"], "")
    return _FIELDS[key](node)


def _address(node: Node) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(node.status.addr or node.description.addr)
    except ValueError:
        return None
