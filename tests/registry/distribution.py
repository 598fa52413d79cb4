"""Debian's docker-registry, run on a free port of the loopback interface."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 10.0  # s
USER, PASSWORD = "tester", "correct horse"
# bcrypt of PASSWORD with the least cost, so that a test doesn't wait for it.
HTPASSWD = f"{USER}:$2b$04$tx0Dl8WQlhcmiUCgoz0ge.QOl4ZwXCPPZuyJnhF996YhgvpqqE9Vm\n"


@contextmanager
def registry(
    directory: Path,
    tls: tuple[Path, Path] | None = None,
    auth: dict[str, Any] | None = None,
    client_authority: Path | None = None,
) -> Iterator[str]:
    """Its host:port, while it runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = configured(directory, port, tls, auth, client_authority)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(path)], stdout=log, stderr=log)
    try:
        _wait(port, process, directory / "log")
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def configured(
    directory: Path,
    port: int,
    tls: tuple[Path, Path] | None = None,
    auth: dict[str, Any] | None = None,
    client_authority: Path | None = None,
) -> Path:
    """What `docker-registry serve` is to be given."""
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}"}
    if tls is not None:
        http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
        if client_authority is not None:
            http["tls"]["clientcas"] = [str(client_authority)]
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}, "delete": {"enabled": True}},
        "http": http,
    }
    if auth is not None:
        config["auth"] = auth
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def password_file(directory: Path) -> dict[str, Any]:
    """The `auth` of a registry that knows USER with PASSWORD."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "htpasswd"
    path.write_text(HTPASSWD)
    return {"htpasswd": {"realm": "tests", "path": str(path)}}


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError as error:
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"the registry doesn't listen on {port}: {error}; {log.read_text()}") from None
        time.sleep(0.01)
