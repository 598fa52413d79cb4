"""What a cluster network may ask for."""

import ipaddress
import re

from swarmd.proto.errors import Invalid
from swarmd.proto.objects_pb2 import IPAMConfig, NetworkSpec

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def validate_network(spec: NetworkSpec) -> None:
    if not spec.name:
        raise Invalid("a network needs a name")
    if not _NAME.fullmatch(spec.name):
        raise Invalid(f"network name {spec.name!r} is not valid: letters, digits, and '-', '_' or '.' after the first")
    if spec.driver != "overlay":
        raise Invalid(f"network driver {spec.driver!r} is not supported across the cluster: overlay is")
    if len(spec.ipam) > 1:
        raise Invalid(f"network {spec.name} asks for {len(spec.ipam)} subnets: one is supported")
    for config in spec.ipam:
        _ipam(config)


def subnet(config: IPAMConfig) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(config.subnet)
    except ValueError:
        raise Invalid(f"subnet {config.subnet!r} is not an IPv4 network in CIDR form, such as 10.1.0.0/24") from None


def _ipam(config: IPAMConfig) -> None:
    if config.ip_range:
        raise Invalid("an IP range within the subnet is not supported: choose a smaller subnet")
    if config.gateway:
        raise Invalid("a gateway is not supported on overlay networks: each node's is an address of its own")
    if config.subnet and subnet(config).prefixlen > 29:
        raise Invalid(f"subnet {config.subnet} is too small: at most /29")
