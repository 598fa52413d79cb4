"""Lines sent to real receivers: each transport, each format, and receivers that are away for a while."""

import datetime
import ipaddress
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from swarmd.runtime import log_drivers
from swarmd.runtime.stages import shipping
from swarmd.runtime.stages.journald import Journal
from swarmd.runtime.stages.shipping import Both, Shipper
from swarmd.runtime.stages.syslog import Syslog

AT = 1_767_323_045_678_901_000  # 2026-01-02T03:04:05.678901Z
HOST, PID = os.uname().nodename, os.getpid()


def target(address: str, **options: str) -> dict[str, Any]:
    """What the shim would be told."""
    given = {"syslog-address": address} | {f"syslog-{key.replace('_', '-')}": value for key, value in options.items()}
    found = log_drivers._target(log_drivers.parse("syslog", given), "web", {})
    assert found
    return found


def datagrams(family: int, address: Any) -> socket.socket:
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    receiver.settimeout(10)
    receiver.bind(address)
    return receiver


def ship(wanted: dict[str, Any], room: int = 0) -> None:
    log = Both(shipping.sink(wanted, room))
    log.write("stdout", b"first\nsecond\n")
    log.write("stderr", b"third")
    log.flush("stderr")
    log.close()


@pytest.mark.parametrize("room", [0, 1 << 20])
def test_udp(room: int) -> None:
    with datagrams(socket.AF_INET, ("127.0.0.1", 0)) as receiver:
        ship(target(f"udp://127.0.0.1:{receiver.getsockname()[1]}", format="rfc3164", facility="local3"), room)
        found = [receiver.recv(9999).decode() for _ in range(3)]
    # local3 is 19: 19 * 8 + 6 for what is said, + 3 for errors
    for text, priority, line in zip(found, (158, 158, 155), ("first", "second", "third"), strict=True):
        assert re.fullmatch(rf"<{priority}>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d {HOST} web\[{PID}\]: {line}", text)


def test_unix_datagrams(tmp_path: Path) -> None:
    with datagrams(socket.AF_UNIX, str(tmp_path / "log")) as receiver:
        ship(target(f"unixgram://{tmp_path}/log"))
        assert re.fullmatch(rf"<30>\w+ +\d+ [\d:]+ web\[{PID}\]: first", receiver.recv(9999).decode())


def accept_all(
    server: socket.socket, wrap: Callable[[socket.socket], socket.socket] = lambda s: s
) -> Callable[[], bytes]:
    """What one connection brings until its end."""
    server.settimeout(10)
    found: list[bytes] = []

    def run() -> None:
        connection = wrap(server.accept()[0])
        with connection:
            while data := connection.recv(9999):
                found.append(data)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> bytes:
        thread.join(10)
        return b"".join(found)

    return result


def test_tcp_and_unix_streams(tmp_path: Path) -> None:
    expected = "".join(
        rf"<{priority}>1 \S+Z {HOST} web {PID} web - {line}\n"
        for priority, line in ((30, "first"), (30, "second"), (27, "third"))
    ).encode()
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = accept_all(server)
        ship(target(f"tcp://127.0.0.1:{server.getsockname()[1]}", format="rfc5424"))
        assert re.fullmatch(expected, result())
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        result = accept_all(server)
        ship(target(f"unix://{tmp_path}/s", format="rfc5424micro"), 1 << 20)
        assert re.fullmatch(expected, result())


@pytest.mark.parametrize("how", ["authority", "skipped", "mutual"])
def test_tls(tmp_path: Path, how: str) -> None:
    certificate, key = certify(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    options = {"tls_skip_verify": "true"} if how == "skipped" else {"tls_ca_cert": certificate}
    if how == "mutual":
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
        options |= {"tls_cert": certificate, "tls_key": key}
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = accept_all(server, lambda raw: context.wrap_socket(raw, server_side=True))
        ship(target(f"tcp+tls://127.0.0.1:{server.getsockname()[1]}", format="rfc5424", **options))
        received = result()
    texts = []
    while received:  # RFC 5425: each is preceded by its length
        length, _, received = received.partition(b" ")
        texts.append(received[: int(length)])
        received = received[int(length) :]
    assert [text.split(b" - ")[1] for text in texts] == [b"first", b"second", b"third"]


def certify(place: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(1))
    builder = builder.not_valid_after(now + datetime.timedelta(1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    (place / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (place / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return str(place / "cert.pem"), str(place / "key.pem")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("rfc5424", f"<30>1 2026-01-02T03:04:05Z {HOST} web {PID} web - x"),
        ("rfc5424micro", f"<30>1 2026-01-02T03:04:05.678901Z {HOST} web {PID} web - x"),
    ],
    ids=["seconds", "microseconds"],
)
def test_times(form: str, expected: str) -> None:
    assert Syslog(target("udp://h:1", format=form)).message("stdout", b"x", AT).decode() == expected


def test_the_journal(tmp_path: Path) -> None:
    with datagrams(socket.AF_UNIX, str(tmp_path / "socket")) as receiver:
        fields = {"CONTAINER_NAME": "web", "NOTE": "two\nlines"}
        sender = Journal(str(tmp_path / "socket"), fields)
        sender.connect()
        sender.send("stderr", b"it = broken", AT)
        assert receiver.recv(9999) == (
            b"MESSAGE=it = broken\nPRIORITY=3\nSYSLOG_TIMESTAMP=2026-01-02T03:04:05.678901000Z\n"
            b"CONTAINER_NAME=web\nNOTE\n\x09\0\0\0\0\0\0\0two\nlines\n"
        )
        sender.close()


def test_a_buffered_receiver_that_comes_late_gets_all(tmp_path: Path) -> None:
    log = Both(shipping.sink(target(f"unixgram://{tmp_path}/log"), 1 << 20))
    log.write("stdout", b"early\n")
    with datagrams(socket.AF_UNIX, str(tmp_path / "log")) as receiver:
        assert receiver.recv(9999).endswith(b": early")
    log.close()


class Away:
    """A sender whose receiver is there only at times."""

    def __init__(self) -> None:
        self.there = False
        self.sent: list[bytes] = []

    def connect(self) -> None:
        if not self.there:
            raise ConnectionRefusedError

    def send(self, stream: str, line: bytes, at: int) -> None:
        self.connect()
        self.sent.append(line)

    def close(self) -> None: ...


def test_what_nobody_took_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(shipping.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(shipping.time, "sleep", lambda pause: now.__setitem__(0, now[0] + pause))
    sender = Away()
    shipper = Shipper(sender, patience=10.0)
    shipper.append("stdout", b"one\n", AT)
    assert now[0] == pytest.approx(110.0), "the first waits"
    shipper.append("stdout", b"two\nthree\n", AT)
    assert now[0] == pytest.approx(110.0), "the others don't"
    sender.there = True
    now[0] += 1
    shipper.append("stdout", b"four\nfive\n", AT)
    said, *rest = sender.sent
    assert said.startswith(b"swarmd: 3 lines lost: ") and rest == [b"four", b"five"]
