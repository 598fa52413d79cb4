"""Connects to a daemon: its unix socket, TCP with TLS, or another host through ssh.

TCP without TLS is refused: who reaches the socket is root on that machine.
"""

from __future__ import annotations

import os

# What module `socket` is made of: that takes milliseconds to load.
from _socket import AF_UNIX, SOCK_STREAM
from _socket import socket as Socket

DEFAULT_HOST = "unix:///run/swarmd/swarmd.sock"


class DialError(Exception):
    """One sentence for the user."""


class Tls:
    """Files in PEM; verify: whether the daemon must prove who it is."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, ca: str, cert: str, key: str, verify: bool = True) -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify = verify


class Endpoint:
    __slots__ = ("host", "tls")

    def __init__(self, host: str, tls: Tls | None = None) -> None:
        self.host = host
        self.tls = tls


def dial(endpoint: Endpoint) -> Socket:
    """Return a connected socket; OSError and DialError say why there is none."""
    scheme, _, address = endpoint.host.partition("://")
    if scheme == "unix":
        return _unix(address)
    if scheme == "tcp":
        return _tls(endpoint)
    if scheme == "ssh":
        return _ssh(endpoint.host)
    raise DialError(
        f"host {endpoint.host}: use unix:///path/to/socket, tcp://address:port (with TLS) or ssh://user@host"
    )


def _unix(path: str) -> Socket:
    sock = Socket(AF_UNIX, SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def _tls(endpoint: Endpoint) -> Socket:
    import socket
    import ssl
    from urllib.parse import urlsplit

    if endpoint.tls is None:
        raise DialError(f"{endpoint.host} has no TLS: give --tlscacert, --tlscert and --tlskey, or use ssh://")
    tls = endpoint.tls
    try:
        context = ssl.create_default_context(cafile=tls.ca if tls.verify else None)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(tls.cert, tls.key)
    except OSError as problem:
        files = f"{tls.ca}, {tls.cert} and {tls.key}"
        raise DialError(f"{endpoint.host} needs certificates in {files}: {problem}") from None
    url = urlsplit(endpoint.host)
    host = url.hostname or "localhost"
    return context.wrap_socket(socket.create_connection((host, url.port or 2376)), server_hostname=host)


def _ssh(address: str) -> Socket:
    """Both ends of a pair of sockets: ours, and the one that ssh has as standard input and output."""
    import socket
    import subprocess
    from urllib.parse import urlsplit

    url = urlsplit(address)
    if not url.hostname or url.password:
        raise DialError(f"host {address}: write it as ssh://user@host:port, without a password")
    # "--": a host whose name starts with a dash is no option of ssh.
    words = ["ssh", *(["-l", url.username] if url.username else []), *(["-p", str(url.port)] if url.port else [])]
    remote = ["swarmctl", *(["-H", f"unix://{url.path}"] if url.path.strip("/") else []), "system", "dial-stdio"]
    ours, theirs = socket.socketpair()
    try:
        # In a session of its own: an interrupt at the terminal is for us, and we hang up.
        subprocess.Popen(
            [*words, "-o", "ConnectTimeout=30", "-T", "--", url.hostname, *remote],
            stdin=theirs.fileno(), stdout=theirs.fileno(), start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise DialError(f"{address}: there is no ssh here: install openssh-client") from None
    finally:
        theirs.close()
    return ours


def tls_in(directory: str, *, verify: bool = True) -> Tls:
    """A directory with ca.pem, cert.pem and key.pem."""
    ca, cert, key = (os.path.join(directory, name) for name in ("ca.pem", "cert.pem", "key.pem"))
    return Tls(ca, cert, key, verify)
