"""Which hosts stand for a registry, how each is spoken to, and how patient we are with it."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec
from yarl import URL

from swarmd.runtime.errors import Invalid
from swarmd.runtime.model import Struct

CERTIFICATES = (Path("/etc/swarmd/certs.d"), Path("/etc/docker/certs.d"))
LOOPBACK = ("127.0.0.0/8", "::1/128")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::(?P<port>\d{1,5}))?", re.ASCII)
_MOST_PORTS = 65535


class Patience(Struct, frozen=True):
    """Seconds, and how often in a row something may fail; bytes that arrive start the count anew."""

    connect: float = 10.0
    silence: float = 30.0  # between two bytes
    tries: int = 6
    first_wait: float = 0.5  # doubles, less up to half at random
    longest_wait: float = 10.0
    longest_retry_after: float = 30.0  # a registry that asks for more is not waited for


class Settings(Struct, frozen=True):
    """mirrors: for a domain, the URLs or hosts that are asked before it. insecure: hosts[:port] and networks.

    An insecure registry's certificate isn't checked, and it may be without TLS. certificates: directories with one
    for each host[:port], which has *.crt (authorities to trust beside the system's), and NAME.cert with NAME.key.
    """

    mirrors: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    insecure: tuple[str, ...] = LOOPBACK
    certificates: tuple[Path, ...] = CERTIFICATES
    hosts: dict[str, str] = msgspec.field(default_factory=lambda: {"docker.io": "registry-1.docker.io"})
    index: str = "index.docker.io"  # where searches without a host go
    patience: Patience = Patience()

    def __post_init__(self) -> None:
        for entry in self.insecure:
            if not is_host(entry) and _network(entry) is None:
                raise Invalid(f"insecure registry {entry[:300]!r} is neither host[:port] nor a network like 10.0.0.0/8")
        for domain in self.mirrors:
            self.endpoints(domain)

    def endpoints(self, domain: str) -> tuple["Endpoint", ...]:
        """Where to read from, in order: the mirrors and then the registry itself; Invalid for a mirror that is none."""
        return (*(self._mirror(text, domain) for text in self.mirrors.get(domain, ())), self.origin(domain))

    def origin(self, domain: str) -> "Endpoint":
        return self.endpoint(self.hosts.get(domain, domain))

    def endpoint(self, host: str, prefix: str = "", scheme: str = "", mirror: bool = False) -> "Endpoint":
        if not is_host(host):
            raise Invalid(f"registry {host[:300]!r} is not of the form host[:port]")
        insecure = self.is_insecure(host)
        schemes = (scheme,) if scheme else ("https", "http") if insecure else ("https",)
        return Endpoint(host=host, prefix=prefix, schemes=schemes, verified=not insecure, mirror=mirror)

    def is_insecure(self, host: str) -> bool:
        """Whether a host[:port] was declared so, by itself or by a network that its address is in."""
        name = re.sub(r":\d+$", "", host)
        address = _address("127.0.0.1" if name == "localhost" else name.strip("[]"))
        for entry in self.insecure:
            if entry in (host, name):
                return True
            network = _network(entry)
            if address is not None and network is not None and address in network:
                return True
        return False

    def _mirror(self, text: str, domain: str) -> "Endpoint":
        scheme, _, rest = text.rpartition("://")
        host, slash, path = rest.partition("/")
        if scheme not in ("", "http", "https") or not is_host(host) or set("?#") & set(path):
            raise Invalid(f"mirror {text[:300]!r} of {domain} is not of the form [https://]host[:port][/path]")
        return self.endpoint(host, f"{slash}{quote(path, safe='/%')}".rstrip("/"), scheme, mirror=True)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host that serves repositories: host[:port] as in names of images, then the path before /v2/."""

    host: str
    prefix: str
    schemes: tuple[str, ...]  # in the order to try
    verified: bool  # its certificate
    mirror: bool

    def url(self, scheme: str, path: str) -> URL:
        return URL(f"{scheme}://{self.host}{self.prefix}{path}", encoded=True)


def is_host(text: str) -> bool:
    """Whether it is host[:port], as names of images begin with."""
    found = _HOST.fullmatch(text)
    return found is not None and int(found["port"] or 0) <= _MOST_PORTS


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False) if "/" in entry else None
    except ValueError:
        return None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
