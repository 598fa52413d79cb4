"""Which program of this host has a port, so that a refusal can name it."""

import contextlib
from pathlib import Path

_LISTENS = {"tcp": "0A", "udp": "07"}  # states of /proc/net/tcp and udp, see proc(5)


def listener(protocol: str, port: int) -> str:
    """'nginx (process 1234)', or "" when none can be told."""
    sockets = _sockets(protocol, port)
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for fd in (process / "fd").iterdir():
                if str(fd.readlink()) in sockets:
                    return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return ""


def _sockets(protocol: str, port: int) -> set[str]:
    """As /proc/PID/fd names them."""
    found = set()
    for name in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS[protocol] and int(words[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{words[9]}]")
    return found
