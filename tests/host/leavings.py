"""What a daemon leaves to its containers when it ends, and tests therefore take away: bridges and rules."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def taken_away() -> Iterator[None]:
    """Remove the interfaces and nft tables of this network namespace that come meanwhile and stay."""
    tables, interfaces = _tables(), _interfaces()
    try:
        yield
    finally:
        for table in _tables() - tables:
            subprocess.run(["nft", "delete", "table", *table.split()], check=True)
        for interface in _interfaces() - interfaces:
            subprocess.run(["ip", "link", "delete", interface], check=False)  # gone with its peer


def _tables() -> set[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    return {line.removeprefix("table ") for line in done.stdout.splitlines()}


def _interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}
