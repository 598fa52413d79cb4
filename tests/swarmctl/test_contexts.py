"""Which daemon a command speaks to: flags, environment, contexts of ours and Docker's, TLS and ssh."""

import datetime
import hashlib
import ipaddress
import json
import os
import shlex
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.swarmctl.daemon import Asked, Daemon, Handler, daemon_at, frame
from tests.swarmctl.program import SWARMCTL

Ctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with daemon_at(tmp_path / "s") as daemon:
        daemon.answers["GET /version"] = {"Version": "9"}
        yield daemon


@pytest.fixture
def ctl(tmp_path: Path) -> Ctl:
    """swarmctl with a home of its own."""

    def run(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        env = {"HOME": str(tmp_path), "PATH": environment.pop("PATH", os.environ["PATH"]), **environment}
        return subprocess.run(
            [*SWARMCTL, *words],
            input=stdin, capture_output=True, text=True, env=env, timeout=20, check=False,
        )  # fmt: skip

    return run


SERVER = ("version", "--format", "{{.Server.Version}}")


def test_a_context_lives(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    made = ctl("context", "create", "--description", "mine", "--docker", f"host=unix://{daemon.socket}", "lab")
    assert (made.returncode, made.stdout) == (0, "lab\n"), made.stderr
    assert ctl("context", "create", "lab").returncode == 1
    assert ctl("--context", "lab", *SERVER).stdout == "9\n"
    assert ctl(*SERVER, SWARMCTL_CONTEXT="lab").stdout == "9\n"
    assert ctl(*SERVER, DOCKER_CONTEXT="lab").stdout == "9\n"
    assert ctl("context", "show").stdout == "default\n"
    assert ctl("context", "use", "lab").stdout == "lab\n"
    assert ctl(*SERVER).stdout == "9\n"
    assert ctl(*SERVER, DOCKER_HOST="unix:///nowhere").returncode == 1  # goes before the chosen context
    assert ctl("context", "show").stdout == "lab\n"
    listed = ctl("context", "ls").stdout.splitlines()
    assert listed[2].split() == ["lab", "*", "mine", f"unix://{daemon.socket}"]
    assert ctl("context", "ls", "-q").stdout == "default\nlab\n"
    assert ctl("context", "inspect", "-f", "{{.Endpoints.docker.Host}}").stdout == f"unix://{daemon.socket}\n"
    assert ctl("context", "update", "--description", "yours", "lab").returncode == 0
    assert ctl("context", "inspect", "-f", "{{.Metadata.Description}}", "lab").stdout == "yours\n"
    assert ctl("context", "export", "lab", f"{tmp_path}/out.tar").returncode == 0
    assert ctl("context", "import", "copy", f"{tmp_path}/out.tar").stdout == "copy\n"
    assert ctl("--context", "copy", *SERVER).stdout == "9\n"
    refused = ctl("context", "rm", "lab", "copy")
    assert (refused.returncode, refused.stdout) == (1, "copy\n")
    assert "context lab is in use" in refused.stderr
    assert ctl("context", "rm", "-f", "lab").returncode == 0
    assert ctl("context", "show").stdout == "default\n"


def test_dockers_contexts_are_usable_and_not_written(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    meta = tmp_path / ".docker/contexts/meta" / hashlib.sha256(b"theirs").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": "theirs", "Endpoints": {"docker": {"Host": f"unix://{daemon.socket}"}}}))
    assert ctl("-c", "theirs", *SERVER).stdout == "9\n"
    assert "theirs" in ctl("context", "ls", "-q").stdout.split()
    assert ctl("context", "use", "theirs").returncode == 0
    assert ctl(*SERVER).stdout == "9\n"
    assert "'docker context update' changes it" in ctl("context", "update", "--description", "x", "theirs").stderr
    assert ctl("context", "rm", "-f", "theirs").returncode == 1
    assert meta.exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("-H", "unix:///a", "-c", "b", "ps"), "-H and --context both name a daemon"),
        (("-c", "gone", "ps"), "no context gone: 'swarmctl context ls'"),
        (("-H", "http://x", "ps"), "use unix:///path/to/socket, tcp://address:port (with TLS) or ssh://user@host"),
        (("-H", "tcp://127.0.0.1:1", "ps"), "needs certificates in"),
        (("context", "create", "../x"), "is no name for a context"),
        (("context", "create", "--docker", "colour=red", "x1"), "unknown key 'colour'"),
        (("context", "import", "x1", "/etc/hostname"), "is no exported context"),
        (("context", "rm", "default"), "context default is always there"),
    ],
)
def test_refusals(ctl: Ctl, words: tuple[str, ...], complaint: str) -> None:
    answer = ctl(*words)
    assert answer.returncode == 1
    assert complaint in answer.stderr
    assert "Traceback" not in answer.stderr


# ---------------------------------------------------------------- ssh


def test_ssh_runs_dial_stdio_there(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    """An `ssh` that runs here what it would run there."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/swarmctl").write_text(f'#!/bin/sh\nexec {shlex.join(SWARMCTL)} "$@"\n')
    (tmp_path / "bin/ssh").write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/words\nwhile [ "$1" != -- ]; do shift; done; shift 2\nexec "$@"\n'
    )
    for name in ("ssh", "swarmctl"):
        (tmp_path / "bin" / name).chmod(0o755)

    def talk(request: Asked) -> None:
        request.handler.hijack()
        request.handler.wfile.write(frame(1, request.handler.rfile.read().upper()))

    daemon.answers |= {
        "POST /containers/{}/exec": {"Id": "e1"},
        "POST /exec/{}/start": talk,
        "GET /exec/{}/json": {"ExitCode": 4},
    }
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    answer = ctl(
        "-H", "ssh://me@host:2222", "exec", "-i", "one", "cat",
        stdin="in", PATH=path, SWARMCTL_HOST=f"unix://{daemon.socket}",
    )  # fmt: skip
    assert (answer.returncode, answer.stdout) == (4, "IN"), answer.stderr
    words = (tmp_path / "words").read_text().splitlines()[0]
    assert words == "-l me -p 2222 -o ConnectTimeout=30 -T -- host swarmctl system dial-stdio"


# ---------------------------------------------------------------- TLS


def certificate(
    directory: Path, name: str, ca: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca[0].subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
    )
    if ca:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    made = builder.sign(ca[1] if ca else key, hashes.SHA256())
    (directory / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}-key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made, key


class _TlsServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client without a certificate


def test_tls(ctl: Ctl, daemon: Daemon, tmp_path: Path) -> None:
    ca = certificate(tmp_path, "ca", None)
    certificate(tmp_path, "server", ca)
    certificate(tmp_path, "cert", ca)
    (tmp_path / "cert-key.pem").rename(tmp_path / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server-key.pem")
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    def talk(request: Asked) -> None:
        request.handler.hijack()
        request.handler.wfile.write(frame(1, request.handler.rfile.read(3)))

    daemon.answers |= {"POST /containers/{}/exec": {"Id": "e1"}, "POST /exec/{}/start": talk, "GET /exec/{}/json": {}}
    with _TlsServer(("127.0.0.1", 0), type("Bound", (Handler,), {"daemon": daemon})) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        host = f"tcp://127.0.0.1:{server.server_address[1]}"
        files = (
            "--tlscacert",
            f"{tmp_path}/ca.pem",
            "--tlscert",
            f"{tmp_path}/cert.pem",
            "--tlskey",
            f"{tmp_path}/key.pem",
        )
        assert ctl("-H", host, *SERVER, DOCKER_CERT_PATH=str(tmp_path)).stdout == "9\n"
        assert ctl("-H", host, "--tlsverify", *files, *SERVER).stdout == "9\n"
        said = ctl("-H", host, *files, "exec", "-i", "one", "cat", stdin="abc")
        assert (said.returncode, said.stdout) == (0, "abc"), said.stderr
        where = f"host={host},ca={tmp_path}/ca.pem,cert={tmp_path}/cert.pem,key={tmp_path}/key.pem"
        assert ctl("context", "create", "far", "--docker", where).returncode == 0
        assert ctl("-c", "far", *SERVER).stdout == "9\n"
        (key,) = (tmp_path / ".swarmd").rglob("key.pem")
        assert key.stat().st_mode & 0o777 == 0o600
        # A daemon that others vouch for is not spoken to, unless that is asked for.
        certificate(tmp_path, "other", None)
        stranger = (files[0], f"{tmp_path}/other.pem", *files[2:])
        refused = ctl("-H", host, *stranger, *SERVER)
        assert refused.returncode == 1
        assert "certificate verify failed" in refused.stderr
        assert ctl("-H", host, "--tls", *stranger, *SERVER).stdout == "9\n"
        server.shutdown()
