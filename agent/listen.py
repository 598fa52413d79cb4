"""Where the Engine API is listened for: unix sockets for the host's administrators, tcp under mTLS only."""

import errno
import grp
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_GROUPS = ("swarmd", "docker")  # the first that exists may use the socket


class Refused(Exception):
    """The daemon cannot start as it was asked to; one sentence."""


@dataclass(frozen=True, slots=True)
class Address:
    """A unix socket's path, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"tcp://{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Of unix:///path or tcp://host:port; Refused for anything else."""
    url = urlsplit(text)
    try:
        if url.scheme == "unix" and not url.netloc and url.path.startswith("/"):
            return Address(path=url.path)
        if url.scheme == "tcp" and url.hostname and url.port and url.path in ("", "/"):
            return Address(host=url.hostname, port=url.port)
    except ValueError:
        pass
    raise Refused(f"address {text}: write it as unix:///path/to/socket or tcp://address:port")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """A server's context that takes no client without a certificate of the CA."""
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
            context.load_cert_chain(self.certificate, self.key)
        except OSError as problem:
            raise Refused(f"TLS with {self.ca}, {self.certificate} and {self.key}: {problem}") from None
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def open_socket(address: Address) -> socket.socket:
    """A listening socket; Refused in one sentence when it cannot be had."""
    try:
        return _unix(Path(address.path)) if address.path else _tcp(address)
    except OSError as problem:
        why = (
            "the address is in use" if problem.errno == errno.EADDRINUSE else (problem.strerror or str(problem)).lower()
        )
        raise Refused(f"cannot listen on {address}: {why}") from None


def _unix(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_socket():
        _refuse_if_answering(path)
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)  # 0660 from the first moment on
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    for name in _GROUPS:
        try:
            os.chown(path, -1, grp.getgrnam(name).gr_gid)
            break
        except KeyError:
            continue
    listener.listen(128)
    return listener


def _refuse_if_answering(path: Path) -> None:
    """A socket file that nobody listens on is left over from a daemon that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
    raise OSError(errno.EADDRINUSE, "in use")


def _tcp(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=128)


def notify(state: str) -> None:
    """Tell systemd, if it asked to be told (sd_notify(3))."""
    target = os.environ.get("NOTIFY_SOCKET", "")
    if target:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(state.encode(), f"\0{target[1:]}" if target.startswith("@") else target)
