"""Connects to a daemon: its unix socket, TCP with TLS, or another host through ssh.

TCP without TLS is refused: who reaches the socket is root on that machine.
"""

import os
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_HOST = "unix:///run/swarmd/swarmd.sock"


class DialError(Exception):
    """One sentence for the user."""


class Tls(NamedTuple):
    """Files in PEM; verify: whether the daemon must prove who it is."""

    ca: str
    cert: str
    key: str
    verify: bool = True


class Endpoint(NamedTuple):
    host: str
    tls: Tls | None = None


def dial(endpoint: Endpoint) -> socket.socket:
    """Return a connected socket; OSError and DialError say why there is none."""
    url = urlsplit(endpoint.host)
    if url.scheme == "unix":
        return _unix(url.netloc + url.path)
    if url.scheme == "tcp":
        return _tls(url.hostname or "localhost", url.port or 2376, endpoint)
    if url.scheme == "ssh":
        return _ssh(endpoint.host)
    raise DialError(
        f"host {endpoint.host}: use unix:///path/to/socket, tcp://address:port (with TLS) or ssh://user@host"
    )


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def _tls(host: str, port: int, endpoint: Endpoint) -> socket.socket:
    import ssl

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
    return context.wrap_socket(socket.create_connection((host, port)), server_hostname=host)


def _ssh(address: str) -> socket.socket:
    """Both ends of a pair of sockets: ours, and the one that ssh has as standard input and output."""
    import subprocess

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
    ca, cert, key = (os.path.join(directory, name) for name in ("ca.pem", "cert.pem", "key.pem"))  # noqa: PTH118
    return Tls(ca, cert, key, verify)
