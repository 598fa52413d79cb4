"""Small files as the stages read and write them: whole, durable where it matters, and never through a codec lookup.

Standard library only; the daemon uses the same functions for its own state files.
"""

import errno
import json
import os
from typing import Any

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})  # of a disk


def write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_fd(fd: int, limit: int) -> bytes:
    chunks: list[bytes] = []
    while limit > 0 and (chunk := os.read(fd, min(limit, 65536))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def read_bytes(path: str, limit: int = 1 << 24) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_fd(fd, limit)
    finally:
        os.close(fd)


def put(path: str, text: str) -> None:
    """Write text into a file that exists, such as those of /proc and of cgroups."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def put_new(path: str, data: bytes) -> None:
    """Make a file, or make it anew, that everybody may read."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)
        write_all(fd, data)
    finally:
        os.close(fd)


def replace(path: str, data: bytes, durable: bool = True) -> None:
    """Write a file so that a reader, and with durable a crashed host, sees the old content or the new, never half."""
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    if durable:
        sync_directory(path.rpartition("/")[0] or ".")


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_json(path: str) -> dict[str, Any] | None:
    """Return the object in a file, None when there is no such file."""
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        return None
    value: dict[str, Any] = json.loads(data)
    return value


def dump_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def start_time(pid: int) -> int:
    """Return when a process started, in ticks since boot; with the pid and the boot that names it for ever.

    0 when there is none, or only its zombie.
    """
    try:
        # The name may contain spaces and parentheses; the fields after its last one may not.
        fields = read_bytes(f"/proc/{pid}/stat", 4096).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def boot_id() -> str:
    return read_bytes("/proc/sys/kernel/random/boot_id", 64).decode().strip()
